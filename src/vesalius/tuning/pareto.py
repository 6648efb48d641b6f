# SPDX-License-Identifier: Apache-2.0
"""The Pareto front: what nothing else beats in every objective."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vesalius.tuning.trial import Objective, Trial
from vesalius.types import Array


def losses(trials: Sequence[Trial], objectives: Sequence[Objective]) -> Array:
    """Return `(trials, objectives)`, less is better."""
    return np.array(
        [[o.loss(trial.values[o.name]) for o in objectives] for trial in trials], float
    ).reshape(len(trials), len(objectives))


def efficient(table: Array) -> Array:
    """Return which rows `(n,)` no other row dominates: as small everywhere, smaller somewhere.

    Of equal rows, all are efficient.

    Args:
        table: `(n, m)`, less is better.
    """
    kept = np.ones(len(table), bool)
    for place, row in enumerate(table):
        if kept[place]:
            beaten = (table >= row).all(1) & (table > row).any(1)
            kept &= ~beaten
    return kept


def front(trials: Sequence[Trial], objectives: Sequence[Objective]) -> list[Trial]:
    """Return the trials on the front, the best in the first objective first.

    Where a trial keeps the limits, those that do not keep them have no place on it. Of trials that
    are equal in everything, the first one stands for all.
    """
    done = [trial for trial in trials if trial.done]
    within = [t for t in done if not any(o.excess(t.values[o.name]) for o in objectives)]
    chosen = within or done
    table = losses(chosen, objectives)
    first: dict[tuple[float, ...], Trial] = {}
    for trial, row, kept in zip(chosen, table, efficient(table), strict=True):
        if kept:
            first.setdefault(tuple(row.tolist()), trial)
    return [first[row] for row in sorted(first)]
