# SPDX-License-Identifier: Apache-2.0
"""What bias-field methods share: positive values in, division by a field of mean 1 out.

Model: v(x) = u(x) f(x), f > 0 smooth; the methods estimate log f where log v exists. Values that
are not positive have no logarithm: where the mask holds negative values, all values are shifted
up, and back after the division; values in the mask below a thousandth of its median (zeros among
them) do not take part in the estimate, only in the correction. The record says both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vesalius.errors import NormalizationRefused, UsageError
from vesalius.normalization.method import inside
from vesalius.types import Array, Json, Spacing3

FLOOR = 1e-3  # of the median of the positive values: below, a value does not count
LEAST = 64  # voxels that an estimate needs, on the grid on which it is made


@dataclass(frozen=True, slots=True)
class Ground:
    """What an estimate works on.

    Attributes:
        values: `(i, j, k)` float64, shifted; 0 where they were not finite.
        usable: `(i, j, k)` Boolean, voxels of the mask with a logarithm.
        shift: what was added, in the image's unit.
        left_out: voxels of the mask that are not usable.
    """

    values: Array
    usable: Array
    shift: float
    left_out: int


def ground(values: Array, mask: Array) -> Ground:
    """Return what a bias field can be estimated from.

    Args:
        values: one channel, `(i, j, k)`, any real dtype.
        mask: the fitting mask, Boolean, same shape.

    Raises:
        UsageError: `values` has not three axes, or the mask does not fit.
        NormalizationRefused: as `method.inside`; also `too-few-voxels` and `constant` among the
            values that have a logarithm.
    """
    if np.ndim(values) != 3:
        raise UsageError(f"values must have axes (i, j, k), got shape {np.shape(values)}")
    found = inside(values, mask)
    shift = 0.0
    if found.min() < 0:
        shift = float(0.01 * np.ptp(found) - found.min())
        found = found + shift
    floor = FLOOR * float(np.median(found[found > 0]))
    shifted = np.asarray(values, np.float64) + shift
    shifted[~np.isfinite(shifted)] = 0.0
    usable = mask & (shifted > floor)
    enough(int(usable.sum()))
    logs = shifted[usable]
    if logs.min() == logs.max():
        raise NormalizationRefused(
            "constant", f"every positive value in the mask is {logs[0] - shift:g}: no field shows"
        )
    return Ground(shifted, usable, shift, int(mask.sum() - usable.sum()))


def enough(voxels: int) -> None:
    """Refuse an estimate from fewer than `LEAST` voxels."""
    if voxels < LEAST:
        raise NormalizationRefused(
            "too-few-voxels",
            f"a bias field needs {LEAST} positive voxels of the mask on the coarse grid, got "
            f"{voxels}; widen the mask, or lower shrink",
        )


def coarse_steps(shape: tuple[int, ...], spacing: Spacing3, shrink: int) -> tuple[int, int, int]:
    """Return how many voxels along each axis make one of the coarse grid.

    Axes that are already as coarse as `shrink` times the finest stay as they are, and none falls
    below four samples for the sake of shrinking.

    Raises:
        UsageError: `shrink` is below 1, or a spacing is not positive.
    """
    if shrink < 1:
        raise UsageError(f"shrink must be at least 1, got {shrink}")
    if len(spacing) != 3 or not all(np.isfinite(s) and s > 0 for s in spacing):
        raise UsageError(f"spacing must be three positive millimeters, got {spacing}")
    finest = min(s for s, n in zip(spacing, shape, strict=True) if n > 1 or max(shape) == 1)
    steps = [
        min(shrink, max(1, n // 4)) if s < finest * shrink else 1
        for n, s in zip(shape, spacing, strict=True)
    ]
    return steps[0], steps[1], steps[2]


def divide(values: Array, found: Ground, log_field: Array) -> tuple[Array, Json]:
    """Return `values` without the field, float32, and the record of the field.

    Args:
        values: as they were handed to `ground`.
        found: what it returned.
        log_field: `(i, j, k)`, natural logarithm; outside the mask it is held within the range
            that it has inside, where alone it was estimated.

    Raises:
        NormalizationRefused: `non-finite`, the field is not finite in the mask.
    """
    logs = log_field[found.usable]
    if not np.isfinite(logs).all():
        raise NormalizationRefused(
            "non-finite", "the estimated bias field is not finite; widen the mask, or lower shrink"
        )
    level = float(np.log(np.mean(np.exp(logs))))
    low, high = float(logs.min()), float(logs.max())
    field = np.exp(np.clip(log_field, low, high) - level)
    out = ((np.asarray(values, np.float64) + found.shift) / field - found.shift).astype(np.float32)
    record = {
        "shift": found.shift,
        "left_out": found.left_out,
        "field_mean": 1.0,
        "field_sd": float(np.std(np.exp(logs - level))),
        "field_low": float(np.exp(low - level)),
        "field_high": float(np.exp(high - level)),
    }
    return out, record
