# SPDX-License-Identifier: Apache-2.0
"""WhiteStripe: y = (x - mean) / SD of the voxels around the white matter's mode.

The stripe holds the values strictly between the quantiles q(mode) - width and q(mode) + width,
q(mode) the share of the mask below the mode. Shinohara et al.: Statistical normalization
techniques for magnetic resonance imaging, NeuroImage: Clinical 2014; modes in `tissue_modes`. An
empty stripe is refused, where other programs fall back to the whole brain. Brain MR without
skull. Declared laws: affine-invariant, idempotent, order-preserving, invertible. y counts SDs of
the stripe: over the whole mask its SD is far above 1 by design.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from vesalius.errors import NormalizationRefused, UsageError
from vesalius.normalization.card import Card, Law
from vesalius.normalization.intensity.tissue_modes import check_contrast, tissue_mode
from vesalius.normalization.method import inside
from vesalius.normalization.method_record import parameters, to_record
from vesalius.normalization.transfer import Linear
from vesalius.types import Array, Json

CARD = Card(
    name="whitestripe",
    title="normal-appearing white matter (brain MR)",
    formula="y = (x - mean) / SD of the values in quantiles q(mode) +- width",
    source="Shinohara et al., NeuroImage: Clinical 2014",
    laws=frozenset({Law.AFFINE_INVARIANT, Law.IDEMPOTENT, Law.ORDER_PRESERVING, Law.INVERTIBLE}),
)


@dataclass(frozen=True, slots=True)
class WhiteStripe:
    """Mean 0 and SD 1 in the stripe.

    Attributes:
        contrast: `t1`, `t2`, `flair` or `pd`; it says which mode counts.
        width: half the stripe, as a share of the mask, in (0, 0.5].
    """

    contrast: str = "t1"
    width: float = 0.05
    card: ClassVar[Card] = CARD

    def __post_init__(self) -> None:
        check_contrast(self.contrast)
        if not 0 < self.width <= 0.5:
            raise UsageError(f"width must be in (0, 0.5], got {self.width}")

    def solve(self, values: Array, mask: Array) -> Linear:
        """Return the line for one channel; see `Method.solve`.

        Raises:
            NormalizationRefused: also `no-mode`: there is none, or the stripe is empty or flat.
        """
        found = inside(values, mask)
        mode = tissue_mode(found, self.contrast)
        share = float(np.mean(found < mode))
        low, high = np.quantile(found, (max(share - self.width, 0), min(share + self.width, 1)))
        stripe = found[(found > low) & (found < high)]
        spread = float(stripe.std()) if stripe.size else 0.0
        if not spread > 0:
            raise NormalizationRefused(
                "no-mode",
                f"the stripe around the mode {mode:g}, between {low:g} and {high:g}, holds "
                f"{stripe.size:,} voxels of one gray level at most; widen it (width "
                f"{self.width:g}), check the mask, or choose another method",
            )
        return Linear(float(stripe.mean()), spread)

    def to_json(self) -> Json:
        """Return the record."""
        return to_record(self)

    @classmethod
    def from_json(cls, record: Json) -> Self:
        """Return the method of a saved record."""
        return cls(**parameters(record, cls))


METHOD = WhiteStripe
