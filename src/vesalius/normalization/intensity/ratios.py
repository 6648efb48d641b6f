# SPDX-License-Identifier: Apache-2.0
"""One factor that brings values to a model's level, in the six ways of MINC's inormalize.

With m the model's values, x the image's at the same voxels, and r = m / x:

    ratioOfMeans      mean(m) / mean(x)          meanOfRatios     mean(r)
    ratioOfMedians    median(m) / median(x)      meanOfLogRatios  exp(mean(log r))
    rms               argmin_f sum (m - f x)^2   medianOfRatios   median(r)

A. Zijdenbos, inormalize 1995-2007 (its rms is searched for by a simplex; here it is solved).
`constrained` keeps only ratios in [10^-0.1, 10^0.1]. Ratios need x other than 0, log ratios need
r > 0. A factor that is not positive would turn the image over, and is refused.
"""

from __future__ import annotations

import math

import numpy as np

from vesalius.errors import NormalizationRefused, UsageError
from vesalius.types import Array

RATIOS = (
    "medianOfRatios", "meanOfRatios", "meanOfLogRatios", "ratioOfMedians", "ratioOfMeans", "rms",
)  # fmt: skip
NARROW = (10**-0.1, 10**0.1)
_VOXEL_WISE = RATIOS[:3]


def check_ratio(ratio: str, *, constrained: bool = False) -> None:
    """Refuse an unknown ratio, or a constraint on one that has no voxel-wise ratios.

    Raises:
        UsageError: as said.
    """
    if ratio not in RATIOS:
        raise UsageError(f"ratio must be one of {', '.join(RATIOS)}, got '{ratio}'")
    if constrained and ratio not in _VOXEL_WISE:
        raise UsageError(f"constrained goes with {', '.join(_VOXEL_WISE)}, got ratio '{ratio}'")


def factor(
    model: Array, values: Array, ratio: str, *, constrained: bool = False, least: int = 1
) -> float:
    """Return what `values` have to be multiplied with to reach `model`.

    Args:
        model, values: finite, flat, at the same voxels.
        ratio: one of `RATIOS`.
        constrained: see the module.
        least: voxels, or ratios, that are needed.

    Raises:
        UsageError: see `check_ratio`.
        NormalizationRefused: `too-few-voxels`, or `reference`: the factor is not positive.
    """
    check_ratio(ratio, constrained=constrained)
    if ratio in _VOXEL_WISE:
        model, values = model[values != 0], values[values != 0]
        ratios = model / values
        if ratio == "meanOfLogRatios":
            ratios = ratios[ratios > 0]
        if constrained:
            ratios = ratios[(ratios >= NARROW[0]) & (ratios <= NARROW[1])]
        _enough(ratios.size, least)
        if ratio == "medianOfRatios":
            found = float(np.median(ratios))
        elif ratio == "meanOfRatios":
            found = float(np.mean(ratios))
        else:
            found = float(np.exp(np.mean(np.log(ratios))))
    else:
        _enough(values.size, least)
        if ratio == "rms":
            over, under = float(values @ model), float(values @ values)
        elif ratio == "ratioOfMeans":
            over, under = float(model.mean()), float(values.mean())
        else:
            over, under = float(np.median(model)), float(np.median(values))
        found = over / under if under != 0 else math.inf
    if not (math.isfinite(found) and found > 0):
        raise NormalizationRefused(
            "reference",
            f"{ratio} gives the factor {found:g}, which would turn the image over or empty it; "
            "give a mask that holds the object without background, or take another ratio",
        )
    return found


def _enough(size: int, least: int) -> None:
    if size < max(1, least):
        raise NormalizationRefused(
            "too-few-voxels",
            f"{size} voxels can be compared with the model, at least {max(1, least)} needed; widen "
            "the mask, lower min_voxels, or drop constrained",
        )
