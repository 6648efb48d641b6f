# SPDX-License-Identifier: Apache-2.0
"""z-score: y = (x - mean) / SD of the values in the mask.

Declared laws: affine-invariant, idempotent, order-preserving, invertible, unit SD. A few far
outliers carry the SD with them and flatten the rest: `mad` is the method that does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from vesalius.errors import NormalizationRefused
from vesalius.normalization.card import Card, Law
from vesalius.normalization.method import inside
from vesalius.normalization.method_record import parameters, to_record
from vesalius.normalization.transfer import Linear
from vesalius.types import Array, Json

CARD = Card(
    name="zscore",
    title="z-score in the mask",
    formula="y = (x - mean) / SD",
    source="textbook statistics",
    laws=frozenset(
        {
            Law.AFFINE_INVARIANT,
            Law.IDEMPOTENT,
            Law.ORDER_PRESERVING,
            Law.INVERTIBLE,
            Law.UNIT_SD,
        }
    ),
)


@dataclass(frozen=True, slots=True)
class ZScore:
    """Mean 0 and standard deviation 1 in the mask."""

    card: ClassVar[Card] = CARD

    def solve(self, values: Array, mask: Array) -> Linear:
        """Return the line for one channel; see `Method.solve`."""
        found = inside(values, mask)
        std = float(found.std())
        if not std > 0:  # the squares of the smallest doubles vanish
            raise NormalizationRefused(
                "constant", f"the values in the mask differ by less than can be squared: SD {std:g}"
            )
        return Linear(float(found.mean()), std)

    def to_json(self) -> Json:
        """Return the record."""
        return to_record(self)

    @classmethod
    def from_json(cls, record: Json) -> Self:
        """Return the method of a saved record."""
        return cls(**parameters(record, cls))


METHOD = ZScore
