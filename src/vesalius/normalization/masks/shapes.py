# SPDX-License-Identifier: Apache-2.0
"""Shapes of Boolean arrays `(i, j, k)`: components, holes, boxes, neighbors, borders."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from vesalius.types import Array, Shape3


def large_components(mask: Array, *, share: float) -> Array:
    """Return the components (face neighbors) of at least `share` of the largest one's size."""
    labels, n = ndimage.label(mask)
    if n == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    kept: Array = (sizes >= share * sizes.max())[labels] & mask
    return kept


def reaching_border(mask: Array, *, through: int) -> Array:
    """Return the parts of `mask` that reach the image's border within planes across an axis.

    `through` is the axis of the planes; each plane stands for itself, so that a hole that is cut
    open by the first or the last slice is still a hole. Axes of length 1 have no border.
    """
    structure = ndimage.generate_binary_structure(3, 1)
    flat = [slice(None)] * 3
    for end in (0, 2):
        flat[through] = slice(end, end + 1)
        structure[tuple(flat)] = False
    labels, n = ndimage.label(mask, structure)
    reached = np.zeros(n + 1, bool)
    for axis in range(3):
        if axis != through and mask.shape[axis] > 1:
            for end in (0, -1):
                reached[labels.take(end, axis)] = True
    reached[0] = False
    kept: Array = reached[labels]
    return kept


def fill(mask: Array, *, through: int) -> Array:
    """Return the mask with holes filled in the planes across axis `through`."""
    filled: Array = ~reaching_border(~mask, through=through)
    return filled


def erode(mask: Array, radius: Shape3) -> Array:
    """Return the mask eroded by a box of `2 r + 1` points; outside the image counts as inside."""
    return _slide(mask, radius, ndimage.minimum_filter1d, 1)


def dilate(mask: Array, radius: Shape3) -> Array:
    """Return the mask dilated by a box of `2 r + 1` points along each axis."""
    return _slide(mask, radius, ndimage.maximum_filter1d, 0)


def close(mask: Array, radius: Shape3) -> Array:
    """Return the mask with gaps narrower than the box closed."""
    return erode(dilate(mask, radius), radius) | mask


def majority(mask: Array) -> Array:
    """Return, for each point, what most of the 3 x 3 x 3 points around it are."""
    counts = mask.astype(np.uint8)
    size = 1
    for axis, n in enumerate(mask.shape):
        if n > 2:
            counts = ndimage.convolve1d(counts, (1, 1, 1), axis, mode="nearest")
            size *= 3
    most: Array = counts > size // 2
    return most


def _slide(mask: Array, radius: Shape3, extreme: Callable[..., Array], outside: int) -> Array:
    out = mask.view(np.uint8)
    for axis, r in enumerate(radius):
        if r:
            out = extreme(out, 2 * r + 1, axis, mode="constant", cval=outside)
    moved: Array = out.astype(bool)
    return moved
