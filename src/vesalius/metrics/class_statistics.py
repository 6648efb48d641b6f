# SPDX-License-Identifier: Apache-2.0
"""All scores of class probabilities as one function of the cases' weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vesalius.metrics.agreement import matthews
from vesalius.metrics.bootstrap import Statistics, mean_of_defined
from vesalius.metrics.calibration import confidence_gaps, intercept, slope
from vesalius.metrics.probabilities import SMALLEST, answered, checked, rank_values
from vesalius.metrics.ranking import SPECIFICITIES, rank_scores, ranking
from vesalius.types import Array

AT_SPECIFICITY = {f"sensitivity_at_specificity_{100 * s:.0f}": s for s in SPECIFICITIES}


def classification_statistics(
    truth: Sequence[Any] | Array,
    probabilities: Array,
    classes: Sequence[str],
    *,
    failed: Sequence[bool] | Array | None = None,
) -> Statistics:
    """Return the scores of `classification_scores` as a function of the cases' weights."""
    truth, probabilities, failed = checked(truth, probabilities, classes, failed)
    count = len(classes)
    several = count > 2
    positives = positives_of(count)
    truth_is = np.eye(count)[truth]  # (n, C)
    predicted_is = np.eye(count + 1)[answered(probabilities, failed)][:, :count]  # failed: no class
    taken_is = np.eye(count)[np.argmax(probabilities, axis=1)]  # failed: a wrong class
    squares = ((probabilities - truth_is) ** 2).sum(1) / (1 if several else 2)
    own = probabilities[np.arange(len(truth)), truth]
    losses = -np.log(np.maximum(own, SMALLEST))
    fits = [slope(truth, probabilities)]
    fits += [intercept(truth == c, probabilities[:, c]) for c in positives]
    fitted = np.array([value for value, _ in fits])
    blocks = [
        truth_is, predicted_is, truth_is * predicted_is, taken_is,
        np.column_stack([squares, losses]), confidence_gaps(truth, probabilities, failed),
        np.column_stack([part for _, part in fits]),
    ]  # fmt: skip
    sums = np.concatenate(blocks, axis=1)
    edges = np.cumsum([block.shape[1] for block in blocks])[:-1]
    ranked = [
        ranking(rank_values(probabilities[:, c], truth == c, failed), truth == c) for c in positives
    ]

    names = [
        (name, "")
        for name in (
            "accuracy", "balanced_accuracy", "auc", "average_precision",
            "macro_f1", "brier", "nll", "ece",
        )
    ]  # fmt: skip
    names += [("recall", label) for label in classes]
    if several:
        names += [(metric, c) for metric in ("auc", "average_precision") for c in classes]
    names += [(name, "") for name in ("mcc", *AT_SPECIFICITY, "calibration_slope")]
    names += [("calibration_intercept", classes[c] if several else "") for c in positives]

    def of(weights: Array) -> Array:
        total = weights.sum(1)  # (b,)
        actual, guessed, hits, taken, means, gaps, moved = np.split(weights @ sums, edges, axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            recall = hits / actual  # NaN where the draw holds no case of the class
            f1 = 2 * hits / (actual + guessed)
            by_rank = np.stack([rank_scores(weights, one) for one in ranked], axis=2)
        overall = [mean_of_defined(by_rank[:, k]) for k in range(by_rank.shape[1])]
        columns = [
            hits.sum(1) / total,
            mean_of_defined(recall),
            *overall[:2],
            mean_of_defined(f1),
            means / total[:, None],
            np.abs(gaps).sum(1) / total,
            recall,
            *([by_rank[:, 0], by_rank[:, 1]] if several else []),
            matthews(actual, taken, hits),
            *overall[2:],
            fitted + len(truth) * moved / total[:, None],
        ]
        return np.column_stack(columns)

    return Statistics(tuple(names), of, len(truth))


def positives_of(count: int) -> list[int]:
    """Return the classes that are ranked against the rest: of two, the second."""
    return [1] if count == 2 else list(range(count))
