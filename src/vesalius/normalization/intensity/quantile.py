# SPDX-License-Identifier: Apache-2.0
"""Quantile matching: every image gets the same histogram, the population's.

y = F_ref^-1(F(x)), F the image's distribution in the mask, as straight lines between `levels`
quantiles, held beyond the outermost. The reference is the mean of the training images' quantile
functions, each first brought to mean 0 and SD 1: their barycenter (Agueh & Carlier: Barycenters
in the Wasserstein space, SIAM J. Math. Anal. 2011), again with mean 0 and SD 1. Matching levels
what differs in anatomy too (Madabhushi & Udupa, Med. Phys. 2006): the last resort. Declared laws:
affine-invariant, idempotent, order-preserving. Values beyond the outer quantiles are not
brought back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from vesalius.errors import DataError, NormalizationRefused, UsageError
from vesalius.normalization.card import Card, Law
from vesalius.normalization.exact_mean import ExactMean
from vesalius.normalization.intensity.quantile_curve import matching_curve, occurring_quantiles
from vesalius.normalization.method import inside
from vesalius.normalization.method_record import parameters, to_record
from vesalius.normalization.transfer import PiecewiseLinear
from vesalius.types import Array, Json

LEVELS = 512

CARD = Card(
    name="quantile",
    title="the population's histogram",
    formula="y = F_ref^-1(F(x)), F the distribution of the values in the mask",
    source="Agueh & Carlier, SIAM J. Math. Anal. 2011 (mean of distributions)",
    laws=frozenset({Law.AFFINE_INVARIANT, Law.IDEMPOTENT, Law.ORDER_PRESERVING}),
    fitted=True,
)


@dataclass(frozen=True, slots=True)
class Quantile:
    """A reference distribution.

    Attributes:
        reference: its quantiles at the shares (n + 1/2) / len(reference), not falling.
    """

    reference: tuple[float, ...]
    card: ClassVar[Card] = CARD

    def __post_init__(self) -> None:
        if len(self.reference) < 2 or not (np.diff(self.reference) >= 0).all():
            raise UsageError("reference must be two or more quantiles that do not fall")

    def solve(self, values: Array, mask: Array) -> PiecewiseLinear:
        """Return the curve for one channel; see `Method.solve`.

        Raises:
            NormalizationRefused: also `constant`, where all quantiles are one value.
        """
        knots = occurring_quantiles(inside(values, mask), _shares(len(self.reference)))
        return matching_curve(knots, self.reference, beyond="clip")

    def to_json(self) -> Json:
        """Return the record."""
        return to_record(self)

    @classmethod
    def from_json(cls, record: Json) -> Self:
        """Return the method of a saved record."""
        return cls(**parameters(record, cls))


class QuantileFit:
    """The mean of the training images' standardized quantile functions; see `Fit`."""

    def __init__(self, *, levels: int = LEVELS) -> None:
        if levels < 2:
            raise UsageError(f"levels must be at least 2, got {levels}")
        self.levels = levels
        self.quantiles = ExactMean()

    def add(self, values: Array, mask: Array) -> None:
        """Take in one training image; refuses what `Quantile.solve` refuses."""
        found = occurring_quantiles(inside(values, mask), _shares(self.levels))
        spread = found.std()
        if not spread > 0:
            raise NormalizationRefused(
                "constant",
                f"all {self.levels} quantiles of the mask are {found[0]:g}; narrow the mask to the "
                "object",
            )
        self.quantiles.add((found - found.mean()) / spread)

    def merge(self, other: QuantileFit) -> None:
        """Take in what another instance gathered."""
        if other.levels != self.levels:
            raise UsageError(f"fits of {self.levels} and {other.levels} levels do not merge")
        self.quantiles.merge(other.quantiles)

    def finish(self) -> Quantile:
        """Return the fitted method.

        Raises:
            DataError: nothing was added.
        """
        if not self.quantiles.count:
            raise DataError("quantile needs at least one training image, got none")
        mean = np.array(self.quantiles.mean())
        standard = (mean - mean.mean()) / mean.std()
        return Quantile(tuple(map(float, np.maximum.accumulate(standard))))


def _shares(levels: int) -> Array:
    shares: Array = (np.arange(levels) + 0.5) / levels
    return shares


METHOD = Quantile
FIT = QuantileFit
