# SPDX-License-Identifier: Apache-2.0
"""A condition as SQL whose literals are parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any as Anything

from vesalius.store.where import All, Among, Any, Compare, Condition, Like, Missing, Not


def render(condition: Condition, name: Callable[[str], str]) -> tuple[str, list[Anything]]:
    """Return an SQL condition with `%s` for each literal, and the literals.

    `name(column)` returns the column as the statement names it, quoted; columns of text must
    compare by code point (PostgreSQL: `COLLATE "C"`), as texts do elsewhere.
    """
    match condition:
        case Compare(column, op, value):
            return f"({name(column)} {'<>' if op == '!=' else op} %s)", [value]
        case Among(column, values):
            return f"({name(column)} IN ({', '.join(['%s'] * len(values))}))", list(values)
        case Like(column, pattern):
            return f"({name(column)} LIKE %s)", [pattern]
        case Missing(column):
            return f"({name(column)} IS NULL)", []
        case Not(part):
            text, values_of = render(part, name)
            return f"(NOT {text})", values_of
        case All(parts) | Any(parts):
            word = " AND " if isinstance(condition, All) else " OR "
            rendered = [render(part, name) for part in parts]
            found = [value for _, values_of in rendered for value in values_of]
            return f"({word.join(text for text, _ in rendered)})", found
