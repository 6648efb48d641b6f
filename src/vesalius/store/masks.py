# SPDX-License-Identifier: Apache-2.0
"""A condition over columns in memory: which rows fulfil it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any as Anything

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vesalius.store.where import All, Among, Any, Compare, Condition, Like, Missing, Not
from vesalius.types import Array

_COMPARE = {
    "=": pc.equal, "!=": pc.not_equal, "<": pc.less, "<=": pc.less_equal, ">": pc.greater,
    ">=": pc.greater_equal,
}  # fmt: skip


def fulfilling(condition: Condition, columns: Mapping[str, pa.Array]) -> Array:
    """Return a mask of the rows that fulfil a condition; a missing value fulfils nothing.

    A dictionary-encoded column is tested once a distinct value.
    """
    return np.asarray(_test(condition, columns).fill_null(False))


def _test(condition: Condition, columns: Mapping[str, pa.Array]) -> Anything:
    """Return a boolean Arrow array, null where a value is missing."""
    match condition:
        case Not(part):
            return pc.invert(_test(part, columns))
        case All(parts):
            found = _test(parts[0], columns)
            for part in parts[1:]:
                found = pc.and_kleene(found, _test(part, columns))
            return found
        case Any(parts):
            found = _test(parts[0], columns)
            for part in parts[1:]:
                found = pc.or_kleene(found, _test(part, columns))
            return found
        case Missing(column):
            return columns[column].is_null()
        case Compare(name, _, _) | Among(name, _) | Like(name, _):
            column = columns[name]
            if isinstance(column, pa.DictionaryArray):
                return _test_values(condition, column.dictionary).take(column.indices)
            return _test_values(condition, column)


def _test_values(condition: Compare | Among | Like, values: Anything) -> Anything:
    match condition:
        case Compare(_, op, value):
            return _COMPARE[op](values, _scalar(value, values.type))
        case Among(_, wanted):
            kind = values.type
            if pa.types.is_integer(kind) and any(isinstance(one, float) for one in wanted):
                kind = pa.float64()
            within = pc.is_in(values.cast(kind), value_set=pa.array(wanted, kind))
            return pc.if_else(values.is_null(), pa.scalar(None, pa.bool_()), within)
        case Like(_, pattern):
            return pc.match_substring_regex(values, _regex(pattern))


def _scalar(value: Anything, kind: Anything) -> Anything:
    if isinstance(value, float) and pa.types.is_integer(kind):
        return pa.scalar(value, pa.float64())
    return pa.scalar(value, kind)


def _regex(pattern: str) -> str:
    """Return a LIKE pattern as a regular expression of the whole text."""
    found = ""
    for escaped, any_text, any_one, plain in re.findall(r"(?s)\\(.)|(%)|(_)|(.)", pattern):
        found += ".*" if any_text else "." if any_one else re.escape(escaped or plain)
    return f"(?s)^{found}$"
