# SPDX-License-Identifier: Apache-2.0
"""Percentiles: clip to two of the mask's values, then map these to 0 and 1 (or to a z-score).

y = (clip(x, p_low, p_high) - p_low) / (p_high - p_low), or with `to="zscore"`
y = (clip(x, p_low, p_high) - mean) / SD, mean and SD of the clipped values in the mask: the
scheme of nnU-Net (Isensee et al., Nature Methods 2021) for one image. The two limits are values
that occur (the lower and the upper neighbor of the percentile), which makes clipping twice the
same as once. Declared laws: affine-invariant, idempotent, order-preserving.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from vesalius.errors import NormalizationRefused, UsageError
from vesalius.normalization.card import Card, Law
from vesalius.normalization.method import inside
from vesalius.normalization.method_record import parameters, to_record
from vesalius.normalization.transfer import Linear
from vesalius.types import Array, Json

CARD = Card(
    name="percentile",
    title="clip to percentiles, then to [0, 1]",
    formula="y = (clip(x, p_low, p_high) - p_low) / (p_high - p_low)",
    source="contrast stretching; with to='zscore' after Isensee et al., Nature Methods 2021",
    laws=frozenset({Law.AFFINE_INVARIANT, Law.IDEMPOTENT, Law.ORDER_PRESERVING}),
)


@dataclass(frozen=True, slots=True)
class Percentile:
    """Clip, then scale.

    Attributes:
        low, high: percentiles of the values in the mask, 0 <= low < high <= 100.
        to: `unit` maps the limits to 0 and 1; `zscore` gives mean 0 and SD 1 after clipping.
    """

    low: float = 0.5
    high: float = 99.5
    to: str = "unit"
    card: ClassVar[Card] = CARD

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 100:
            raise UsageError(
                f"percentiles need 0 <= low < high <= 100, got low {self.low}, high {self.high}"
            )
        if self.to not in ("unit", "zscore"):
            raise UsageError(f"to must be unit or zscore, got '{self.to}'")

    def solve(self, values: Array, mask: Array) -> Linear:
        """Return the clipped line for one channel; see `Method.solve`.

        Raises:
            NormalizationRefused: also `constant`, where both percentiles are the same value.
        """
        found = inside(values, mask)
        low = float(np.percentile(found, self.low, method="lower"))
        high = float(np.percentile(found, self.high, method="higher"))
        center, scale = low, high - low
        if self.to == "zscore":
            np.clip(found, low, high, out=found)
            center, scale = float(found.mean()), float(found.std())
        if not scale > 0:
            raise NormalizationRefused(
                "constant",
                f"percentiles {self.low:g} and {self.high:g} of the mask are both {low:g}; narrow "
                "the mask to the object, or widen the percentiles",
            )
        return Linear(center, scale, low, high)

    def to_json(self) -> Json:
        """Return the record."""
        return to_record(self)

    @classmethod
    def from_json(cls, record: Json) -> Self:
        """Return the method of a saved record."""
        return cls(**parameters(record, cls))


METHOD = Percentile
