# SPDX-License-Identifier: Apache-2.0
"""Cases sorted into groups (scanner, modality), so that each is scored by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vesalius.errors import UsageError
from vesalius.results import Estimate
from vesalius.types import Array, Json

_MOST_GROUPS = 30


def group_rows(
    groups: Mapping[str, Sequence[Any]], n: int
) -> list[tuple[str, list[tuple[str, Array]]]]:
    """Return for each column its values, largest group first, with the rows `(m,)` of each.

    A column with a single value is left out: its scores are those of the whole.
    """
    found = []
    for column, values in groups.items():
        if len(values) != n:
            raise UsageError(f"groups['{column}'] must have {n} entries, got {len(values)}")
        named = np.array(["unknown" if v in (None, "") or v != v else str(v) for v in values])
        kinds, counts = np.unique(named, return_counts=True)
        order = np.argsort(-counts, kind="stable")[:_MOST_GROUPS]
        if len(kinds) > 1:
            found.append(
                (column, [(str(kinds[k]), np.flatnonzero(named == kinds[k])) for k in order])
            )
    return found


def group_scores(
    groups: Mapping[str, Sequence[Any]] | None, n: int, score: Callable[[Array], list[Estimate]]
) -> list[Json]:
    """Return `{"column", "value", "scores"}` of each group; `score` takes its rows `(m,)`."""
    return [
        {"column": column, "value": value, "scores": [s.to_json() for s in score(chosen)]}
        for column, rows in group_rows(groups or {}, n)
        for value, chosen in rows
    ]
