# SPDX-License-Identifier: Apache-2.0
"""Checks of conditions: SQL's answers, and a clear word for what is none."""

from __future__ import annotations

from collections.abc import Callable

from vesalius.errors import UsageError
from vesalius.store.conformance.engine import (
    Check,
    Engine,
    archive,
    expect,
    refused,
    some,
    vector_of,
)
from vesalius.store.protocol import Entry, Filter

_Fact = Callable[[Entry], bool]


def _known(name: str, test: Callable[..., bool]) -> _Fact:
    """Return a test of a fact that a missing one does not pass."""
    return lambda e: (value := e.facts[name]) is not None and test(value)


_CONDITIONS: tuple[tuple[str, _Fact], ...] = (
    ("", lambda _: True),
    ("modality = 'MR'", _known("modality", lambda v: v == "MR")),
    ("modality != 'MR'", _known("modality", lambda v: v != "MR")),
    ("not modality = 'MR'", _known("modality", lambda v: v != "MR")),
    ("modality <> 'MR' or age >= 50", lambda e: _known("modality", lambda v: v != "MR")(e)
     or _known("age", lambda v: v >= 50)(e)),
    ("modality='MR' and age>50", lambda e: e.facts["modality"] == "MR"
     and _known("age", lambda v: v > 50)(e)),
    ("age > 50 and age < 52.5", _known("age", lambda v: 50 < v < 52.5)),
    ("age = 50.5", lambda _: False),
    ("age in (1, 2, 88.0, 90)", _known("age", lambda v: v in (1, 2, 88))),
    ("age not in (1, 2)", _known("age", lambda v: v not in (1, 2))),
    ("age between 10 and 12", _known("age", lambda v: 10 <= v <= 12)),
    ("age not between 10 and 80", _known("age", lambda v: not 10 <= v <= 80)),
    ("age is null", lambda e: e.facts["age"] is None),
    ("age IS NOT NULL AND modality IS NULL", lambda e: e.facts["age"] is not None
     and e.facts["modality"] is None),
    ("modality like 'M%'", _known("modality", lambda v: v.startswith("M"))),
    ("modality not like '_T'", _known("modality", lambda v: v[1:] != "T")),
    ("key like 'image-000_'", lambda e: e.key.startswith("image-000")),
    ("key like '%\\_%'", lambda _: False),
    ("patient = 'patient-0002'", lambda e: e.patient == "patient-0002"),
    ('"case" in (\'case-0001\', \'case-0007\')', lambda e: e.case in ("case-0001", "case-0007")),
    ("contrast", _known("contrast", lambda v: v is True)),
    ("not contrast", _known("contrast", lambda v: v is False)),
    ("contrast = false or contrast is null", lambda e: e.facts["contrast"] is not True),
    ("dose <= 2.5 and dose > -1e3", _known("dose", lambda v: v <= 2.5)),
    ("(age < 5 or age > 85) and (contrast or modality = 'CT')",
     lambda e: _known("age", lambda v: v < 5 or v > 85)(e)
     and (e.facts["contrast"] is True or e.facts["modality"] == "CT")),
    ("modality >= 'CT' and modality < 'MR'", _known("modality", lambda v: "CT" <= v < "MR")),
    ("modality = 'it''s'", lambda _: False),
)  # fmt: skip


def conditions_are_those_of_sql(engine: Engine) -> None:
    """Comparison, AND, OR, NOT, IN, LIKE, BETWEEN, IS NULL, with SQL's unknown."""
    entries = some(120)
    made = archive(engine, entries)
    query = vector_of(entries[0])
    for where, fits in _CONDITIONS:
        wanted = sorted(e.key for e in entries if e.vector is not None and fits(e))
        (near,) = made.nearest(query, 1000, Filter(where=where))
        expect(sorted(near.keys) == wanted, f"{where!r} lets those answer that fulfil it")
        wanted = sorted(e.key for e in entries if "effusion" in e.words and "No" not in e.words
                        and fits(e))  # fmt: skip
        found = sorted(hit.key for hit in made.worded("effusion", 1000, Filter(where=where)))
        expect(found == wanted, f"{where!r} does so for words")


_REFUSED: tuple[tuple[str, str], ...] = (
    ("modalty = 'MR'", "Did you mean 'modality'"),
    ("modality = 'MR'; DROP TABLE rows", "';'"),
    ("modality = 'MR' -- and age > 5", "'-'"),
    ("modality = 'MR' /* */", "'/'"),
    ("1 = 1", "'1'"),
    ("modality = 'MR' or 1 = 1", "'1'"),
    ("modality = 'MR' OR true", "true"),
    ("modality = 'MR' union select * from rows", "union"),
    ("key in (select key from rows)", "select"),
    ("lower(modality) = 'mr'", "functions"),
    ("pg_sleep(9)", "functions"),
    ("modality = 'MR", "'''"),
    ("modality = \"MR\"", "single quotes"),
    ("vector = 'x'", "vector"),
    ("words like '%a%'", "words"),
    ("age = 'old'", "number"),
    ("age = NULL", "IS NULL"),
    ("modality = 3", "single quotes"),
    ("modality", "comparison"),
    ("age like '5%'", "LIKE"),
    ("contrast > false", "="),
    ("modality like 'a\\'", "backslash"),
    ("(age > 5", "')'"),
    ("age > 5)", "')'"),
    ("age >", "its end"),
    ("age 5", "'5'"),
    ("age between 5 or 6", "BETWEEN"),
    ("age in ()", "number"),
    ("and", "column"),
    ("age > 1e999", "number"),
    ("%s = 1", "'%'"),
    ("age > $1", "'$'"),
    ("(" * 60 + "age > 5" + ")" * 60, "nested"),
    ("age = 1 or " * 2000 + "age = 1", "characters"),
    ("modality = 'MR' \x00", "expected"),
    ("modality = '\ud83d'", "expected"),
)  # fmt: skip


def other_conditions_are_refused(engine: Engine) -> None:
    """Refuse a wrong name, a wrong type, and attempts to make a condition do more."""
    entries = some(20)
    made = archive(engine, entries)
    for where, said in _REFUSED:
        given = Filter(where=where)
        for ask in (
            lambda given=given: made.nearest(vector_of(entries[0]), 5, given),
            lambda given=given: made.worded("mass", 5, given),
        ):
            refused(ask, UsageError, said)
    expect(len(made.held()) == 20, "nothing was done by any of them")


CHECKS: tuple[Check, ...] = (conditions_are_those_of_sql, other_conditions_are_refused)
