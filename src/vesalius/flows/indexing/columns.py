# SPDX-License-Identifier: Apache-2.0
"""What an archive keeps of a cohort's row: facts to filter by, and words to be found by."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from vesalius.cohorts.schema import LABEL
from vesalius.errors import DataError
from vesalius.tasks.retrieve.search_own import PHASH
from vesalius.types import Json

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort
    from vesalius.store.protocol import Fact

STATED = (  # columns of every cohort
    "modality", "body_part", "laterality", "view", "plane", "kind", "scanner", "site", "split",
)  # fmt: skip
_TAKEN = frozenset({"key", "case", "patient", "vector", "words", "facts", "thumbnail", PHASH})
_QUOTED = re.compile(r"'(?:[^']|'')*'")
_END = re.compile(r"[.;:!?]\s*$")


def fact_columns(cohort: Cohort) -> dict[str, str]:
    """Return column of the archive -> its type, of a cohort.

    A label bears its name without `label_` where no other column has that name.

    Raises:
        DataError: a label that is neither text, number nor yes/no.
    """
    labels = [name for name in cohort.columns if name.startswith(LABEL)]
    kinds = cohort.filter("key = ''").to_arrow(columns=labels).schema
    named = {short(label): _kind(label, str(kinds.field(label).type)) for label in labels}
    return {**dict.fromkeys(STATED, "text"), PHASH: "integer", **named}


def short(label: str) -> str:
    """Return the archive's name of a label's column.

    >>> short("label_age"), short("label_plane")
    ('age', 'label_plane')
    """
    plain = label.removeprefix(LABEL)
    return label if plain in _TAKEN or plain in STATED else plain


def facts_of(row: Mapping[str, object], columns: Iterable[str]) -> dict[str, Fact]:
    """Return a cohort row's facts, of some columns of an archive; None for unknown or NaN."""
    found: dict[str, Fact] = {}
    for column in columns:
        own = column in STATED or column == PHASH or column.startswith(LABEL)
        value = row.get(column if own else LABEL + column)
        known = isinstance(value, (str, int, float, bool)) and value != "" and value == value
        found[column] = value if known else None  # type: ignore[assignment]  # one of those
    return found


def words_of(row: Json) -> str:
    """Return the words of a cohort's row: caption or findings, descriptions, body part."""
    parts = [str(row.get(name) or "").strip() for name in ("words", "description", "body_part")]
    said = dict.fromkeys(part for part in parts if part)
    return " ".join(part if _END.search(part) else part + "." for part in said)


def archive_where(where: str, columns: Iterable[str]) -> str:
    """Return a filter in the archive's own names: `label_age` is `age` where that is the column."""
    known = set(columns)

    def named(match: re.Match[str]) -> str:
        name = match[0]
        return short(name) if name not in known and short(name) in known else name

    pieces, at = [], 0
    for quoted in _QUOTED.finditer(where):
        pieces += [_renamed(where[at : quoted.start()], named), quoted[0]]
        at = quoted.end()
    return "".join([*pieces, _renamed(where[at:], named)])


def _renamed(text: str, named: Callable[[re.Match[str]], str]) -> str:
    return re.sub(rf"\b{LABEL}\w+", named, text)


def _kind(label: str, arrow: str) -> str:
    if arrow in ("string", "large_string"):
        return "text"
    if arrow.startswith(("int", "uint")):
        return "integer"
    if arrow in ("double", "float", "halffloat"):
        return "float"
    if arrow == "bool":
        return "boolean"
    raise DataError(f"the label '{label}' is of the type {arrow}, which no filter can compare")
