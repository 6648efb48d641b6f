# SPDX-License-Identifier: Apache-2.0
"""Means of vectors that do not depend on the order or the partition in which they were added.

Each component is kept as a whole number of steps of 2**-60, exact for every double of magnitude
2**-8 and more, and rounded once per vector below. Whole numbers add associatively, floats do not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

_BITS = 60


@dataclass(slots=True)
class ExactMean:
    """Running mean of vectors of one length: constant memory, mergeable.

    Attributes:
        count: vectors added.
        totals: their sum, in steps of 2**-60; empty before the first.
    """

    count: int = 0
    totals: list[int] = field(default_factory=list)

    def add(self, vector: Iterable[float]) -> None:
        """Take in one vector of finite numbers."""
        self._plus(1, [_steps(value) for value in vector])

    def merge(self, other: ExactMean) -> None:
        """Take in what `other` gathered."""
        if other.count:
            self._plus(other.count, other.totals)

    def mean(self) -> tuple[float, ...]:
        """Return the mean, correctly rounded; the sum must not be empty."""
        return tuple(total / (self.count << _BITS) for total in self.totals)

    def _plus(self, count: int, totals: list[int]) -> None:
        held = self.totals or [0] * len(totals)
        self.totals = [one + two for one, two in zip(held, totals, strict=True)]
        self.count += count


def _steps(value: float) -> int:
    numerator, denominator = float(value).as_integer_ratio()  # the denominator is a power of two
    return ((numerator << (_BITS + 1)) // denominator + 1) >> 1
