# SPDX-License-Identifier: Apache-2.0
"""Ultrasound: the field of the probe, without the black screen and the text around it.

Screen = values within 1.5 % of the range above the least, where they hold at least a tenth of the
image and reach its border. Field = the largest component of the rest, after lines thinner than
three pixels (text, scales) have fallen off and gaps are closed; then every pixel that lies between
two of its pixels both along its row and along its column: cysts and most of a shadow belong to it,
a black shadow that leaves the field may fall out in part. Frames of a clip share one field.
Declared law: affine-invariant.
"""

from __future__ import annotations

import numpy as np

from vesalius.normalization.masks import shapes
from vesalius.normalization.masks.grid import Grid
from vesalius.types import Array

_ABOVE = 0.015  # of the range
_SCREEN = 0.1  # of the image
_CLOSE = 0.02  # of the extent


def probe_field(values: Array) -> Array | None:
    """Return the probe's field `(i, j, k)`, Boolean; None where there is no black screen.

    Args:
        values: finite, `(i, j, k)`, any real dtype; k counts frames.
    """
    brightest = values.max(axis=2, keepdims=True)
    grid = Grid.of(brightest.shape)
    x = grid.sample(brightest)
    low, high = float(x.min()), float(np.quantile(x, 0.995))
    bright = x > low + _ABOVE * (high - low)
    screen = shapes.reaching_border(~bright, through=2)
    if screen.mean() < _SCREEN:
        return None
    thick = shapes.dilate(shapes.erode(bright, (1, 1, 0)), (1, 1, 0)) & bright
    radius = (round(_CLOSE * x.shape[0]), round(_CLOSE * x.shape[1]), 0)
    field = shapes.large_components(shapes.close(thick, radius), share=1.0)
    if not field.any():
        return None
    field = between(field, 0) & between(field, 1)
    if field.all():
        return None
    out: Array = np.repeat(grid.expand(field), values.shape[2], axis=2)
    return out


def between(mask: Array, axis: int) -> Array:
    """Return the points that have a point of `mask` at or before and at or after them."""
    before = np.logical_or.accumulate(mask, axis)
    after = np.flip(np.logical_or.accumulate(np.flip(mask, axis), axis), axis)
    both: Array = before & after
    return both
