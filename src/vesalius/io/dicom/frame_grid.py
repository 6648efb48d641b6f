# SPDX-License-Identifier: Apache-2.0
"""The regular grid on which the frames of one multi-frame object lie, gaps included.

Frames state their positions in LPS+ millimeters; the grid comes out in RAS+. Frames that hold
nothing may have been omitted, so a missing slice is no defect here: the step is that of the
reference image, of SpacingBetweenSlices, or the smallest one seen, the first that fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vesalius.errors import GeometryError
from vesalius.geometry import LPS_TO_RAS, flat_affine
from vesalius.io.dicom.header import Header
from vesalius.io.dicom.placement import normal_of
from vesalius.io.dicom.slices import Slice
from vesalius.types import Affine, Array, Shape3
from vesalius.volume import Volume

_SAME_COSINES = 1e-3
_OFF_GRID = 0.05  # of a step (or a pixel, in the plane), the most that a frame may lie off
_ROUNDING_MM = 0.02
_MOST_SLICES = 100_000


@dataclass(frozen=True, slots=True, eq=False)
class FrameGrid:
    """Where frames lie: `index[n]` is the slice along k of frame n on a grid of `shape`."""

    affine: Affine
    shape: Shape3
    index: tuple[int, ...]
    calibrated: bool


def frame_grid(
    slices: Sequence[Slice], header: Header, *, path: str, reference: Volume | None = None
) -> FrameGrid:
    """Return the grid of `slices`, the frames of one object.

    Raises:
        GeometryError: mixed orientations, a lean of the stack, or positions on no even grid.
    """
    rows, columns = int(header.rows or 0), int(header.columns or 0)
    first = slices[0]
    spacing = first.pixel_spacing or (1.0, 1.0)
    if first.position is None or first.orientation is None:
        return _flat(slices, (columns, rows, 1), spacing, path)
    for s in slices:
        if (
            s.position is None
            or s.orientation is None
            or np.abs(np.subtract(s.orientation, first.orientation)).max() > _SAME_COSINES
            or s.pixel_spacing != first.pixel_spacing
        ):
            raise GeometryError("frames differ in orientation or spacing", path=path)
    normal = normal_of(first.orientation)
    positions = np.array([s.position for s in slices], np.float64)
    relative = positions - positions[0]
    offsets = relative @ normal
    lean = np.linalg.norm(relative - np.outer(offsets, normal), axis=1).max()
    if lean > max(_OFF_GRID * min(spacing), _ROUNDING_MM):
        raise GeometryError(
            f"frames are shifted by up to {lean:.3g} mm within their plane: the stack leans "
            "(gantry tilt) or holds parts side by side; resample its source first",
            path=path,
            shift_mm=float(lean),
        )
    step, index = _step(offsets, first, normal, reference, path)
    row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    affine = np.eye(4)
    affine[:3, 0] = row * spacing[1]
    affine[:3, 1] = column * spacing[0]
    affine[:3, 2] = normal * step
    affine[:3, 3] = positions[int(np.argmin(offsets))]
    return FrameGrid(
        LPS_TO_RAS @ affine,
        (columns, rows, int(index.max()) + 1),
        tuple(int(k) for k in index),
        first.pixel_spacing is not None,
    )


def _flat(slices: Sequence[Slice], shape: Shape3, spacing: Sequence[float], path: str) -> FrameGrid:
    if len({s.position for s in slices}) > 1:
        raise GeometryError("only some frames state a position", path=path)
    affine = flat_affine((spacing[1], spacing[0], 1.0))
    return FrameGrid(affine, shape, (0,) * len(slices), slices[0].pixel_spacing is not None)


def _step(
    offsets: Array, first: Slice, normal: Array, reference: Volume | None, path: str
) -> tuple[float, Array]:
    """Return the step in mm and each frame's index along the normal, counted from the lowest."""
    sorted_offsets = offsets - offsets.min()
    apart = np.diff(np.unique(np.round(sorted_offsets, 3)))
    apart = apart[apart > 1e-3]
    candidates = []
    if reference is not None:
        along = np.abs((LPS_TO_RAS[:3, :3] @ normal) @ reference.affine[:3, :3])
        candidates.append(float(along[int(np.argmax(along / np.linalg.norm(
            reference.affine[:3, :3], axis=0)))]))  # fmt: skip
    if first.spacing_between:
        candidates.append(abs(first.spacing_between))
    if len(apart):
        candidates.append(float(np.median(apart[apart <= 1.2 * apart.min() + 2e-3])))
    elif first.thickness:
        candidates.append(first.thickness)
    for step in candidates or [1.0]:
        index = np.rint(sorted_offsets / step)
        off = np.abs(sorted_offsets - index * step).max()
        if off <= max(_OFF_GRID * step, _ROUNDING_MM) and _distinct(index, sorted_offsets):
            if index.max() >= _MOST_SLICES:
                raise GeometryError(
                    f"frames lie {sorted_offsets.max():.6g} mm apart with a step of {step:.3g} mm",
                    path=path,
                )
            fitted = float(index @ sorted_offsets / (index @ index)) if index.any() else step
            return fitted, index.astype(int)
    raise GeometryError(
        f"frames lie on no even grid: distances from {apart.min():.4g} to {apart.max():.4g} mm",
        path=path,
        smallest_mm=float(apart.min()),
        largest_mm=float(apart.max()),
    )


def _distinct(index: Array, offsets: Array) -> bool:
    """Return whether frames at different positions have different indices."""
    pairs = np.unique(np.column_stack([index, np.round(offsets, 2)]), axis=0)
    spread = np.abs(np.diff(pairs[:, 1]))
    same = np.diff(pairs[:, 0]) == 0
    return not bool((same & (spread > 2 * _ROUNDING_MM)).any())


def signed_permutation(
    mapping: Affine, *, tolerance: float = _OFF_GRID
) -> tuple[Array, Array, Array] | None:
    """Return `(axes, signs, offset)` when an index mapping only permutes, flips and shifts.

    `target[axes[n]] = signs[n] * source[n] + …`: source axis n runs along target axis `axes[n]`;
    `offset` is the target index of the source's first voxel. None where axes are turned, scaled or
    shifted by a part of a voxel.
    """
    linear = mapping[:3, :3]
    rounded = np.rint(linear)
    if np.abs(linear - rounded).max() > 1e-3 or np.abs(np.linalg.det(rounded)) != 1:
        return None
    if (np.abs(rounded).sum(axis=0) != 1).any():
        return None
    offset = np.rint(mapping[:3, 3])
    if np.abs(mapping[:3, 3] - offset).max() > tolerance:
        return None
    axes = np.abs(rounded).argmax(axis=0)
    signs = np.array([rounded[axes[n], n] for n in range(3)], int)
    return axes, signs, offset.astype(int)
