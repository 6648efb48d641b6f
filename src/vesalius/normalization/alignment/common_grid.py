# SPDX-License-Identifier: Apache-2.0
"""Common grid: several images of one patient, voxel on voxel, each with its saved transform.

    y(v) = x(B⁻¹ M G v)

v a voxel of the grid with affine G, M the map from the grid's world to the image's (see
`registration`), B the image's affine. Where the grid is coarser than the image, the image is first
smoothed by a Gaussian of half the new spacing, as its voxels would have averaged (a label map is
not). Declared laws: an image on its own grid is returned as it is; where the grid is a permutation
of the image's axes, values are copied exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from vesalius.errors import UsageError
from vesalius.geometry import grid_with_spacing, resample
from vesalius.normalization.alignment.registration import register
from vesalius.normalization.alignment.transform import Transform
from vesalius.types import Affine, Array, Shape3, Spacing3
from vesalius.volume import LabelMap, Volume

V = TypeVar("V", bound=Volume)
_SAME = 1e-3  # voxels


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Voxels in the world of the image to which others are brought.

    Attributes:
        affine: `(4, 4)`, voxel -> RAS mm.
        shape: voxels along `(i, j, k)`.
    """

    affine: Affine
    shape: Shape3

    @classmethod
    def of(cls, volume: Volume, spacing: Spacing3 | float | None = None) -> Grid:
        """Return the grid of an image, or that of the same box with about another spacing (mm).

        Raises:
            UsageError: `spacing` is not one or three positive millimeters.
        """
        if spacing is None:
            return cls(volume.affine, volume.shape)
        three = (spacing,) * 3 if isinstance(spacing, int | float) else tuple(spacing)
        if len(three) != 3:
            raise UsageError(f"spacing must be one or three millimeters, got {spacing}")
        return cls(*grid_with_spacing(volume, three))

    @property
    def spacing(self) -> Spacing3:
        """Millimeters between voxels along `(i, j, k)`."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(i), float(j), float(k)


@dataclass(frozen=True, slots=True, eq=False)
class Aligned:
    """An image on the common grid, and the map from the grid's world to the image's own."""

    volume: Volume
    transform: Transform


def align(
    fixed: Volume,
    moving: Volume,
    *,
    spacing: Spacing3 | float | None = None,
    kind: str = "rigid",
    trust_frame: bool = True,
    seed: int = 0,
) -> Aligned:
    """Register `moving` to `fixed` and return it on `fixed`'s grid, or that with `spacing` (mm).

    Arguments and errors are those of `registration.register` and `Grid.of`.
    """
    grid = Grid.of(fixed, spacing)
    transform = register(fixed, moving, kind=kind, trust_frame=trust_frame, seed=seed)
    return Aligned(onto(moving, grid, transform), transform)


def onto(
    volume: V,
    grid: Grid,
    transform: Transform | None = None,
    *,
    order: int = 1,
    outside: float | None = None,
) -> V:
    """Return an image or label map on a grid.

    Args:
        volume: what is brought there.
        grid: where to.
        transform: from the grid's world to the volume's; by default they are the same.
        order: of the spline: 0 nearest, 1 linear, 3 cubic; labels are always nearest.
        outside: value where the volume says nothing; by default its smallest one, of labels 0.

    Returns:
        float32; the dtype of the volume for order 0 and where values were copied exactly.
    """
    matrix = np.eye(4) if transform is None else transform.matrix
    placed = replace(volume, affine=np.linalg.inv(matrix) @ volume.affine)
    exact = _permuted(placed, grid)
    if exact is not None:
        return replace(volume, data=exact, affine=grid.affine)
    labels = isinstance(volume, LabelMap)
    if outside is None:
        outside = 0.0 if labels else float(volume.data.min())
    if order and not labels:
        placed = _smoothed(placed, grid)
    return resample(placed, grid.affine, grid.shape, order=order, outside=outside)


def _permuted(volume: Volume, grid: Grid) -> Array | None:
    """Return the data with axes reordered and flipped, where that alone leads to the grid."""
    mapping = np.linalg.inv(volume.affine) @ grid.affine
    whole = np.rint(mapping[:3, :3])
    if not all((np.abs(whole).sum(axis=axis) == 1).all() for axis in (0, 1)):
        return None
    axes = [int(np.argmax(np.abs(whole[:, n]))) for n in range(3)]  # of the volume, for each new
    data = volume.data.transpose(0, *(axis + 1 for axis in axes))
    if data.shape[1:] != tuple(grid.shape):
        return None
    exact = np.eye(4)
    exact[:3, :3] = whole
    exact[:3, 3] = np.maximum(0, -whole) @ (np.array(grid.shape) - 1)
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in grid.shape])).reshape(3, -1)
    if np.abs((mapping - exact) @ np.vstack([corners, np.ones(8)])).max() > _SAME:
        return None
    flipped = tuple(n + 1 for n in range(3) if whole[axes[n], n] < 0)
    return np.ascontiguousarray(np.flip(data, flipped))


def _smoothed(volume: V, grid: Grid) -> V:
    """Return the volume blurred to what voxels of the grid's spacing would hold, float32."""
    from scipy import ndimage

    steps = np.linalg.inv(volume.affine)[:3, :3] @ grid.affine[:3, :3]
    ratio = np.abs(steps).max(axis=1)  # old voxels per new one, along each old axis
    sigma = np.where(ratio > 1.2, 0.5 * np.sqrt(np.maximum(0, ratio**2 - 1)), 0)
    if not sigma.any():
        return volume
    data = volume.data.astype(np.float32)
    for channel in data:
        ndimage.gaussian_filter(channel, sigma, mode="nearest", output=channel)
    return replace(volume, data=data)
