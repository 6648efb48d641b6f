# SPDX-License-Identifier: Apache-2.0
"""Scores of a ranking: ROC curve and the area under it, average precision, sensitivity.

The area is the chance that a case of the class stands above one of the rest (Hanley & McNeil
1982; ties count half); average precision is the step-wise area under precision over recall.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vesalius.types import Array, Json

SPECIFICITIES = (0.90, 0.95)  # at which sensitivity is stated


@dataclass(frozen=True, slots=True)
class Ranking:
    """Cases from the highest value down.

    Attributes:
        order: the cases, `(n,)`.
        starts: the first place of each run of equal values, one per threshold.
        positive: whether the case at each place is of the class, `(n,)`.
    """

    order: Array
    starts: Array
    positive: Array


def ranking(values: Array, positive: Array) -> Ranking:
    """Rank cases by `values` `(n,)`, infinities allowed."""
    order = np.argsort(-values, kind="stable")
    ranked = values[order]
    starts = np.append(0, np.flatnonzero(ranked[1:] != ranked[:-1]) + 1)
    return Ranking(order, starts, np.asarray(positive, bool)[order])


def rank_scores(weights: Array, ranked: Ranking) -> Array:
    """Return area, average precision and sensitivities, `(draws, 2 + len(SPECIFICITIES))`.

    A sensitivity is the highest at any threshold whose specificity, on these same cases, is at
    least the stated one. NaN where a draw lacks what is needed.
    """
    drawn = weights[:, ranked.order]
    found = drawn * ranked.positive
    if len(ranked.starts) < len(ranked.order):
        drawn, found = (np.add.reduceat(part, ranked.starts, axis=1) for part in (drawn, found))
    hits = np.cumsum(found, axis=1)  # (draws, thresholds)
    passed = np.cumsum(drawn, axis=1)
    alarms = passed - hits
    positives, negatives = hits[:, -1], alarms[:, -1]
    area = ((drawn - found) * (hits - found / 2)).sum(1)
    found *= np.divide(hits, passed, out=passed, where=passed > 0)  # by precision
    scores = [area / negatives, found.sum(1)]
    rows = np.arange(len(weights))
    for specificity in SPECIFICITIES:
        allowed = (alarms <= (1 - specificity) * negatives[:, None] + 1e-9).sum(1)
        most = np.where(allowed > 0, hits[rows, allowed - 1], 0.0)
        scores.append(np.where(negatives > 0, most, np.nan))
    table: Array = np.column_stack(scores) / positives[:, None]
    return table


def roc(positive: Array, values: Array, *, points: int = 200) -> Json:
    """Return `{"fpr", "tpr"}` from (0, 0) to (1, 1), or `{}` when one side has no case.

    At most about `points` points are kept, evenly along the curve.
    """
    positive = np.asarray(positive, bool)
    if not positive.any() or positive.all():
        return {}
    ranked = ranking(values, positive)
    ends = np.append(ranked.starts[1:], len(ranked.order)) - 1
    hits = np.cumsum(ranked.positive)[ends]
    rest = ends + 1 - hits
    tpr = np.concatenate([[0.0], hits / hits[-1]])
    fpr = np.concatenate([[0.0], rest / rest[-1]])
    if len(tpr) > points:
        keep = np.unique(np.linspace(0, len(tpr) - 1, points).round().astype(int))
        tpr, fpr = tpr[keep], fpr[keep]
    return {"fpr": fpr.round(6).tolist(), "tpr": tpr.round(6).tolist()}
