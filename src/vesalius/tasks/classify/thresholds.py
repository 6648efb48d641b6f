# SPDX-License-Identifier: Apache-2.0
"""Operating point of a binary classifier: the threshold for a stated sensitivity or cost.

Wilks: Determination of sample sizes for setting tolerance limits, Annals of Mathematical
Statistics 1941. The k-th smallest probability of the positive rows is a threshold whose true
sensitivity reaches the one asked for with a confidence that depends on k and their number alone.
Elkan: The foundations of cost-sensitive learning, IJCAI 2001 (threshold of calibrated
probabilities). Clopper and Pearson: The use of confidence or fiducial limits, Biometrika 1934.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Self

import numpy as np

from vesalius.errors import DataError, UsageError
from vesalius.types import Array, Json

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A threshold and what it does on the rows that it was chosen on.

    Attributes:
        threshold: a row is called positive from this probability up (above 1: never).
        sensitivity, sensitivity_interval: share of positive rows called positive, 95 % exact
            binomial interval; None where there is no positive row.
        specificity, specificity_interval: share of negative rows called negative, likewise.
        n_positive, n_negative: rows.
        asked: what was asked for, in words.
        note: how far the numbers carry.
    """

    threshold: float
    sensitivity: float | None
    sensitivity_interval: tuple[float, float]
    specificity: float | None
    specificity_interval: tuple[float, float]
    n_positive: int
    n_negative: int
    asked: str
    note: str = ""

    def apply(self, probabilities: Array) -> Array:
        """Return which rows are called positive, Boolean in the shape of `probabilities`."""
        return np.asarray(np.asarray(probabilities) >= self.threshold)

    def to_json(self) -> Json:
        """Return a plain dictionary."""
        return asdict(self)

    @classmethod
    def from_json(cls, held: Json) -> Self:
        """Return the operating point that `to_json` wrote."""
        intervals = ("sensitivity_interval", "specificity_interval")
        return cls(**{**held, **{name: tuple(held[name]) for name in intervals}})


def read_request(text: str) -> Json:
    """Return the arguments of `choose_threshold` that `sensitivity=0.95` or `cost=10:1` asks for.

    Raises:
        UsageError: neither `sensitivity=`, `specificity=` (above 0, below 1) nor
            `cost=MISS:ALARM` (both above 0).
    """
    name, _, value = text.partition("=")
    try:
        if name in ("sensitivity", "specificity") and 0 < float(value) < 1:
            return {name: float(value)}
        if name == "cost":
            miss, alarm = (float(part) for part in value.split(":"))
            if 0 < miss < np.inf and 0 < alarm < np.inf:
                return {name: [miss, alarm]}
    except ValueError:
        pass  # said below, with what came
    raise UsageError(
        "an operating point is sensitivity=0.95, specificity=0.9 (above 0, below 1) or "
        f"cost=MISS:ALARM (both above 0), got '{text}'"
    )


def choose_threshold(
    probabilities: Array,
    positive: Sequence[bool] | Array,
    *,
    sensitivity: float | None = None,
    specificity: float | None = None,
    cost: tuple[float, float] | None = None,
    confidence: float = CONFIDENCE,
) -> OperatingPoint:
    """Choose a threshold on validation rows; of the three requests, give one.

    Args:
        probabilities: `(n,)` of the positive class (or of one class versus the rest).
        positive: `(n,)`, True for rows of that class.
        sensitivity: the highest threshold whose sensitivity on further rows is at least this with
            `confidence`.
        specificity: the lowest threshold whose specificity is at least this, likewise.
        cost: of a missed positive and of a false alarm, in any unit. The threshold is the one of
            calibrated probabilities, alarm / (miss + alarm), unless another costs less on these
            rows by more than the standard error of the difference.
        confidence: above 0 and below 1; 0.5 asks for an even chance.

    Raises:
        UsageError: not one request, a share that is not between 0 and 1, costs that are not above
            0, unequal shapes, values outside 0 to 1.
        DataError: too few positive (negative) rows to show the sensitivity (specificity) asked
            for, whatever the classifier; no row of one side.
    """
    table, truth = _checked(probabilities, positive)
    if not 0 < confidence < 1:
        raise UsageError(f"confidence must be above 0 and below 1, got {confidence}")
    if sum(request is not None for request in (sensitivity, specificity, cost)) != 1:
        raise UsageError("give one of sensitivity, specificity and cost")
    if cost is not None:
        return _cheapest(table, truth, cost)
    name, side, share = "sensitivity", "positive", sensitivity
    if share is None:
        name, side, share = "specificity", "negative", specificity
    if share is None or not 0 < share < 1:
        raise UsageError(f"{name} must be above 0 and below 1, got {share}")
    own = np.sort(table[truth] if name == "sensitivity" else -table[~truth])
    lost = rows_to_give_up(len(own), share, confidence)
    if lost is None:
        most = (1 - confidence) ** (1 / len(own)) if len(own) else 0.0
        raise DataError(
            f"{len(own)} {side} rows cannot show a {name} of {share:g} with {confidence:.0%} "
            f"confidence, which takes {rows_to_show(share, confidence)}: give more rows, ask for "
            f"at most {math.floor(most * 1000) / 1000:g}, or lower the confidence"
        )
    threshold = _gap(table, float(abs(own[lost])), above=name == "specificity")
    note = f"{name} of at least {share:g} on further rows with {confidence:.0%} confidence"
    return _point(table, truth, threshold, f"{name} {share:g}", note)


