# SPDX-License-Identifier: Apache-2.0
"""Scores of grades: how far the most probable grade lies from the true one.

Quadratic weighted kappa (Cohen 1968) is 1 minus the mean squared distance in grades over that of
the same grades paired at random. A failed case is given the grade farthest from its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vesalius.metrics.bootstrap import DRAWS, Statistics, estimates, patient_index
from vesalius.metrics.classification import classification_summary
from vesalius.metrics.groups import group_scores
from vesalius.metrics.probabilities import checked, class_shares
from vesalius.results import Estimate
from vesalius.types import Array, Json


def ordinal_statistics(
    truth: Sequence[Any] | Array,
    probabilities: Array,
    classes: Sequence[str],
    *,
    failed: Sequence[bool] | Array | None = None,
) -> Statistics:
    """Return the scores of `ordinal_scores` as a function of the cases' weights."""
    truth, probabilities, failed = checked(truth, probabilities, classes, failed)
    farthest = np.where(2 * truth < len(classes) - 1, len(classes) - 1, 0)
    return _of_grades(truth, np.where(failed, farthest, np.argmax(probabilities, axis=1)))


def ordinal_scores(
    truth: Sequence[Any] | Array,
    probabilities: Array,
    classes: Sequence[str],
    patients: Sequence[Any] | Array,
    *,
    failed: Sequence[bool] | Array | None = None,
    frequencies: Sequence[float] | Array | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Estimate]:
    """Return `quadratic_weighted_kappa` and `grade_mae` (mean distance in grades).

    Arguments as for `classification_scores`; `classes` stand in the order of the grades. The
    trivial prediction is the median grade of the training labels.
    """
    statistics = ordinal_statistics(truth, probabilities, classes, failed=failed)
    indices, _, _ = checked(truth, probabilities, classes, failed)
    shares = class_shares(indices, frequencies, len(classes))
    median = int(np.searchsorted(np.cumsum(shares), 0.5))
    constant = _of_grades(indices, np.full(len(indices), median)).values()
    baselines = dict(zip(statistics.names, constant.tolist(), strict=True))

    def describe(name: str, label: str, value: float) -> dict[str, Any]:
        return {
            "bounded": False,
            "unit": "grades" if name == "grade_mae" else "",
            "baseline": baselines[name, label],
            "baseline_name": f"median grade ({classes[median]})",
            "note": "" if np.isfinite(value) else "truth and prediction hold one same grade",
        }

    return estimates(statistics, patients, describe, draws=draws, seed=seed)


def ordinal_summary(
    truth: Sequence[Any] | Array,
    probabilities: Array,
    classes: Sequence[str],
    patients: Sequence[Any] | Array,
    *,
    failed: Sequence[bool] | Array | None = None,
    groups: Mapping[str, Sequence[Any]] | None = None,
    frequencies: Sequence[float] | Array | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Json:
    """Return one split's entry of `metrics.json`: that of `classification_summary` and the grades'.

    The scores of `ordinal_scores` stand after the others, in groups too.
    """
    index, _ = patient_index(patients, len(truth))
    common: dict[str, Any] = {"frequencies": frequencies, "draws": draws, "seed": seed}
    indices, table, lost = checked(truth, probabilities, classes, failed)

    def of_rows(rows: Array) -> list[Estimate]:
        return ordinal_scores(
            indices[rows], table[rows], classes, index[rows], failed=lost[rows], **common
        )

    summary = classification_summary(
        indices, table, classes, index, failed=lost, groups=groups, **common
    )
    whole = of_rows(np.arange(len(indices)))
    summary["scores"] += [score.to_json() for score in whole]
    by_group = group_scores(groups, len(indices), of_rows)
    for entry, own in zip(summary["by"], by_group, strict=True):
        entry["scores"] += own["scores"]
    return summary


def _of_grades(truth: Array, predicted: Array) -> Statistics:
    distance = (predicted - truth).astype(np.float64)
    sums = np.column_stack(
        [truth, truth**2, predicted, predicted**2, distance**2, np.abs(distance)]
    ).astype(np.float64)

    def of(weights: Array) -> Array:
        means = weights @ sums / weights.sum(1, keepdims=True)
        first, first_2, second, second_2, squared, absolute = means.T
        by_chance = first_2 + second_2 - 2 * first * second
        # integers up to the number of grades: what is below this is 0 but for rounding
        with np.errstate(divide="ignore", invalid="ignore"):
            kappa = np.where(by_chance > 1e-9, 1 - squared / by_chance, np.nan)
        return np.column_stack([kappa, absolute])

    names = (("quadratic_weighted_kappa", ""), ("grade_mae", ""))
    return Statistics(names, of, len(truth))
