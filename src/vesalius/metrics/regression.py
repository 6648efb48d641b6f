# SPDX-License-Identifier: Apache-2.0
"""Scores of predicted numbers and of the intervals around them.

A failed case is given the end of the range that lies farther from its truth (the range of all
truths and predictions of the scored cases): no prediction would have had a larger error. Its
interval misses the truth and is as wide as that range.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vesalius.errors import UsageError
from vesalius.metrics.bootstrap import DRAWS, Statistics, estimates, patient_index
from vesalius.metrics.groups import group_scores
from vesalius.metrics.probabilities import checked_failed
from vesalius.results import Estimate
from vesalius.types import Array, Json

COVERAGE = 0.9
_GROUP_SCORES = ("mae", "rmse", "interval_coverage")


def regression_statistics(
    truth: Sequence[float] | Array,
    predicted: Sequence[float] | Array,
    *,
    failed: Sequence[bool] | Array | None = None,
    low: Sequence[float] | Array | None = None,
    high: Sequence[float] | Array | None = None,
) -> Statistics:
    """Return the scores of `regression_scores` as a function of the cases' weights."""
    return _statistics(_checked(truth, predicted, failed, low, high))


def regression_scores(
    truth: Sequence[float] | Array,
    predicted: Sequence[float] | Array,
    patients: Sequence[Any] | Array,
    *,
    failed: Sequence[bool] | Array | None = None,
    low: Sequence[float] | Array | None = None,
    high: Sequence[float] | Array | None = None,
    coverage: float = COVERAGE,
    constant: float | None = None,
    unit: str = "",
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Estimate]:
    """Return every score with its interval and its trivial baseline.

    Args:
        truth: `(n,)` finite numbers.
        predicted: `(n,)`; those of failed cases are not read.
        patients: `(n,)` pseudonyms; the interval draws patients.
        failed: `(n,)`, True where no prediction came out.
        low, high: `(n,)` ends of each case's prediction interval, both or neither.
        coverage: the share of truths that these intervals promise to hold.
        constant: mean of the training truths, the trivial prediction; that of `truth` when None.
        unit: of the numbers, for example `years`.
        draws, seed: of the bootstrap.

    Returns:
        `mae`, `rmse`, `r2`, `spearman` (rank correlation, ties share their mean rank), and with
        intervals `interval_coverage` and `interval_width` (mean; its baseline is the width of the
        range that holds the same share of `truth`).

    Raises `UsageError` for wrong shapes, a truth that is not finite, or no case at all.
    """
    given = _checked(truth, predicted, failed, low, high)
    center = float(given.truth.mean()) if constant is None else float(constant)
    trivial = _statistics(
        _Numbers(given.truth, np.full(len(given.truth), center), np.zeros(len(given.truth), bool))
    )
    baselines = {
        name: value for (name, _), value in zip(trivial.names, trivial.values(), strict=True)
    }
    tail = 50 * (1 - coverage)
    ends = np.percentile(given.truth, [tail, 100 - tail])
    baselines |= {
        "spearman": 0.0,
        "interval_coverage": coverage,
        "interval_width": float(ends[1] - ends[0]),
    }
    mean = f"{'mean' if constant is None else 'training mean'} ({center:.4g})"
    called = {
        "spearman": "random order",
        "interval_coverage": "promised",
        "interval_width": f"central {100 * coverage:g} % of the truths",
    }

    def describe(name: str, _: str, value: float) -> dict[str, Any]:
        lacking = "needs truths and predictions that differ"
        if name == "interval_width":
            lacking = "an interval without end"
        return {
            "bounded": name == "interval_coverage",
            "unit": unit if name in ("mae", "rmse", "interval_width") else "",
            "baseline": baselines[name],
            "baseline_name": called.get(name, mean),
            "note": "" if np.isfinite(value) else lacking,
        }

    return estimates(_statistics(given), patients, describe, draws=draws, seed=seed)


