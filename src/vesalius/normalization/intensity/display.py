# SPDX-License-Identifier: Apache-2.0
"""As a viewer shows it: black is -2, white is 2.

8-bit values were made to be shown: y = (x - 127.5) / 63.75, so that brightness and contrast stay
what they are. All others are clipped to the percentiles 0.5 and 99.5 of the mask, which become -2
and 2. Networks that learned from photographs know images on this scale (a photograph's standard
deviation is about 1 here). Declared law: order-preserving.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from vesalius.errors import NormalizationRefused
from vesalius.normalization.card import Card, Law
from vesalius.normalization.method import masked_sample
from vesalius.normalization.method_record import parameters, to_record
from vesalius.normalization.transfer import Linear
from vesalius.types import Array, Json

PERCENTILES = (0.5, 99.5)

CARD = Card(
    name="display",
    title="as a viewer shows it, from black to white",
    formula="y = 4 (clip(x, low, high) - low) / (high - low) - 2; 0 and 255 of 8 bits, else p_0.5 "
    "and p_99.5",
    source="contrast stretching",
    laws=frozenset({Law.ORDER_PRESERVING}),
)


@dataclass(frozen=True, slots=True)
class Display:
    """Black to -2, white to 2."""

    card: ClassVar[Card] = CARD

    def solve(self, values: Array, mask: Array) -> Linear:
        """Return the clipped line for one channel; see `Method.solve`.

        Raises:
            NormalizationRefused: also `constant`, where both percentiles are the same value.
        """
        found = masked_sample(values, mask)
        low, high = 0.0, 255.0
        if values.dtype != np.uint8:
            low, high = np.percentile(found.astype(np.float64), PERCENTILES).tolist()
        if not high > low:
            raise NormalizationRefused(
                "constant", f"percentiles 0.5 and 99.5 of the mask are both {low:g}"
            )
        return Linear((low + high) / 2, (high - low) / 4, low, high)

    def to_json(self) -> Json:
        """Return the record."""
        return to_record(self)

    @classmethod
    def from_json(cls, record: Json) -> Self:
        """Return the method of a saved record."""
        return cls(**parameters(record, cls))


METHOD = Display