def rows_to_give_up(n: int, share: float, confidence: float) -> int | None:
    """Return how many of `n` rows may lie on the wrong side so that `share` is still shown.

    None where not even 0 may: `share ** n` exceeds `1 - confidence`.
    """
    from scipy.special import bdtr  # binomial distribution function

    found = np.flatnonzero(bdtr(np.arange(n), n, 1 - share) <= 1 - confidence + 1e-12)
    return int(found[-1]) if len(found) else None


def rows_to_show(share: float, confidence: float) -> int:
    """Return the fewest rows that can show `share` with `confidence`, if all are right."""
    return math.ceil(math.log(1 - confidence) / math.log(share) - 1e-9)


def binomial_interval(successes: int, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Return the exact interval of a share (Clopper & Pearson); (0, 1) without rows."""
    from scipy.special import betaincinv

    tail = (1 - level) / 2
    low = betaincinv(successes, n - successes + 1, tail) if successes else 0.0
    high = betaincinv(successes + 1, n - successes, 1 - tail) if successes < n else 1.0
    return float(low), float(high)


def _cheapest(table: Array, truth: Array, cost: tuple[float, float]) -> OperatingPoint:
    miss, alarm = cost
    if not (0 < miss < math.inf and 0 < alarm < math.inf):
        raise UsageError(f"cost must be two numbers above 0, (miss, false alarm), got {cost}")
    if truth.all() or not truth.any():
        raise DataError("choosing by cost needs positive and negative rows, got one side only")

    def per_row(threshold: float) -> Array:
        called = table >= threshold
        return miss * (truth & ~called) + alarm * (~truth & called)

    ideal = alarm / (miss + alarm)
    order = np.argsort(-table, kind="stable")
    ends = np.flatnonzero(np.diff(table[order], append=-1.0))  # last row of each probability
    hits, calls = np.cumsum(truth[order])[ends], ends + 1
    total = miss * (truth.sum() - hits) + alarm * (calls - hits)
    if miss * truth.sum() <= total.min():
        best = _gap(table, float(table.max()), above=True)  # calls none positive
    else:
        best = _gap(table, float(table[order][ends[np.argmin(total)]]), above=False)
    gain = per_row(ideal) - per_row(best)
    sure = gain.mean() > gain.std(ddof=1) / len(gain) ** 0.5
    chosen = best if sure else ideal
    note = (
        f"mean cost {per_row(chosen).mean():.4g} on these rows, "
        f"{per_row(ideal).mean():.4g} at {ideal:.4g}, the threshold of calibrated probabilities; "
        f"{miss * truth.mean():.4g} calling none positive, {alarm * (~truth).mean():.4g} all"
    )
    return _point(table, truth, chosen, f"cost {miss:g} per miss, {alarm:g} per false alarm", note)


def _gap(table: Array, value: float, *, above: bool) -> float:
    """Return the middle between `value` and the next lower (or higher) probability of the rows."""
    if above:
        beyond = max(1.0, float(np.nextafter(value, 2)))
        low, high = value, float(table[table > value].min(initial=beyond))
    else:
        low, high = float(table[table < value].max(initial=0.0)), value
    middle = (low + high) / 2
    return middle if middle > low else high


def _point(table: Array, truth: Array, threshold: float, asked: str, note: str) -> OperatingPoint:
    called = table >= threshold
    n_positive, n_negative = int(truth.sum()), int((~truth).sum())
    hits, rejected = int((called & truth).sum()), int((~called & ~truth).sum())
    return OperatingPoint(
        threshold,
        hits / n_positive if n_positive else None,
        binomial_interval(hits, n_positive),
        rejected / n_negative if n_negative else None,
        binomial_interval(rejected, n_negative),
        n_positive,
        n_negative,
        asked,
        note,
    )


def _checked(probabilities: Array, positive: Sequence[bool] | Array) -> tuple[Array, Array]:
    table, truth = np.asarray(probabilities, np.float64), np.asarray(positive)
    if table.ndim != 1 or truth.shape != table.shape or not np.isin(truth, (0, 1)).all():
        raise UsageError(
            f"probabilities and positive must be (n,), positive True or False: got {table.shape} "
            f"and {truth.shape}"
        )
    if not ((table >= 0) & (table <= 1)).all():
        raise UsageError("probabilities must be within 0 to 1; leave failed rows out")
    return table, truth.astype(bool)
