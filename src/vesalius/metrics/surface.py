# SPDX-License-Identifier: Apache-2.0
"""Distances between two masks' surfaces in millimeters, and the scores that stand on them.

The surface is the set of border voxels (foreground voxels with a background face-neighbor; the
image's edge counts as background), each of equal weight, as in MONAI's `compute_surface_dice`
and `compute_hausdorff_distance`. `surface_distances` is the one costly step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vesalius.errors import UsageError
from vesalius.types import Array, Spacing3


@dataclass(frozen=True, slots=True)
class SurfaceDistances:
    """Distance in mm of each border voxel to the other mask's nearest border voxel.

    Attributes:
        prediction_to_truth: `(border voxels of the prediction,)`.
        truth_to_prediction: `(border voxels of the truth,)`.
        worst_mm: the image's diagonal, which stands for a surface that is not there.
    """

    prediction_to_truth: Array
    truth_to_prediction: Array
    worst_mm: float


def surface_distances(
    prediction: Array, truth: Array, spacing: Spacing3, *, worst_mm: float | None = None
) -> SurfaceDistances:
    """Return the exact distances between the surfaces of two boolean masks `(i, j, k)`.

    `spacing` is in mm along i, j, k. Where one mask is empty, every border voxel of the other is
    `worst_mm` (default: the diagonal of this box) away; where both are, there are no distances.
    """
    from scipy.spatial import cKDTree

    prediction, truth = np.asarray(prediction, bool), np.asarray(truth, bool)
    if prediction.shape != truth.shape or prediction.ndim != 3:
        raise UsageError(
            f"prediction and truth must lie on one grid (i, j, k), "
            f"got shapes {prediction.shape} and {truth.shape}"
        )
    worst = diagonal_mm(prediction.shape, spacing) if worst_mm is None else worst_mm
    a, b = _border_points(prediction, spacing), _border_points(truth, spacing)
    if not len(a) or not len(b):
        return SurfaceDistances(np.full(len(a), worst), np.full(len(b), worst), worst)
    return SurfaceDistances(cKDTree(b).query(a)[0], cKDTree(a).query(b)[0], worst)


def normalized_surface_dice(distances: SurfaceDistances, tolerance_mm: float) -> float:
    """Return the share of both surfaces within `tolerance_mm` of the other (Nikolov et al. 2021).

    Both empty: 1; one empty: 0.
    """
    a, b = distances.prediction_to_truth, distances.truth_to_prediction
    if not len(a) and not len(b):
        return 1.0
    if not len(a) or not len(b):
        return 0.0
    within = int((a <= tolerance_mm).sum()) + int((b <= tolerance_mm).sum())
    return within / (len(a) + len(b))


def hausdorff_95(distances: SurfaceDistances) -> float:
    """Return the larger of the two directed 95th percentiles, in mm.

    Both empty: 0; one empty: the image's diagonal.
    """
    a, b = distances.prediction_to_truth, distances.truth_to_prediction
    if not len(a) and not len(b):
        return 0.0
    if not len(a) or not len(b):
        return distances.worst_mm
    return float(max(np.percentile(a, 95), np.percentile(b, 95)))


def diagonal_mm(shape: tuple[int, ...], spacing: Spacing3) -> float:
    """Return the diagonal of the image's box in mm."""
    return float(np.linalg.norm(np.multiply(shape, spacing)))


def _border_points(mask: Array, spacing: Spacing3) -> Array:
    """Return the border voxels' positions in mm, `(points, 3)`, from the mask's bounding box.

    An axis of one voxel (a 2D image) has no neighbors and does not make borders.
    """
    box = []
    for axis in range(3):
        filled = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        if not len(filled):
            return np.empty((0, 3))
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
    core = np.pad(mask[tuple(box)], 1)
    inner = np.ones(tuple(n - 2 for n in core.shape), bool)
    for axis in range(3):
        if mask.shape[axis] == 1:
            continue
        for shift in (0, 2):
            place = [slice(1, -1)] * 3
            place[axis] = slice(shift, core.shape[axis] - 2 + shift)
            inner &= core[tuple(place)]
    border = np.argwhere(core[1:-1, 1:-1, 1:-1] & ~inner)
    return (border + [edge.start for edge in box]) * np.asarray(spacing, np.float64)
