# SPDX-License-Identifier: Apache-2.0
"""MINC's inormalize: one positive factor to a constant or to a registered model, or a range.

y = f x, with f from `ratios.factor` of the constant `target` (in the mask) or of a model image on
the same grid; or, with ratio `range`, the percentiles p and 100 - p to `low` and `high`.
A. Zijdenbos, inormalize 1995-2007, part of the MINC tools (`-const 1000` there, the default
here). Declared laws of the constant: scale-invariant, idempotent, order-preserving, invertible.
Where background is left in the mask after a bias correction, inormalize is known to invert or to
explode intensities; here a factor that is not positive is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from vesalius.errors import NormalizationRefused, UsageError
from vesalius.normalization.card import Card, Law
from vesalius.normalization.intensity.ratios import RATIOS, check_ratio, factor
from vesalius.normalization.method import inside
from vesalius.normalization.method_record import parameters, to_record
from vesalius.normalization.transfer import Linear
from vesalius.types import Array, Json

MIN_VOXELS = 1000

CARD = Card(
    name="inormalize",
    title="one factor to a constant or a model image (MINC)",
    formula="y = x * median(target / x), or one of five other ratios, or a percentile range",
    source="Zijdenbos, inormalize (MINC tools)",
    laws=frozenset(
        {Law.SCALE_INVARIANT, Law.IDEMPOTENT, Law.ORDER_PRESERVING, Law.INVERTIBLE},
    ),
)


@dataclass(frozen=True, slots=True)
class Inormalize:
    """To a constant or to a range.

    Attributes:
        ratio: one of `ratios.RATIOS`, or `range`.
        target: the constant, positive; not used by `range`.
        percent: that `range` leaves on either side, in [0, 50).
        low, high: where `range` puts the two percentiles.
        min_voxels: that the mask must hold.
    """

    ratio: str = RATIOS[0]
    target: float = 1000.0
    percent: float = 0.01
    low: float = 0.0
    high: float = 100.0
    min_voxels: int = MIN_VOXELS
    card: ClassVar[Card] = CARD

    def __post_init__(self) -> None:
        if self.ratio != "range":
            check_ratio(self.ratio)
        if not (self.target > 0 and 0 <= self.percent < 50 and self.low < self.high):
            raise UsageError(
                "inormalize needs target > 0, percent in [0, 50) and low < high, got "
                f"target={self.target}, percent={self.percent}, low={self.low}, high={self.high}"
            )

    def solve(self, values: Array, mask: Array) -> Linear:
        """Return the curve for one channel; see `Method.solve`.

        Raises:
            NormalizationRefused: also `reference`, see `ratios.factor`.
        """
        found = inside(values, mask, least=max(2, self.min_voxels))
        if self.ratio != "range":
            constant = np.full(found.shape, self.target)
            return _multiply(factor(constant, found, self.ratio, least=self.min_voxels))
        ends = np.percentile(found, (self.percent, 100 - self.percent))
        return _stretch(ends, (self.low, self.high))

    def to_json(self) -> Json:
        """Return the record."""
        return to_record(self)

    @classmethod
    def from_json(cls, record: Json) -> Self:
        """Return the method of a saved record."""
        return cls(**parameters(record, cls))


def solve_to_model(
    values: Array,
    model: Array,
    mask: Array,
    *,
    ratio: str = RATIOS[0],
    percent: float = 0.01,
    constrained: bool = False,
    min_voxels: int = MIN_VOXELS,
) -> Linear:
    """Return the curve that brings `values` to the level of a registered model image.

    Args:
        values: one channel, any shape.
        model: the model on the same grid, same shape.
        mask: Boolean, same shape: voxels that are compared; those where the model is not finite
            are left out.
        ratio: one of `ratios.RATIOS`, or `range`: percentiles to the model's percentiles.
        percent: see `Inormalize`.
        constrained: keep only ratios in [10^-0.1, 10^0.1].
        min_voxels: that are needed.

    Raises:
        UsageError: shapes differ, or see `ratios.check_ratio`.
        NormalizationRefused: see `method.inside` and `ratios.factor`.
    """
    if np.shape(model) != np.shape(values):
        raise UsageError(
            f"model must lie on the grid of the image, {np.shape(values)}, got {np.shape(model)}; "
            "register and resample it first"
        )
    if ratio != "range":
        check_ratio(ratio, constrained=constrained)
    elif constrained:
        raise UsageError("constrained goes with ratios, not with range")
    inside(values, mask, least=max(2, min_voxels))
    both = mask & np.isfinite(model)
    found = inside(values, both, least=max(2, min_voxels))
    wanted = inside(model, both, least=max(2, min_voxels))
    if ratio != "range":
        return _multiply(factor(wanted, found, ratio, constrained=constrained, least=min_voxels))
    shares = (percent, 100 - percent)
    return _stretch(np.percentile(found, shares), np.percentile(wanted, shares))


def _multiply(by: float) -> Linear:
    return Linear(center=0.0, scale=1 / by)


def _stretch(ends: Array, to: Array | tuple[float, float]) -> Linear:
    """Return the line through (ends[0], to[0]) and (ends[1], to[1])."""
    if not (ends[1] > ends[0] and to[1] > to[0]):
        raise NormalizationRefused(
            "constant",
            f"the outer percentiles coincide ({ends[0]:g} and {ends[1]:g} to {to[0]:g} and "
            f"{to[1]:g}); lower percent, or narrow the mask to the object",
        )
    scale = float((ends[1] - ends[0]) / (to[1] - to[0]))
    return Linear(center=float(ends[0] - to[0] * scale), scale=scale)


METHOD = Inormalize
