# SPDX-License-Identifier: Apache-2.0
"""A fixed window for images with a physical scale (CT in Hounsfield units).

    y = (clip(x, low, high) - mean) / std

Low and high are the percentiles 0.5 and 99.5 of the training values in the mask, mean and std
those of the clipped values, after Isensee et al.: nnU-Net, Nature Methods 2021. Declared law:
order-preserving; the same value means the same in every image.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import sqrt
from typing import ClassVar, Self

import numpy as np

from vesalius.errors import DataError, UsageError
from vesalius.normalization.card import Card, Law
from vesalius.normalization.method import inside
from vesalius.normalization.method_record import parameters, to_record
from vesalius.normalization.transfer import Linear
from vesalius.types import Array, Json

PERCENTILES = (0.5, 99.5)

CARD = Card(
    name="window",
    title="fixed window of a physical unit, fitted on training values",
    formula="y = (clip(x, low, high) - mean) / std",
    source="Isensee et al., nnU-Net, Nature Methods 2021",
    laws=frozenset({Law.ORDER_PRESERVING}),
    fitted=True,
)


@dataclass(frozen=True, slots=True)
class Window:
    """Limits, mean and standard deviation in the image's unit."""

    low: float
    high: float
    mean: float
    std: float
    card: ClassVar[Card] = CARD

    def __post_init__(self) -> None:
        if not (self.low < self.high and self.std > 0):
            raise UsageError(f"a window needs low < high and std > 0, got {self}")

    def solve(self, values: Array, mask: Array) -> Linear:  # noqa: ARG002 - the same for all
        """Return the curve, the same for every image."""
        return Linear(self.mean, self.std, self.low, self.high)

    def to_json(self) -> Json:
        """Return the record."""
        return to_record(self)

    @classmethod
    def from_json(cls, record: Json) -> Self:
        """Return the method of a saved record."""
        return cls(**parameters(record, cls))


@dataclass(slots=True)
class WindowFit:
    """Counts of the training values rounded to whole steps (1 HU); see `method.Fit`."""

    step: float = 1.0
    counts: Counter[int] = field(default_factory=Counter)

    def add(self, values: Array, mask: Array) -> None:
        """Take in one training image."""
        found = np.rint(inside(values, mask) / self.step).astype(np.int64)
        places, numbers = np.unique(found, return_counts=True)
        self.counts.update(dict(zip(places.tolist(), numbers.tolist(), strict=True)))

    def merge(self, other: WindowFit) -> None:
        """Take in what another instance gathered."""
        self.counts.update(other.counts)

    def finish(self) -> Window:
        """Return the window.

        Raises:
            DataError: the training images have no varying values.
        """
        if len(self.counts) < 2:
            raise DataError(
                "no window can be fitted: the training images have no varying values; "
                "look at them with `vesalius check`"
            )
        places = np.array(sorted(self.counts))
        numbers = np.array([self.counts[place] for place in places.tolist()])
        below = np.cumsum(numbers)
        ranks = [share / 100 * (below[-1] - 1) for share in PERCENTILES]
        low, high = (int(places[np.searchsorted(below, rank, side="right")]) for rank in ranks)
        if low == high:
            low, high = int(places[0]), int(places[-1])
        # whole numbers, so that no order of images changes the sums
        kept = [(min(max(p, low), high), n) for p, n in self.counts.items()]
        total = sum(n for _, n in kept)
        first = sum(p * n for p, n in kept)
        second = sum(p * p * n for p, n in kept)
        variance = (second * total - first * first) / total**2
        return Window(
            low * self.step, high * self.step, first / total * self.step, sqrt(variance) * self.step
        )


METHOD = Window
FIT = WindowFit
