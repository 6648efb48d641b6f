# SPDX-License-Identifier: Apache-2.0
"""MAD, smooth clip, z: the default's differentiable form, that `MADNorm` starts from.

    z = (x - median) / (1.4826 * MAD); w = c * tanh(z / c); y = (w - mean(w)) / sd(w)

tanh as a soft winsorizer: EDAIN, September et al. 2024. Declared laws: affine-invariant,
order-preserving, invertible, unit standard deviation in the mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import ClassVar, Self

import numpy as np

from vesalius.errors import NormalizationRefused, UsageError
from vesalius.normalization.card import Card, Law
from vesalius.normalization.intensity.mad import CLIP, center_and_scale
from vesalius.normalization.method import masked_chunks, masked_sample
from vesalius.normalization.method_record import parameters, to_record
from vesalius.normalization.transfer import Tanh
from vesalius.types import Array, Json

CARD = Card(
    name="mad-tanh",
    title="median and MAD, smooth clip, z-score",
    formula="y = (c·tanh(z/c) - mean) / sd; z = (x - median) / (1.4826·MAD)",
    source="September et al., EDAIN, 2024; Leys et al. 2013",
    laws=frozenset(
        {Law.AFFINE_INVARIANT, Law.ORDER_PRESERVING, Law.INVERTIBLE, Law.UNIT_SD},
    ),
)


@dataclass(frozen=True, slots=True)
class MadTanh:
    """The smooth three steps; `limit` is the clip in robust standard deviations."""

    limit: float = CLIP
    card: ClassVar[Card] = CARD

    def __post_init__(self) -> None:
        if not self.limit > 0:
            raise UsageError(f"limit must be positive, got {self.limit}")

    def solve(self, values: Array, mask: Array) -> Tanh:
        """Return the curve of one channel; see `method.Method.solve`."""
        center, scale = center_and_scale(masked_sample(values, mask).astype(np.float64))
        if not scale > 0:
            raise NormalizationRefused("constant", "a sample of the mask is one value throughout")
        count, total, square = 0, 0.0, 0.0
        for part in masked_chunks(values, mask):
            soft = self.limit * np.tanh((part.astype(np.float64) - center) / (scale * self.limit))
            count += soft.size
            total += float(soft.sum())
            square += float(soft @ soft)
        mean = total / count
        spread = sqrt(max(0.0, square / count - mean * mean))
        if not spread > 0:
            raise NormalizationRefused(
                "constant", "what remains in the mask after clipping is one value"
            )
        return Tanh(center, scale, self.limit, mean, spread)

    def to_json(self) -> Json:
        """Return the constant."""
        return to_record(self)

    @classmethod
    def from_json(cls, record: Json) -> Self:
        """Return the method of a saved record."""
        return cls(**parameters(record, cls))


METHOD = MadTanh
