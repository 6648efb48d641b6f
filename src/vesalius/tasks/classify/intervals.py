# SPDX-License-Identifier: Apache-2.0
"""Conformal intervals of a predicted number: they hold the truth at a promised rate.

Lei et al.: Distribution-free predictive inference for regression, JASA 2018. The score is the
absolute residual, over the row's scale where one is given; threshold and promise are those of
`conformal`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Self

import numpy as np

from vesalius.errors import UsageError
from vesalius.tasks.classify.conformal import check_coverage, conformal_threshold, rows_needed
from vesalius.types import Array, Json


@dataclass(frozen=True, slots=True)
class Intervals:
    """Intervals of a predicted number from the absolute residuals of calibration rows.

    Attributes:
        coverage: promised rate.
        half_width: in the target's unit, or in multiples of `scale`; None: without bounds.
        scaled: `apply` needs each row's scale.
        n: calibration rows.
        note: why intervals are without bounds, or ``.
    """

    coverage: float
    half_width: float | None
    scaled: bool
    n: int
    note: str = ""

    @classmethod
    def fit(
        cls, predicted: Array, truth: Array, *, coverage: float = 0.9, scale: Array | None = None
    ) -> Self:
        """Fit on calibration rows that serve nothing else.

        Args:
            predicted: `(n,)`.
            truth: `(n,)`, in the same unit.
            coverage: promised rate, above 0 and below 1.
            scale: `(n,)` above 0: how uncertain each row is (for example an ensemble's spread).

        Raises:
            UsageError: a bad coverage, unequal shapes, values that are not finite.
        """
        check_coverage(coverage)
        values, sizes = _numbers(predicted, scale)
        target = np.asarray(truth, np.float64)
        if target.shape != values.shape or not np.isfinite(target).all():
            raise UsageError(f"truth must be {len(values)} finite numbers, got {target.shape}")
        half_width = conformal_threshold(np.abs(target - values) / sizes, coverage)
        note = "" if half_width is not None else (
            f"{len(values)} calibration rows are too few for {coverage:.0%}, which needs "
            f"{rows_needed(coverage)}: intervals are without bounds"
        )  # fmt: skip
        return cls(coverage, half_width, scale is not None, len(values), note)

    def apply(self, predicted: Array, scale: Array | None = None) -> Array:
        """Return `(n, 2)` lower and upper bounds; infinite where no bound can be promised."""
        if self.scaled != (scale is not None):
            raise UsageError(f"intervals were fitted {'with' if self.scaled else 'without'} scale")
        values, sizes = _numbers(predicted, scale)
        half = sizes * (np.inf if self.half_width is None else self.half_width)
        return np.stack([values - half, values + half], axis=1)

    def to_json(self) -> Json:
        """Return a plain dictionary."""
        return asdict(self)

    @classmethod
    def from_json(cls, held: Json) -> Self:
        """Return the intervals that `to_json` wrote."""
        return cls(**held)


def _numbers(predicted: Array, scale: Array | None) -> tuple[Array, Array]:
    values = np.asarray(predicted, np.float64)
    sizes = np.ones_like(values) if scale is None else np.asarray(scale, np.float64)
    if values.ndim != 1 or sizes.shape != values.shape or not np.isfinite(values).all():
        raise UsageError(f"predicted and scale must be (n,) and finite: {values.shape}")
    if not (np.isfinite(sizes) & (sizes > 0)).all():
        raise UsageError("scale must be above 0 and finite in every row")
    return values, sizes