def regression_summary(
    truth: Sequence[float] | Array,
    predicted: Sequence[float] | Array,
    patients: Sequence[Any] | Array,
    *,
    failed: Sequence[bool] | Array | None = None,
    low: Sequence[float] | Array | None = None,
    high: Sequence[float] | Array | None = None,
    groups: Mapping[str, Sequence[Any]] | None = None,
    coverage: float = COVERAGE,
    constant: float | None = None,
    unit: str = "",
    draws: int = DRAWS,
    seed: int = 0,
) -> Json:
    """Return one split's entry of `metrics.json`: scores, scores by group, baseline."""
    given = _checked(truth, predicted, failed, low, high)
    index, n_patients = patient_index(patients, len(given.truth))
    center = float(given.truth.mean()) if constant is None else constant

    def of_rows(rows: Array) -> list[Estimate]:
        return regression_scores(
            given.truth[rows], given.predicted[rows], index[rows], failed=given.failed[rows],
            low=None if given.low is None else given.low[rows],
            high=None if given.high is None else given.high[rows],
            coverage=coverage, constant=center, unit=unit, draws=draws, seed=seed,
        )  # fmt: skip

    def of_group(rows: Array) -> list[Estimate]:
        return [s for s in of_rows(rows) if s.name in _GROUP_SCORES]

    scores = of_rows(np.arange(len(given.truth)))
    return {
        "n_cases": len(given.truth),
        "n_patients": n_patients,
        "n_failed": int(given.failed.sum()),
        "scores": [score.to_json() for score in scores],
        "by": group_scores(groups, len(given.truth), of_group),
        "baseline": {"name": scores[0].baseline_name, "mae": scores[0].baseline},
    }


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Checked input: `(n,)` each; failed cases hold the worst answer."""

    truth: Array
    predicted: Array
    failed: Array
    low: Array | None = None
    high: Array | None = None


def _statistics(given: _Numbers) -> Statistics:
    truth, predicted = given.truth, given.predicted
    error = predicted - truth
    held = truth - truth.mean()  # centered: no digits are lost where the spread is small
    columns = [np.abs(error), error**2, held, held**2]
    names = ["mae", "rmse", "r2", "spearman"]
    if given.low is not None and given.high is not None:
        inside = (given.low <= truth) & (truth <= given.high) & ~given.failed
        columns += [inside.astype(np.float64), given.high - given.low]
        names += ["interval_coverage", "interval_width"]
    sums = np.column_stack(columns)
    ranked = [_places(values) for values in (truth, predicted)]

    def of(weights: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):  # an interval may have no end
            means = weights @ sums / weights.sum(1, keepdims=True)
            spread = means[:, 3] - means[:, 2] ** 2
            r2 = np.where(spread > 1e-12 * means[:, 3], 1 - means[:, 1] / spread, np.nan)
        correlation = _correlation(weights, *(_ranks(weights, *places) for places in ranked))
        return np.column_stack([means[:, 0], np.sqrt(means[:, 1]), r2, correlation, means[:, 4:]])

    return Statistics(tuple((name, "") for name in names), of, len(truth))


def _places(values: Array) -> tuple[Array, Array, Array]:
    """Return the rising order, the first place of each run of equals, and each case's run."""
    _, run, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.argsort(values, kind="stable"), np.cumsum(counts) - counts, run


def _ranks(weights: Array, order: Array, first: Array, run: Array) -> Array:
    """Return each case's mean rank (less one half) in the drawn sample, `(draws, n)`."""
    grouped = np.add.reduceat(weights[:, order], first, axis=1)
    ranks: Array = (np.cumsum(grouped, axis=1) - grouped / 2)[:, run]
    return ranks


def _correlation(weights: Array, a: Array, b: Array) -> Array:
    """Return the weighted Pearson correlation of each row, NaN where one side is constant."""
    total = weights.sum(1, keepdims=True)
    a = a - (weights * a).sum(1, keepdims=True) / total
    b = b - (weights * b).sum(1, keepdims=True) / total
    norm = np.sqrt((weights * a**2).sum(1) * (weights * b**2).sum(1))
    shared = (weights * a * b).sum(1)
    found: Array = np.divide(shared, norm, out=np.full(len(weights), np.nan), where=norm > 1e-9)
    return found


def _checked(
    truth: Sequence[float] | Array,
    predicted: Sequence[float] | Array,
    failed: Sequence[bool] | Array | None,
    low: Sequence[float] | Array | None,
    high: Sequence[float] | Array | None,
) -> _Numbers:
    actual = np.asarray(truth, np.float64)
    n = len(actual)
    if not n:
        raise UsageError("truth holds no case: there is nothing to score")
    if actual.ndim != 1 or not np.isfinite(actual).all():
        raise UsageError(f"truth must be finite numbers (cases,), got shape {actual.shape}")
    if (low is None) != (high is None):
        raise UsageError("low and high must be given together: the ends of each interval")
    answers = {"predicted": predicted, "low": low, "high": high}
    held = {k: np.array(v, np.float64) for k, v in answers.items() if v is not None}
    for name, values in held.items():
        if values.shape != (n,):
            raise UsageError(f"{name} must have {n} entries, got shape {values.shape}")
    lost = checked_failed(failed, n) | ~np.isfinite(held["predicted"])
    everything = np.concatenate([actual, held["predicted"][~lost]])
    least, most = float(everything.min()), float(everything.max())
    held["predicted"][lost] = np.where(actual[lost] - least > most - actual[lost], least, most)
    if "low" in held:
        if not (held["low"] <= held["high"])[~lost].all():
            raise UsageError("low must be a number no larger than high for every answered case")
        held["low"][lost], held["high"][lost] = least, most
    return _Numbers(actual, held["predicted"], lost, held.get("low"), held.get("high"))
