# SPDX-License-Identifier: Apache-2.0
"""No normalization: y = x, for physical units that are kept, and as the baseline of others.

Declared laws: idempotent, order-preserving, invertible.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from vesalius.normalization.card import Card, Law
from vesalius.normalization.method_record import parameters, to_record
from vesalius.normalization.transfer import Linear
from vesalius.types import Array, Json

CARD = Card(
    name="none",
    title="values as they are",
    formula="y = x",
    source="none",
    laws=frozenset({Law.IDEMPOTENT, Law.ORDER_PRESERVING, Law.INVERTIBLE}),
)


@dataclass(frozen=True, slots=True)
class AsIs:
    """Values as they are, float32."""

    card: ClassVar[Card] = CARD

    def solve(self, values: Array, mask: Array) -> Linear:  # noqa: ARG002 - the same for all
        """Return the identity."""
        return Linear(0.0, 1.0)

    def to_json(self) -> Json:
        """Return the record."""
        return to_record(self)

    @classmethod
    def from_json(cls, record: Json) -> Self:
        """Return the method of a saved record."""
        return cls(**parameters(record, cls))


METHOD = AsIs
