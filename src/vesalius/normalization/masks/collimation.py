# SPDX-License-Identifier: Apache-2.0
"""X-ray: the exposed field, without collimator borders and saturated surroundings.

Two rules, both relative to the robust range of the image. Border rows and columns: from each side
inward, as long as a line is flat (its central 90 % spans less than 4 % of the range) and as bright
as the outermost one; repeated on what remains, as a corner belongs to two sides. Surroundings: what
reaches the border of the rest, is locally flat and lies at an end of the range (black or white:
direct exposure, round or slanted collimators). Declared law: affine-invariant.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from vesalius.normalization.masks import shapes
from vesalius.normalization.masks.grid import Grid
from vesalius.types import Array

_FLAT = 0.04  # of the robust range: spread of a border line, and between border lines
_LOCAL = 0.02  # of the robust range: local spread of the surroundings
_END = 0.03  # of the robust range: how near to its end the surroundings lie
_LINE = 256  # points that a line is judged by
_LEAST = 0.1  # of the extent: what is narrower is no field
_SURROUND = 0.03  # of the field: what is smaller is anatomy


def exposed_field(values: Array) -> Array | None:
    """Return the exposed field `(i, j, k)`, Boolean; None where nothing has to be excluded.

    Args:
        values: finite, `(i, j, k)`, any real dtype.
    """
    grid = Grid.of(values.shape)
    x = grid.sample(values)
    low, high = np.quantile(x, (0.005, 0.995))
    if low == high:
        return None
    rows, columns = _rectangle(values, high - low)
    field = np.zeros(values.shape, bool)
    field[rows, columns] = True
    inside = grid.sample(field) > 0
    around = _surroundings(x, inside, low, high)
    if around.sum() >= _SURROUND * inside.sum() and around.sum() < (1 - _LEAST) * inside.sum():
        field &= ~grid.expand(around)
    return None if field.all() else field


def _rectangle(values: Array, span: float) -> tuple[slice, slice]:
    """Return rows (along i) and columns (along j) of the field, to the voxel."""
    bounds = [[0, values.shape[0]], [0, values.shape[1]]]
    for _ in range(3):
        before = [tuple(pair) for pair in bounds]
        for axis in (0, 1):
            part = values[slice(*bounds[0]), slice(*bounds[1])]
            across = part.shape[1 - axis]
            step = -(-across // _LINE)
            lines = part[:, ::step] if axis == 0 else part[::step].swapaxes(0, 1)
            lines = lines.reshape(len(lines), -1).astype(np.float64)
            first, last = _flat_lines(lines, span)
            if len(lines) - first - last >= _LEAST * values.shape[axis]:
                bounds[axis] = [bounds[axis][0] + first, bounds[axis][1] - last]
        if before == [tuple(pair) for pair in bounds]:
            break
    return slice(*bounds[0]), slice(*bounds[1])


def _flat_lines(lines: Array, span: float) -> tuple[int, int]:
    """Return how many lines at the beginning and at the end are border."""
    q05, q50, q95 = np.quantile(lines, (0.05, 0.5, 0.95), axis=1)
    flat = q95 - q05 <= _FLAT * span
    first = int((~(flat & (abs(q50 - q50[0]) <= _FLAT * span))).argmax())
    last = int((~(flat & (abs(q50 - q50[-1]) <= _FLAT * span))[::-1]).argmax())
    return first, last


def _surroundings(x: Array, inside: Array, low: float, high: float) -> Array:
    span = high - low
    size = tuple(3 if n > 2 else 1 for n in x.shape)
    local = ndimage.maximum_filter(x, size) - ndimage.minimum_filter(x, size)
    end = (x <= low + _END * span) | (x >= high - _END * span)
    flat = (local <= _LOCAL * span) & end | ~inside
    radius = (1, 1, 0)
    flat = shapes.dilate(shapes.erode(flat, radius), radius) & end
    around: Array = shapes.reaching_border(flat | ~inside, through=2) & inside
    return around
