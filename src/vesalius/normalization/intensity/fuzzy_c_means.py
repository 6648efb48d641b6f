# SPDX-License-Identifier: Apache-2.0
"""Three tissues by fuzzy c-means on a histogram: their means, as the images' own unit has them.

u_k(x) = |x - c_k|**-2 / sum_j |x - c_j|**-2,  c_k = sum u_k**2 x / sum u_k**2  (m = 2), repeated
until the memberships move less than `ERROR` (Bezdek: Pattern Recognition with Fuzzy Objective
Function Algorithms, 1981). Voxels of one gray level share a membership, so a histogram of fine
bins, each at the mean of its values, stands for all of them: an iteration costs the bins.
"""

from __future__ import annotations

import numpy as np

from vesalius.errors import NormalizationRefused, UsageError
from vesalius.types import Array

TISSUES = ("csf", "gray", "white")
ORDER: dict[str, tuple[str, str, str]] = {  # contrast -> tissues from dark to bright
    "t1": ("csf", "gray", "white"),
    "t2": ("white", "gray", "csf"),
    "flair": ("csf", "white", "gray"),
    "pd": ("white", "gray", "csf"),
}
ERROR = 0.005  # Frobenius norm of the change of all voxels' memberships
_BINS = 1 << 14


def check_order(contrast: str) -> None:
    """Raise `UsageError` unless `contrast` is one of `ORDER`."""
    if contrast not in ORDER:
        raise UsageError(f"contrast must be one of {', '.join(ORDER)}, got '{contrast}'")


def tissue_means(values: Array, contrast: str, iterations: int) -> tuple[float, float, float]:
    """Return the membership-weighted means of cerebrospinal fluid, gray and white matter.

    Args:
        values: flat, float64, finite, not constant.
        contrast: a name of `ORDER`.
        iterations: at most so many.

    Raises:
        NormalizationRefused: `no-mode`, fewer than three gray levels.
    """
    levels, counts = _levels(values)
    if levels.size < 3:
        raise NormalizationRefused(
            "no-mode", f"the mask holds {levels.size} gray levels: three tissues need at least 3"
        )
    centers, member = cluster(levels, counts, iterations)
    weights = member * counts  # (3, levels)
    means = (weights @ levels / weights.sum(axis=1))[np.argsort(centers)]
    of = dict(zip(ORDER[contrast], map(float, means), strict=True))
    return of["csf"], of["gray"], of["white"]


def cluster(levels: Array, counts: Array, iterations: int) -> tuple[Array, Array]:
    """Return three centers `(3,)` and the memberships `(3, n)` of the levels `(n,)`.

    The start is fixed: a sixth, a half and five sixths of the voxels' distribution, drawn so that
    it rises strictly from the first level to the last, and the three never coincide. A center that
    falls on a level owns it.
    """
    share = (np.cumsum(counts) - counts * np.linspace(1, 0, counts.size)) / counts.sum()
    centers = np.interp((1 / 6, 1 / 2, 5 / 6), share, levels)
    member = _memberships(levels, centers)
    for _ in range(iterations):
        weights = member**2 * counts  # (3, n)
        centers = weights @ levels / weights.sum(axis=1)
        before, member = member, _memberships(levels, centers)
        if np.sqrt((counts * (member - before) ** 2).sum()) < ERROR:
            break
    return centers, member


def _memberships(levels: Array, centers: Array) -> Array:
    distance = np.abs(levels - centers[:, None])  # (3, n)
    nearest = distance.min(axis=0)
    # relative to the nearest center: at a center 1 for it and 0 for the others, never 0 / 0
    ratio = np.divide(nearest, distance, out=np.ones_like(distance), where=distance > 0) ** 2
    member: Array = ratio / ratio.sum(axis=0)
    return member


def _levels(values: Array) -> tuple[Array, Array]:
    """Return the mean of each occupied bin, rising, and how many values it holds."""
    low, high = values.min(), values.max()
    where = np.minimum((values - low) / (high - low) * _BINS, _BINS - 1).astype(np.int32)
    counts = np.bincount(where, minlength=_BINS)
    offsets = np.bincount(where, weights=values - low, minlength=_BINS)
    held = counts > 0
    return low + offsets[held] / counts[held], counts[held].astype(np.float64)
