# SPDX-License-Identifier: Apache-2.0
"""Grids in the world: compare, reorient, resample. Frame: RAS+ millimeters, axes `(i, j, k)`."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np

from vesalius.errors import UsageError
from vesalius.types import Affine, Array, Shape3, Spacing3
from vesalius.volume import LabelMap, Volume

V = TypeVar("V", bound=Volume)

# 2D images without stated geometry: i runs to the patient's left, j to posterior, as in DICOM.
FLAT_AFFINE: Affine = np.diag([-1.0, -1.0, 1.0, 1.0])
LPS_TO_RAS: Affine = np.diag([-1.0, -1.0, 1.0, 1.0])


def flat_affine(spacing: Spacing3 = (1.0, 1.0, 1.0)) -> Affine:
    """Return the affine of a 2D image whose file states no position."""
    return FLAT_AFFINE @ np.diag([*spacing, 1.0])


def axis_codes(affine: Affine) -> str:
    """Return the letters toward which i, j, k run, for example `RAS` or `LPS`.

    Each axis takes the world axis that it is closest to, without repeating one.
    """
    ornt = _orientation(affine)
    return "".join(("LR", "PA", "IS")[axis][int(sign > 0)] for axis, sign in ornt)


def slice_plane(affine: Affine) -> str:
    """Return the plane of the slices: `axial`, `coronal`, `sagittal`, or `oblique` beyond 20°."""
    normal = affine[:3, 2] / np.linalg.norm(affine[:3, 2])
    if np.abs(normal).max() < np.cos(np.radians(20)):
        return "oblique"
    return {"R": "sagittal", "L": "sagittal", "A": "coronal", "P": "coronal"}.get(
        axis_codes(affine)[2], "axial"
    )


def is_oblique(affine: Affine, *, degrees: float = 0.5) -> bool:
    """Return whether any voxel axis leans off its world axis by more than `degrees`."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    largest = np.abs(directions).max(axis=0)
    return bool((np.degrees(np.arccos(np.clip(largest, -1, 1))) > degrees).any())


def same_grid(
    a_affine: Affine,
    a_shape: Shape3,
    b_affine: Affine,
    b_shape: Shape3,
    *,
    tolerance_mm: float = 1e-2,
) -> bool:
    """Return whether two grids put every voxel within `tolerance_mm` of each other."""
    if tuple(a_shape) != tuple(b_shape):
        return False
    corners = _corners(a_shape)
    return bool(np.abs(corners @ (a_affine - b_affine).T).max() <= tolerance_mm)


def reorient(volume: V, codes: str = "RAS") -> V:
    """Permute and flip axes until they run toward `codes`; no interpolation, world unchanged."""
    want = [("LRPAIS".find(code) // 2, 1 if code in "RAS" else -1) for code in codes]
    if sorted(axis for axis, _ in want) != [0, 1, 2]:
        raise UsageError(f"codes must name each world axis once, for example 'RAS', got {codes!r}")
    have = _orientation(volume.affine)
    order = [next(n for n, (axis, _) in enumerate(have) if axis == wanted) for wanted, _ in want]
    data = volume.data.transpose(0, *(n + 1 for n in order))
    affine = volume.affine[:, [*order, 3]].copy()
    for axis, n in enumerate(order):
        if have[n][1] != want[axis][1]:
            data = np.flip(data, axis + 1)
            affine[:, 3] += affine[:, axis] * (data.shape[axis + 1] - 1)
            affine[:, axis] *= -1
    return replace(volume, data=data, affine=affine)


def resample(
    volume: V, affine: Affine, shape: Shape3, *, order: int = 1, outside: float = 0.0
) -> V:
    """Sample `volume` on another grid.

    `order` is that of the spline (0 nearest, 1 linear, 3 cubic); a LabelMap is always sampled
    with order 0. Order 0 keeps the dtype, others give float32. Voxels of the new grid whose center
    lies outside the old one's box (half a voxel beyond its outer centers) become `outside`.
    """
    from scipy import ndimage  # late: those who only compare grids do without

    if isinstance(volume, LabelMap):
        order = 0
    mapping = np.linalg.inv(volume.affine) @ affine
    if same_grid(volume.affine, volume.shape, affine, shape, tolerance_mm=1e-6):
        return volume
    if order not in (0, 1, 2, 3):
        raise UsageError(f"order must be 0 (nearest), 1 (linear), 2 or 3 (cubic), got {order!r}")
    source = volume.data
    if source.dtype == np.float16:
        source = source.astype(np.float32)
    # A single slice has no neighbor along k: its value holds across half a slice either way.
    dtype = np.dtype(np.float32) if order else source.dtype
    out = np.empty((len(source), *shape), dtype)
    inside = _inside(mapping, shape, volume.shape) if order else None
    for channel, values in enumerate(source):
        ndimage.affine_transform(
            values,
            mapping[:3, :3],
            mapping[:3, 3],
            output_shape=shape,
            output=out[channel],
            order=order,
            mode="nearest" if order else "grid-constant",
            cval=outside,
        )
        if inside is not None:
            out[channel][~inside] = outside
    return replace(volume, data=out, affine=np.asarray(affine, dtype=np.float64))


def grid_with_spacing(volume: Volume, spacing: Spacing3) -> tuple[Affine, Shape3]:
    """Return `(affine, shape)` of the grid that covers the same box with nearly that spacing.

    The box is kept exactly, so the spacing is adjusted to a whole number of voxels.
    """
    old = np.asarray(volume.spacing)
    new = np.asarray(spacing, dtype=np.float64)
    if new.shape != (3,) or not np.isfinite(new).all() or new.min() <= 0:
        raise UsageError(f"spacing must be three positive millimeters, got {spacing}")
    extent = np.asarray(volume.shape) * old
    shape = np.maximum(1, np.round(extent / new)).astype(int)
    new = extent / shape  # keep the box exactly
    affine = volume.affine.copy()
    affine[:3, :3] = volume.affine[:3, :3] / old * new
    # The first voxel's outer corner stays where it was.
    affine[:3, 3] += affine[:3, :3] @ np.full(3, 0.5) - volume.affine[:3, :3] @ np.full(3, 0.5)
    return affine, (int(shape[0]), int(shape[1]), int(shape[2]))


def _inside(mapping: Affine, shape: Shape3, source_shape: Shape3) -> Array:
    """Return which voxels of the new grid fall into the old one's box (half a voxel margin)."""
    inside = np.ones(shape, bool)
    axes = [
        np.arange(n, dtype=np.float32).reshape([-1 if m == a else 1 for m in range(3)])
        for a, n in enumerate(shape)
    ]
    for row in range(3):
        position = sum(mapping[row, a] * axes[a] for a in range(3)) + mapping[row, 3]
        inside &= (position >= -0.5 - 1e-4) & (position <= source_shape[row] - 0.5 + 1e-4)
    return inside


def _corners(shape: Shape3) -> Array:
    ends = np.array(np.meshgrid(*[(0, max(0, n - 1)) for n in shape])).reshape(3, -1).T
    return np.column_stack([ends, np.ones(len(ends))])


def _orientation(affine: Affine) -> list[tuple[int, int]]:
    """Return `(world axis, sign)` for each voxel axis, by the best one-to-one assignment."""
    from scipy.optimize import linear_sum_assignment

    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    columns, rows = linear_sum_assignment(-np.abs(directions.T))
    return [(int(rows[n]), 1 if directions[rows[n], columns[n]] > 0 else -1) for n in range(3)]
