# SPDX-License-Identifier: Apache-2.0
"""Split a mask into the part that a normalizer is fitted on and an interleaved part to check it on.

The grid is cut into cubes (squares in 2D) of edge `max(1, extent // 16)` along each axis. The cube
with index (a, b, c) is checked where (a + 3 b + 5 c) mod 8 = 0: one in eight, and every row of
cubes along any axis meets one at every eighth place. Declared laws: the parts are disjoint,
together they are the mask, and the split depends on nothing but the mask.
"""

from __future__ import annotations

import numpy as np

from vesalius.normalization.masks import mask as masks
from vesalius.normalization.masks.mask import Mask

CUBES = 16  # along each axis
FEWEST = 64  # voxels in either part


def edges(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the edge of a cube along each axis, in voxels."""
    return tuple(max(1, n // CUBES) for n in shape)


def holdout(mask: Mask) -> tuple[Mask, Mask]:
    """Return `(fit, check)`; where either would hold fewer than 64 voxels, `check` is empty."""
    a, b, c = (
        np.arange(n) // edge
        for n, edge in zip(mask.data.shape, edges(mask.data.shape), strict=True)
    )
    plane = (a[:, None] + 3 * b).astype(np.uint8)  # wraps at 256, a multiple of 8
    checked = (plane[:, :, None] + (5 * c).astype(np.uint8)) & 7 == 0
    check = mask.data & checked
    held = int(check.sum())
    if held < FEWEST or int(mask.data.sum()) - held < FEWEST:
        return mask, masks.of(np.zeros_like(mask.data), mask.kind)
    return masks.of(mask.data & ~checked, mask.kind), masks.of(check, mask.kind)
