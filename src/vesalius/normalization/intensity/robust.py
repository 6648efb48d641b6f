# SPDX-License-Identifier: Apache-2.0
"""Median and MAD: y = (x - median) / (1.4826 MAD) of the values in the mask, nothing clipped.

1.4826 = 1 / Phi^-1(3/4) makes the median absolute deviation estimate the standard deviation of
normal data (Leys et al.: Detecting outliers, J. Exp. Soc. Psychol. 2013), so y counts SDs of the
bulk. Declared laws: affine-invariant, idempotent, order-preserving, invertible. Outliers keep
their distance, so the SD over the mask may end far above 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from vesalius.errors import NormalizationRefused
from vesalius.normalization.card import Card, Law
from vesalius.normalization.method import inside
from vesalius.normalization.method_record import parameters, to_record
from vesalius.normalization.transfer import Linear
from vesalius.types import Array, Json

TO_SIGMA = 1.482602218505602

CARD = Card(
    name="robust",
    title="median and MAD",
    formula="y = (x - median) / (1.4826 MAD)",
    source="Leys et al., J. Exp. Soc. Psychol. 2013",
    laws=frozenset({Law.AFFINE_INVARIANT, Law.IDEMPOTENT, Law.ORDER_PRESERVING, Law.INVERTIBLE}),
)


@dataclass(frozen=True, slots=True)
class Robust:
    """Median 0 and median absolute deviation 1 / 1.4826 in the mask."""

    card: ClassVar[Card] = CARD

    def solve(self, values: Array, mask: Array) -> Linear:
        """Return the line for one channel; see `Method.solve`.

        Raises:
            NormalizationRefused: also `constant`, where half of the values in the mask are equal.
        """
        found = inside(values, mask)
        center = float(np.median(found))
        spread = TO_SIGMA * float(np.median(np.abs(found - center)))
        if not spread > 0:
            raise NormalizationRefused(
                "constant",
                f"at least half of the values in the mask are {center:g}, so their MAD is 0; "
                "narrow the mask to the object, or choose method 'mad' or 'zscore'",
            )
        return Linear(center, spread)

    def to_json(self) -> Json:
        """Return the record."""
        return to_record(self)

    @classmethod
    def from_json(cls, record: Json) -> Self:
        """Return the method of a saved record."""
        return cls(**parameters(record, cls))


METHOD = Robust
