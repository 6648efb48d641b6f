# SPDX-License-Identifier: Apache-2.0
"""Order of classes and of grades, from their names alone."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from vesalius.errors import UsageError
from vesalius.tasks.targets import listed

_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def class_order(names: Iterable[str]) -> list[str]:
    """Return class names in order: by number where all are numbers, else by letters."""
    distinct = sorted(set(names))
    if all(_is_number(name) for name in distinct):
        return sorted(distinct, key=float)
    return distinct


def grade_order(names: Iterable[str]) -> list[str]:
    """Return grades from the least, by the one number in each: `3`, `grade 3`, `T3`.

    Raises:
        UsageError: their names do not tell the order.
    """
    distinct = class_order(names)
    if all(_is_number(name) for name in distinct):
        return distinct
    numbers = {name: _NUMBER.findall(name) for name in distinct}
    around = {_NUMBER.sub("#", name).casefold() for name in distinct}
    if len(around) > 1 or any(len(found) != 1 for found in numbers.values()):
        raise UsageError(
            f"the names {listed(distinct)} do not tell the order of the grades; give it, from the "
            f"least, for example 'ordinal:{'<'.join(distinct[:3])}'"
        )
    return sorted(distinct, key=lambda name: float(numbers[name][0]))


def _is_number(name: str) -> bool:
    try:
        return math.isfinite(float(name))
    except ValueError:
        return False
