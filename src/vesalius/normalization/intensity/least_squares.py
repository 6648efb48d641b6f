# SPDX-License-Identifier: Apache-2.0
"""Least squares: y = a x, so that the three tissue means come nearest to the population's.

With t the image's means of cerebrospinal fluid, gray and white matter (`fuzzy_c_means`) and s the
standard, a = t's / t't minimizes |a t - s|**2. s is the mean over all training images of t / |t|,
scaled so that its white matter is 1. Reinhold et al.: Evaluating the impact of intensity
normalization on MR image synthesis, SPIE 2019 (whose program takes s from the first image alone).
Brain MR without skull. Declared laws: scale-invariant, idempotent, order-preserving, invertible.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from vesalius.errors import DataError, UsageError
from vesalius.normalization.card import Card, Law
from vesalius.normalization.exact_mean import ExactMean
from vesalius.normalization.intensity.fuzzy_c_means import check_order, tissue_means
from vesalius.normalization.intensity.tissue_modes import positive_level
from vesalius.normalization.method import inside
from vesalius.normalization.method_record import parameters, to_record
from vesalius.normalization.transfer import Linear
from vesalius.types import Array, Json

CARD = Card(
    name="least-squares",
    title="tissue means nearest to the population's (brain MR)",
    formula="y = a x, a = t's / t't; t the image's tissue means, s the population's",
    source="Reinhold et al., SPIE Medical Imaging 2019",
    laws=frozenset({Law.SCALE_INVARIANT, Law.IDEMPOTENT, Law.ORDER_PRESERVING, Law.INVERTIBLE}),
    fitted=True,
)


@dataclass(frozen=True, slots=True)
class LeastSquares:
    """One factor an image.

    Attributes:
        standard: the population's means of cerebrospinal fluid, gray and white matter.
        contrast: `t1`, `t2`, `flair` or `pd`; it orders the tissues from dark to bright.
        iterations: of the clustering, at most.
    """

    standard: tuple[float, float, float]
    contrast: str = "t1"
    iterations: int = 50
    card: ClassVar[Card] = CARD

    def __post_init__(self) -> None:
        check_order(self.contrast)
        if len(self.standard) != 3 or not np.isfinite(self.standard).all():
            raise UsageError(f"standard must be three finite means, got {self.standard}")

    def solve(self, values: Array, mask: Array) -> Linear:
        """Return the line for one channel; see `Method.solve`.

        Raises:
            NormalizationRefused: also `no-mode`: fewer than three gray levels, or tissue means
                that point away from the standard.
        """
        found = inside(values, mask, least=3)
        means = np.array(tissue_means(found, self.contrast, self.iterations))
        along = positive_level(
            float(means @ self.standard), "the product of the tissue means with the standard"
        )
        return Linear(0.0, float(means @ means) / along)

    def to_json(self) -> Json:
        """Return the record."""
        return to_record(self)

    @classmethod
    def from_json(cls, record: Json) -> Self:
        """Return the method of a saved record."""
        return cls(**parameters(record, cls))


class LeastSquaresFit:
    """The mean direction of the training images' tissue means; see `Fit`."""

    def __init__(self, *, contrast: str = "t1", iterations: int = 50) -> None:
        check_order(contrast)
        self.contrast, self.iterations = contrast, iterations
        self.directions = ExactMean()

    def add(self, values: Array, mask: Array) -> None:
        """Take in one training image; refuses what `LeastSquares.solve` refuses."""
        found = inside(values, mask, least=3)
        means = np.array(tissue_means(found, self.contrast, self.iterations))
        positive_level(float(means[-1]), "the mean of tissue 'white'")
        self.directions.add(means / np.linalg.norm(means))

    def merge(self, other: LeastSquaresFit) -> None:
        """Take in what another instance gathered."""
        if (other.contrast, other.iterations) != (self.contrast, self.iterations):
            raise UsageError(
                f"fits of one method merge: contrast '{self.contrast}' and '{other.contrast}', "
                f"iterations {self.iterations} and {other.iterations} differ"
            )
        self.directions.merge(other.directions)

    def finish(self) -> LeastSquares:
        """Return the fitted method.

        Raises:
            DataError: nothing was added.
        """
        if not self.directions.count:
            raise DataError("least-squares needs at least one training image, got none")
        csf, gray, white = self.directions.mean()
        return LeastSquares((csf / white, gray / white, 1.0), self.contrast, self.iterations)


METHOD = LeastSquares
FIT = LeastSquaresFit
