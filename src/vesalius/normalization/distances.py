# SPDX-License-Identifier: Apache-2.0
"""How far two sets of values are apart: KS and KL on one common histogram.

Both are counted into `bins` equal bins between the lower of the two 0.1th percentiles and the
higher of the two 99.9th; values beyond fall into the end bins. With p, q the shares and P, Q
their running sums:

    KS = max |P - Q|            KL(p | q) = sum of p log(p / q), in nats

Shares below `floor` are raised to it, then p and q are scaled back to sum 1, so that KL is finite:
a bin that is empty on one side alone counts for about p log(p / floor). 0 <= KS <= 1, KL >= 0,
and both are 0 for equal shares.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from vesalius.errors import UsageError
from vesalius.types import Array, Json

BINS = 256
FLOOR = 1e-6
_TAILS = (0.1, 99.9)


@dataclass(frozen=True, slots=True)
class HistogramDistances:
    """Distances between two sets of values, `a` and `b`.

    Attributes:
        ks: Kolmogorov-Smirnov, between the running sums at bin edges.
        kl: Kullback-Leibler of a from b, KL(a | b), nats.
        kl_reverse: KL(b | a).
        kl_symmetric: mean of the two.
        low, high: the range of the histogram, in the unit of the values.
        bins, floor: how they were counted.
    """

    ks: float
    kl: float
    kl_reverse: float
    kl_symmetric: float
    low: float
    high: float
    bins: int
    floor: float

    def to_json(self) -> Json:
        """Return all of it."""
        return asdict(self)


def of_shares(p: Array, q: Array, *, floor: float = FLOOR) -> tuple[float, float, float]:
    """Return KS, KL(p | q) and KL(q | p) of two histograms on the same bins, shares of 1 each."""
    ks = float(np.abs(np.cumsum(p - q)).max())
    p, q = _raised(p, floor), _raised(q, floor)
    return ks, _kl(p, q), _kl(q, p)


def histogram_distances(
    a: Array, b: Array, *, bins: int = BINS, floor: float = FLOOR
) -> HistogramDistances:
    """Return the distances of the values `a` from the values `b` (any shapes, finite).

    Raises:
        UsageError: one is empty or not finite, or `bins` or `floor` is out of range.
    """
    a, b = np.ravel(a), np.ravel(b)
    for name, values in (("a", a), ("b", b)):
        if values.size == 0 or not np.isfinite(values).all():
            raise UsageError(f"{name} must hold finite values, got {values.size} of which some not")
    if bins < 2 or not 0 < floor < 1 / bins:
        raise UsageError(f"needs bins >= 2 and 0 < floor < 1 / bins, got {bins} and {floor}")
    ends = np.array([np.percentile(values, _TAILS) for values in (a, b)], np.float64)
    low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
    if low == high:  # both are one value, or nearly: tails alone decide
        low, high = float(min(a.min(), b.min())), float(max(a.max(), b.max()))
    p, q = (_shares(values, low, high, bins) for values in (a, b))
    ks, forward, backward = of_shares(p, q, floor=floor)
    return HistogramDistances(
        ks, forward, backward, (forward + backward) / 2, low, high, bins, floor
    )


def _shares(values: Array, low: float, high: float, bins: int) -> Array:
    if low == high:
        return np.eye(1, bins).ravel()
    place = (np.clip(values.astype(np.float64), low, high) - low) * (bins / (high - low))
    counts = np.bincount(np.minimum(place.astype(np.int64), bins - 1), minlength=bins)
    shares: Array = counts / values.size
    return shares


def _raised(shares: Array, floor: float) -> Array:
    out = np.maximum(shares, floor)
    scaled: Array = out / out.sum()
    return scaled


def _kl(p: Array, q: Array) -> float:
    return max(0.0, float(np.sum(p * np.log(p / q))))
