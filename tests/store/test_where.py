# SPDX-License-Identifier: Apache-2.0
"""Conditions mean what they mean to SQLite, in memory and as SQL with parameters."""

from __future__ import annotations

import sqlite3
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.errors import UsageError
from vesalius.store import sql
from vesalius.store.masks import fulfilling
from vesalius.store.where import parse

COLUMNS = {"a": "integer", "b": "text", "c": "float", "d": "boolean"}
_TEXTS = ["", "MR", "mr", "M%", "x_y", "it's", "é", 'q"', "\\", None]
ROWS = [
    (a, _TEXTS[at % len(_TEXTS)], c, d)
    for at, (a, c, d) in enumerate(
        (a, c, d) for a in (None, -1, 0, 7) for c in (None, 0.5, 7.0) for d in (None, True, False)
    )
]
ARROW = {
    "a": pa.array([row[0] for row in ROWS], pa.int64()),
    "b": pa.array([row[1] for row in ROWS], pa.string()),
    "c": pa.array([row[2] for row in ROWS], pa.float64()),
    "d": pa.array([row[3] for row in ROWS], pa.bool_()),
}
ENCODED = {**ARROW, "b": ARROW["b"].dictionary_encode()}


@pytest.fixture(scope="module")
def database() -> sqlite3.Connection:
    found = sqlite3.connect(":memory:")
    found.execute("PRAGMA case_sensitive_like = ON")
    found.execute("CREATE TABLE rows (a INTEGER, b TEXT, c REAL, d INTEGER)")
    found.executemany("INSERT INTO rows VALUES (?, ?, ?, ?)", ROWS)
    return found


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


_NUMBERS = st.sampled_from(["-1", "0", "7", "7.0", "0.5", "-1e1", "+3"])
_STRINGS = st.sampled_from([_quoted(text) for text in _TEXTS if text is not None])
_PATTERNS = st.sampled_from(["'%'", "'M%'", "'M_'", "'_'", "''", "'%''%'", "'.*'", "'(x'"])
_OPS = st.sampled_from(["=", "!=", "<>", "<", "<=", ">", ">="])
_TESTS = st.one_of(
    st.builds("{} {} {}".format, st.sampled_from("ac"), _OPS, _NUMBERS),
    st.builds("b {} {}".format, _OPS, _STRINGS),
    st.builds("d {} {}".format, st.sampled_from(["=", "!="]), st.sampled_from(["TRUE", "false"])),
    st.just("d"),
    st.builds("{} IS {}NULL".format, st.sampled_from("abcd"), st.sampled_from(["", "NOT "])),
    st.builds("a {}IN ({}, {})".format, st.sampled_from(["", "not "]), _NUMBERS, _NUMBERS),
    st.builds("b {}in ({}, {})".format, st.sampled_from(["", "NOT "]), _STRINGS, _STRINGS),
    st.builds("b {}like {}".format, st.sampled_from(["", "NOT "]), _PATTERNS),
    st.builds("{} between {} and {}".format, st.sampled_from("ac"), _NUMBERS, _NUMBERS),
)
_CONDITIONS = st.recursive(
    _TESTS,
    lambda inner: st.one_of(
        st.builds("({}) {} {}".format, inner, st.sampled_from(["AND", "or"]), inner),
        st.builds("{} {} ({})".format, inner, st.sampled_from(["and", "OR"]), inner),
        st.builds("NOT ({})".format, inner),
    ),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(where=_CONDITIONS)
def test_memory_and_sql_agree_with_sqlite(database: sqlite3.Connection, where: str) -> None:
    condition = parse(where, COLUMNS)
    assert condition is not None
    wanted = [bool(at) for (at,) in database.execute(f"SELECT ({where}) IS TRUE FROM rows")]  # noqa: S608
    assert fulfilling(condition, ARROW).tolist() == wanted
    assert fulfilling(condition, ENCODED).tolist() == wanted
    text, values = sql.render(condition, lambda name: f'"{name}"')
    rendered = f"SELECT ({text.replace('%s', '?')}) IS TRUE FROM rows"  # noqa: S608
    assert [bool(at) for (at,) in database.execute(rendered, values)] == wanted


@settings(deadline=None)
@given(where=st.text(max_size=60))
def test_any_text_is_understood_or_refused(where: str) -> None:
    try:
        condition = parse(where, COLUMNS)
    except UsageError:
        return
    if condition is None:
        assert not where.strip()
    else:
        assert fulfilling(condition, ARROW).dtype == bool


@settings(deadline=None)
@given(text=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20))
def test_a_literal_is_never_a_part_of_the_statement(text: str) -> None:
    condition = parse(f"b = {_quoted(text)}", COLUMNS)
    assert condition is not None
    rendered, values = sql.render(condition, lambda name: f'"{name}"')
    assert (rendered, values) == ('("b" = %s)', [text])
    held: dict[str, Any] = {"b": pa.array([text, text + "x"])}
    assert fulfilling(condition, held).tolist() == [True, False]


def test_empty_columns() -> None:
    none = {name: column[:0] for name, column in ENCODED.items()}
    condition = parse("a > 3 and b like 'M%' or not d", COLUMNS)
    assert condition is not None
    assert np.array_equal(fulfilling(condition, none), np.empty(0, bool))
