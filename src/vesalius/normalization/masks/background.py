# SPDX-License-Identifier: Apache-2.0
"""What rises above a dark background: MR, PET, and gray pictures of any kind.

Foreground = the large components above the background's threshold (`split`), gaps closed, holes
filled in the plane of acquisition: ventricles, flow voids and gas inside the body belong to it,
text beside it does not. An image without a background (a crop inside the body) is foreground as a
whole, as is one with less than a twentieth of background. Declared law: affine-invariant.
"""

from __future__ import annotations

import numpy as np

from vesalius.normalization.masks import shapes
from vesalius.normalization.masks.grid import Grid
from vesalius.normalization.masks.split import background_threshold
from vesalius.types import Array, Spacing3

FEWEST = 0.05  # share of the image that a background holds
_CLOSE = 0.015  # of the extent: gaps that are closed
_SMALL = 0.05  # of the largest component: what is smaller is text or noise


def foreground(values: Array, spacing: Spacing3) -> Array | None:
    """Return the foreground `(i, j, k)`, Boolean; None where no background reaches the border.

    Args:
        values: one channel, finite, `(i, j, k)`, any real dtype.
        spacing: millimeters; the plane of acquisition lies across the axis with the largest.
    """
    grid = Grid.of(values.shape)
    x = grid.sample(values)
    threshold = background_threshold(x)
    if threshold is None:
        return None
    above = shapes.majority(x > threshold)
    above = shapes.large_components(above, share=_SMALL)
    if not above.any():
        return None
    through = slice_axis(values.shape, spacing)
    i, j, k = (round(_CLOSE * n) if axis != through else 0 for axis, n in enumerate(x.shape))
    coarse = shapes.fill(shapes.close(above, (i, j, k)), through=through)
    if 1 - coarse.mean() < FEWEST:
        return None
    return grid.refine(coarse, values, threshold)


def slice_axis(shape: tuple[int, ...], spacing: Spacing3) -> int:
    """Return the axis across the slices: the one of length 1, else of largest spacing, else k."""
    if 1 in shape:
        return 2 - shape[::-1].index(1)
    return 2 - int(np.argmax(np.round(spacing[::-1], 4)))
