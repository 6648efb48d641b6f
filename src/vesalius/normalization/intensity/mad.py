# SPDX-License-Identifier: Apache-2.0
"""MAD, clip, z: the default for images without a physical scale.

On either side of the median m, d = |x - m| of the values on that side:

    s = 1.4826 * median(d), then s = rms(d where d <= c * s) until it rests
    limit = m ± c * s;  y = (clip(x, low, high) - mean) / sd

with mean and sd of the clipped values in the mask, so that the standard deviation there is 1 by
construction. c = 3; where more than 5 % of all values lie beyond, the limit moves out until just
these do: so many are a tissue of its own (fluid), not outliers. Where outliers are seen on a side,
its limit comes nearer, so that they add at most the `allowance` to the variance of the bulk (mean
M, standard deviation S of what lies within both limits): M ± S * sqrt(1 + allowance / f). Their
share is f = P(c) - P(2c/3)² / P(c/3), P the share of all values beyond so many s: what exceeds an
exponential tail through the two inner points, so that a skewed but smooth tail (fat, contrast
agent) is clipped at c and no closer.

Why not the plain three steps (clip at 3.5 times the MAD): one scale for both sides is too wide for
the shorter one, and 3 % of far outliers at 3.5 still take a fourth of the contrast between tissues.

Median and MAD: Leys et al., Detecting outliers, J. Exp. Soc. Psychol. 49, 2013; one for each side:
Rousseeuw & Croux, J. Am. Stat. Assoc. 88, 1993. Limits: Iglewicz & Hoaglin, How to detect and
handle outliers, 1993. Declared laws: affine-invariant, idempotent (in the same mask),
order-preserving, unit standard deviation.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import ClassVar, Self

import numpy as np

from vesalius.errors import NormalizationRefused, UsageError
from vesalius.normalization.card import Card, Law
from vesalius.normalization.method import masked_chunks, masked_sample
from vesalius.normalization.method_record import parameters, to_record
from vesalius.normalization.transfer import Linear
from vesalius.types import Array, Json

TO_SIGMA = 1.4826  # the MAD of a normal distribution is its standard deviation over this
CLIP = 3.0  # this and the allowance were chosen on phantoms that no benchmark reports
ALLOWANCE = 0.04
_RARE = 0.05  # share of all values, on one side, that outliers can be
_ROUNDS = 20

CARD = Card(
    name="mad",
    title="median and MAD, clip, z-score (default)",
    formula="y = (clip(x, m - c·s₋, m + c·s₊) - mean) / sd; s from 1.4826·MAD of each side",
    source="Leys et al. 2013; Iglewicz & Hoaglin 1993; Tukey 1962",
    laws=frozenset({Law.AFFINE_INVARIANT, Law.IDEMPOTENT, Law.ORDER_PRESERVING, Law.UNIT_SD}),
)


@dataclass(frozen=True, slots=True)
class Mad:
    """The three steps with their two constants.

    Attributes:
        clip: scales from the median at which values are clipped, and beyond which outliers lie.
        allowance: what outliers may add to the variance, as a share of that of the bulk.
    """

    clip: float = CLIP
    allowance: float = ALLOWANCE
    card: ClassVar[Card] = CARD

    def __post_init__(self) -> None:
        if not (self.clip > 0 and self.allowance > 0):
            raise UsageError(f"clip and allowance must be positive, got {self}")

    def solve(self, values: Array, mask: Array) -> Linear:
        """Return the curve of one channel; see `method.Method.solve`.

        Order statistics of masks above 2^18 voxels come from an evenly strided sample; mean and
        standard deviation from all of the mask.
        """
        sample = np.sort(masked_sample(values, mask).astype(np.float64))
        low, high = self._limits(sample)
        count, total, square = 0, 0.0, 0.0
        origin = float(sample[len(sample) // 2])
        for part in masked_chunks(values, mask):
            shifted = np.clip(part.astype(np.float64), low, high) - origin
            count += shifted.size
            total += float(shifted.sum())
            square += float(shifted @ shifted)
        mean = total / count
        scale = sqrt(max(0.0, square / count - mean * mean))
        if not scale > 0:
            raise NormalizationRefused(
                "constant", "what remains in the mask after clipping is one value"
            )
        return Linear(origin + mean, scale, low, high)

    def to_json(self) -> Json:
        """Return the constants."""
        return to_record(self)

    @classmethod
    def from_json(cls, record: Json) -> Self:
        """Return the method of a saved record."""
        return cls(**parameters(record, cls))

    def _limits(self, ordered: Array) -> tuple[float, float]:
        """Return the limits for sorted values that are not all equal."""
        center = float(np.median(ordered))
        lower = center - ordered[: np.searchsorted(ordered, center, side="left")][::-1]
        upper = ordered[np.searchsorted(ordered, center, side="right") :] - center
        below, above = self._reach(lower, len(ordered)), self._reach(upper, len(ordered))
        low, high = center - below, center + above
        bulk = ordered[
            np.searchsorted(ordered, low, side="left") : np.searchsorted(
                ordered, high, side="right"
            )
        ]
        mean, spread = float(bulk.mean()), float(bulk.std())
        outliers = self._outliers(lower, below, len(ordered))
        if outliers > 0:
            near = mean - spread * sqrt(1 + self.allowance / outliers)
            low = max(low, min(near, center))
        outliers = self._outliers(upper, above, len(ordered))
        if outliers > 0:
            near = mean + spread * sqrt(1 + self.allowance / outliers)
            high = min(high, max(near, center))
        return low, high

    def _reach(self, distances: Array, total: int) -> float:
        """Return `clip` scales of one side, from its sorted distances to the median, or more."""
        if not len(distances):
            return 0.0
        scale = float(np.median(distances)) * TO_SIGMA
        squares = np.cumsum(distances * distances)
        for _ in range(_ROUNDS):
            count = int(np.searchsorted(distances, self.clip * scale, side="right"))
            found = sqrt(float(squares[count - 1]) / count) if count else scale
            if abs(found - scale) <= 1e-4 * scale:
                break
            scale = found
        least = float(distances[max(0, len(distances) - 1 - int(_RARE * total))])
        return max(self.clip * scale, least * (1 + 1e-6))  # no value lies on the limit itself

    def _outliers(self, distances: Array, reach: float, total: int) -> float:
        """Return the share of all values that lie beyond `reach` and beyond a smooth tail."""
        inner, middle, outer = (
            (len(distances) - int(np.searchsorted(distances, part * reach, side="right"))) / total
            for part in (1 / 3, 2 / 3, 1)
        )
        return outer - middle**2 / inner if inner else 0.0


def center_and_scale(values: Array) -> tuple[float, float]:
    """Return median and 1.4826·MAD of flat values that are not all equal.

    Where more than half of them are one value the MAD is 0, and their standard deviation serves.
    """
    center = float(np.median(values))
    scale = float(np.median(np.abs(values - center))) * TO_SIGMA
    if scale <= 1e-9 * float(np.ptp(values)):
        scale = float(values.std())
    return center, scale


METHOD = Mad
