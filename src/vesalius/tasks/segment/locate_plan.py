# SPDX-License-Identifier: Apache-2.0
"""Whether a plan has a coarse network that says where to look, and its shape."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vesalius.tasks.segment.slide import lay_out
from vesalius.types import Array, Json

WINDOWS = 12  # of the median image, below which its coarse answer costs more than it can save
_VOXELS = 2**16  # of the median image on the coarse grid, at most
_THINNEST = 12  # blocks along an axis, below which it is not made coarser
_WIDTHS = (8, 16, 32, 64, 64)
_MARGIN = 1  # blocks
_BATCH = 2

# shape, spacing, voxels of a patch -> patch, strides, kernels
Topology = Callable[[Array, Array, int], tuple[list[int], list[list[int]], list[list[int]]]]


def plan_locator(decisions: Json, shape: Array, spacing: Array, topology: Topology) -> Json | None:
    """Return the decision `locator`, None for few windows or a network of two axes.

    Args:
        decisions: with patch and overlap.
        shape: of the median image on the plan's grid.
        spacing: of that grid, mm.
        topology: of the plan's networks.
    """
    if len(shape) != 3:
        return None
    i, j, k = (int(size) for size in shape)
    if lay_out((i, j, k), decisions, classes=2, memory=1 << 60).windows < WINDOWS:
        return None
    factor = np.ones(3, int)
    while np.prod(blocks := -(-shape // factor)) > _VOXELS:
        able = blocks > _THINNEST
        if not able.any():
            break
        factor[np.where(able, spacing * factor, np.inf).argmin()] += 1
    patch, strides, kernels = topology(blocks, spacing * factor, 2 * _VOXELS)
    return {
        "factor": factor.tolist(),
        "margin": _MARGIN,
        "patch": patch,
        "batch": _BATCH,
        "network": {
            "name": "unet",
            "weights": "random",
            "options": {
                "widths": list(_WIDTHS[: len(strides)]),
                "strides": strides,
                "kernels": kernels,
                "deep_supervision": True,
            },
        },
    }
