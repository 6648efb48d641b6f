# SPDX-License-Identifier: Apache-2.0
"""FCM: y = x / tissue mean, the tissue found by fuzzy c-means in the mask.

Reinhold et al.: Evaluating the impact of intensity normalization on MR image synthesis, SPIE
2019; the clustering in `fuzzy_c_means`. The mean is weighted by the membership of every voxel in
the mask. Brain MR without skull. Declared laws: scale-invariant, idempotent, order-preserving,
invertible.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from vesalius.errors import UsageError
from vesalius.normalization.card import Card, Law
from vesalius.normalization.intensity.fuzzy_c_means import TISSUES, check_order, tissue_means
from vesalius.normalization.intensity.tissue_modes import positive_level
from vesalius.normalization.method import inside
from vesalius.normalization.method_record import parameters, to_record
from vesalius.normalization.transfer import Linear
from vesalius.types import Array, Json

CARD = Card(
    name="fcm",
    title="tissue mean by fuzzy c-means (brain MR)",
    formula="y = x / (sum u x / sum u), u the membership in the tissue",
    source="Reinhold et al., SPIE Medical Imaging 2019",
    laws=frozenset({Law.SCALE_INVARIANT, Law.IDEMPOTENT, Law.ORDER_PRESERVING, Law.INVERTIBLE}),
)


@dataclass(frozen=True, slots=True)
class Fcm:
    """The tissue's mean becomes 1.

    Attributes:
        tissue: `white`, `gray` or `csf` (cerebrospinal fluid).
        contrast: `t1`, `t2`, `flair` or `pd`; it orders the tissues from dark to bright.
        iterations: at most so many.
    """

    tissue: str = "white"
    contrast: str = "t1"
    iterations: int = 50
    card: ClassVar[Card] = CARD

    def __post_init__(self) -> None:
        check_order(self.contrast)
        if self.tissue not in TISSUES:
            raise UsageError(f"tissue must be one of {', '.join(TISSUES)}, got '{self.tissue}'")
        if self.iterations < 1:
            raise UsageError(f"iterations must be at least 1, got {self.iterations}")

    def solve(self, values: Array, mask: Array) -> Linear:
        """Return the line for one channel; see `Method.solve`.

        Raises:
            NormalizationRefused: also `no-mode`: fewer than three gray levels, or a mean that is
                not above 0.
        """
        means = tissue_means(inside(values, mask, least=3), self.contrast, self.iterations)
        mean = means[TISSUES.index(self.tissue)]
        return Linear(0.0, positive_level(mean, f"the mean of tissue '{self.tissue}'"))

    def to_json(self) -> Json:
        """Return the record."""
        return to_record(self)

    @classmethod
    def from_json(cls, record: Json) -> Self:
        """Return the method of a saved record."""
        return cls(**parameters(record, cls))


METHOD = Fcm
