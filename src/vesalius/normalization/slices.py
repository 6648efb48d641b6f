# SPDX-License-Identifier: Apache-2.0
"""Drift inside a series: does one slice as a whole stand out from its neighbors?

A wrong per-slice rescale slope moves all of a slice; anatomy moves some of its voxels. Each slice
is compared with the mean of its two neighbors voxel by voxel, and the median of the differences
counts. A slice of one value (padding, or a lost slice: `scan`'s `constant-slice`) is no drift: what
would be compared with it, or it with others, is left out.
"""

from __future__ import annotations

import numpy as np

from vesalius.types import Array

_FEWEST_SLICES = 3  # with two neighbors
_FEWEST_VOXELS = 32  # that three slices have in common
_STEP = 0.5  # standard deviations that a slice may stand out
_TIMES = 8.0  # and so many times the typical step of the series


def drift(values: Array, mask: Array, sd: float) -> tuple[float | None, int | None, float]:
    """Return the largest step of a slice (axis k) in units of `sd`, where it is, and its limit.

    `(None, None, limit)` where fewer than three slices share enough of the mask with both of
    their neighbors. Slices whose values in the mask are constant take part in no comparison.
    """
    varies = [_varies(values[:, :, k][mask[:, :, k]]) for k in range(values.shape[2])]
    steps = np.full(max(0, values.shape[2] - 2), np.nan)
    fewest = max(_FEWEST_VOXELS, 0.1 * mask.sum(axis=(0, 1)).max(initial=0))
    for n in range(len(steps)):
        if not all(varies[n : n + 3]):
            continue
        common = mask[:, :, n : n + 3].all(axis=2)
        if np.count_nonzero(common) >= fewest:
            one, two, three = values[:, :, n : n + 3][common].T.astype(np.float64)
            steps[n] = abs(float(np.median(two - (one + three) / 2))) / (sd or 1.0)
    known = np.isfinite(steps)
    if known.sum() < _FEWEST_SLICES:
        return None, None, _STEP
    limit = max(_STEP, _TIMES * float(np.median(steps[known])))
    steps[~known] = -1
    worst = int(steps.argmax())
    return float(steps[worst]), worst + 1, limit


def _varies(values: Array) -> bool:
    return bool(values.size) and bool((values != values[0]).any())
