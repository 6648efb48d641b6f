# SPDX-License-Identifier: Apache-2.0
"""Nyúl: straight lines between an image's percentiles and the population's standard scale.

Training maps the outer percentiles of each image to `low` and `high` and averages where the inner
ones land; an image's own percentiles (knots) then go to these averages, and the first and the
last line carry on. Nyúl & Udupa: On standardizing the MR image intensity scale, Magn. Reson. Med.
1999; deciles as inner landmarks after Nyúl et al., IEEE TMI 2000; percentiles 1 and 99 and means
after Shah et al., Medical Image Analysis 2011. Knots are values that occur, so that a second
application changes nothing; knots that coincide in an image of few gray levels are merged, at the
mean of their targets. Declared laws: affine-invariant, idempotent, order-preserving, invertible.
"""

from __future__ import annotations

from collections.abc import Sequence
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

PERCENTILES = (1.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 99.0)

CARD = Card(
    name="nyul",
    title="piecewise linear map of percentiles to a standard scale",
    formula="y = straight lines through (percentile of the image, mean of the population's)",
    source="Nyúl & Udupa, Magn. Reson. Med. 1999; Shah et al., Medical Image Analysis 2011",
    laws=frozenset({Law.AFFINE_INVARIANT, Law.IDEMPOTENT, Law.ORDER_PRESERVING, Law.INVERTIBLE}),
    fitted=True,
)


@dataclass(frozen=True, slots=True)
class Nyul:
    """A standard scale.

    Attributes:
        percentiles: landmarks, rising, in [0, 100].
        scale: where each of them goes, rising.
    """

    percentiles: tuple[float, ...]
    scale: tuple[float, ...]
    card: ClassVar[Card] = CARD

    def __post_init__(self) -> None:
        _check_percentiles(self.percentiles)
        if len(self.scale) != len(self.percentiles) or not (np.diff(self.scale) > 0).all():
            raise UsageError(
                f"scale must rise and have one value a percentile ({len(self.percentiles)}), "
                f"got {self.scale}"
            )

    def solve(self, values: Array, mask: Array) -> PiecewiseLinear:
        """Return the curve for one channel; see `Method.solve`.

        Raises:
            NormalizationRefused: also `constant`, where all percentiles are one value.
        """
        landmarks = occurring_quantiles(inside(values, mask), np.divide(self.percentiles, 100))
        return matching_curve(landmarks, self.scale, beyond="extend")

    def to_json(self) -> Json:
        """Return the record."""
        return to_record(self)

    @classmethod
    def from_json(cls, record: Json) -> Self:
        """Return the method of a saved record."""
        return cls(**parameters(record, cls))


class NyulFit:
    """The mean of the training images' landmarks on a common range; see `Fit`."""

    def __init__(
        self,
        *,
        percentiles: Sequence[float] = PERCENTILES,
        low: float = 0.0,
        high: float = 100.0,
    ) -> None:
        _check_percentiles(percentiles)
        if not low < high:
            raise UsageError(f"the scale needs low < high, got low {low}, high {high}")
        self.percentiles = tuple(percentiles)
        self.low, self.high = low, high
        self.landmarks = ExactMean()

    def add(self, values: Array, mask: Array) -> None:
        """Take in one training image; refuses what `Nyul.solve` refuses."""
        found = occurring_quantiles(inside(values, mask), np.divide(self.percentiles, 100))
        if not found[-1] > found[0]:
            raise NormalizationRefused(
                "constant",
                f"percentiles {self.percentiles[0]:g} and {self.percentiles[-1]:g} of the mask are "
                f"both {found[0]:g}; narrow the mask to the object",
            )
        self.landmarks.add((found - found[0]) / (found[-1] - found[0]))

    def merge(self, other: NyulFit) -> None:
        """Take in what another instance gathered."""
        mine = self.percentiles, self.low, self.high
        if (other.percentiles, other.low, other.high) != mine:
            raise UsageError("fits merge only with equal percentiles, low and high")
        self.landmarks.merge(other.landmarks)

    def finish(self) -> Nyul:
        """Return the fitted method.

        Raises:
            DataError: nothing was added, or neighboring landmarks coincide in every image.
        """
        if not self.landmarks.count:
            raise DataError("nyul needs at least one training image, got none")
        scale = self.low + (self.high - self.low) * np.array(self.landmarks.mean())
        if not (np.diff(scale) > 0).all():
            raise DataError(
                "the training images have too few gray levels in the mask for "
                f"{len(self.percentiles)} percentiles: some coincide in every image; name fewer "
                "percentiles, or narrow the masks"
            )
        return Nyul(self.percentiles, tuple(map(float, scale)))


def _check_percentiles(percentiles: Sequence[float]) -> None:
    rising = len(percentiles) >= 2 and bool((np.diff(percentiles) > 0).all())
    if not rising or percentiles[0] < 0 or percentiles[-1] > 100:
        raise UsageError(
            f"percentiles must be two or more rising numbers in [0, 100], got {percentiles}"
        )


METHOD = Nyul
FIT = NyulFit
