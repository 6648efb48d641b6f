# SPDX-License-Identifier: Apache-2.0
"""KDE: y = x / mode, the mode of one tissue in the kernel density of the mask's values.

Reinhold et al.: Evaluating the impact of intensity normalization on MR image synthesis, SPIE
2019; modes and bandwidth in `tissue_modes`. Brain MR without skull. Declared laws:
scale-invariant, idempotent, order-preserving, invertible.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from vesalius.normalization.card import Card, Law
from vesalius.normalization.intensity.tissue_modes import (
    check_contrast,
    positive_level,
    tissue_mode,
)
from vesalius.normalization.method import inside
from vesalius.normalization.method_record import parameters, to_record
from vesalius.normalization.transfer import Linear
from vesalius.types import Array, Json

CARD = Card(
    name="kde",
    title="tissue mode of the kernel density (brain MR)",
    formula="y = x / mode",
    source="Reinhold et al., SPIE Medical Imaging 2019",
    laws=frozenset({Law.SCALE_INVARIANT, Law.IDEMPOTENT, Law.ORDER_PRESERVING, Law.INVERTIBLE}),
)


@dataclass(frozen=True, slots=True)
class Kde:
    """The tissue's mode becomes 1.

    Attributes:
        contrast: `t1`, `t2`, `flair` or `pd`; it says which mode counts.
    """

    contrast: str = "t1"
    card: ClassVar[Card] = CARD

    def __post_init__(self) -> None:
        check_contrast(self.contrast)

    def solve(self, values: Array, mask: Array) -> Linear:
        """Return the line for one channel; see `Method.solve`.

        Raises:
            NormalizationRefused: also `no-mode`, there is none, or it is not above 0.
        """
        mode = tissue_mode(inside(values, mask), self.contrast)
        return Linear(0.0, positive_level(mode, "the tissue's mode"))

    def to_json(self) -> Json:
        """Return the record."""
        return to_record(self)

    @classmethod
    def from_json(cls, record: Json) -> Self:
        """Return the method of a saved record."""
        return cls(**parameters(record, cls))


METHOD = Kde
