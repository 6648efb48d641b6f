# SPDX-License-Identifier: Apache-2.0
"""Pyramid: an image smoothed and resampled to a coarser, nearly cubic grid, values as bins.

Values are put on 0 .. bins - 1 by a mixture of the linear scale and the rank within the
foreground, so that neither one bright implant nor one broad tissue takes all bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from vesalius.errors import NormalizationRefused
from vesalius.geometry import grid_with_spacing, resample
from vesalius.types import Affine, Array
from vesalius.volume import Volume

BINS = 24  # of the histograms
THINNEST = 4  # voxels along each axis that a registration in space needs
_KNOTS = 65
_SAMPLE = 1_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """One image at one resolution.

    Attributes:
        values: `(i, j, k)` float32, 0 .. BINS - 1.
        foreground: `(i, j, k)` Boolean.
        affine: voxel -> world, RAS mm, axes orthogonal.
    """

    values: Array
    foreground: Array
    affine: Affine

    @property
    def spacing_mm(self) -> Array:
        """Millimeters between voxels along `(i, j, k)`."""
        spacing: Array = np.linalg.norm(self.affine[:3, :3], axis=0)
        return spacing

    @property
    def mean_spacing_mm(self) -> float:
        """Edge of the cube with a voxel's volume."""
        return float(np.cbrt(np.prod(self.spacing_mm)))

    @property
    def volume_mm3(self) -> float:
        """Volume of the foreground."""
        return float(self.foreground.sum() * np.prod(self.spacing_mm))

    @property
    def center(self) -> Array:
        """Center of the foreground in the world, RAS mm, `(3,)`."""
        counts = [self.foreground.sum(axis=others) for others in ((1, 2), (0, 2), (0, 1))]
        middle = np.array([np.average(np.arange(len(c)), weights=c) for c in counts])
        center: Array = self.affine[:3, :3] @ middle + self.affine[:3, 3]
        return center

    def surroundings(self) -> Array:
        """Return the foreground and two voxels around it: the skin tells most."""
        near: Array = ndimage.binary_dilation(self.foreground, iterations=2)
        return near


def base_level(volume: Volume) -> Level:
    """Return an image at its own resolution: channels averaged, sheared axes straightened.

    Raises:
        NormalizationRefused: `empty`, `too-thin` (a 2D image among others), `non-finite` or
            `constant`.
    """
    if 0 in volume.data.shape:
        raise NormalizationRefused("empty", f"the image is empty: shape {volume.data.shape}")
    if min(volume.shape) < THINNEST:
        raise NormalizationRefused(
            "too-thin",
            f"registration in space needs at least {THINNEST} voxels along each axis, got "
            f"{'x'.join(map(str, volume.shape))}; a single slice has no place in depth to find",
        )
    values = volume.data.mean(axis=0, dtype=np.float32)
    if not np.isfinite(values).all():
        count = int(np.count_nonzero(~np.isfinite(values)))
        raise NormalizationRefused(
            "non-finite", f"{count} of {values.size} values are not finite; mend them first"
        )
    if np.ptp(values) == 0:
        raise NormalizationRefused("constant", f"all values are {values.flat[0]:g}")
    plain = Volume(values[None], volume.affine)
    if _sheared(volume.affine):
        plain = resample(plain, *_straight_grid(plain), outside=float(values.min()))
    foreground = foreground_of(plain.data[0])
    return Level(to_bins(plain.data[0], foreground), foreground, plain.affine)


def coarser(level: Level, spacing_mm: float) -> Level:
    """Return the level with spacing of at least about `spacing_mm` along each axis."""
    wanted = np.maximum(level.spacing_mm, spacing_mm)
    if (wanted < level.spacing_mm * 1.2).all():
        return level
    # Half the new spacing as the width of the Gaussian, less the blur that the voxel already is.
    sigma = 0.5 * np.sqrt(np.maximum(0, (wanted / level.spacing_mm) ** 2 - 1))
    smooth = Volume(
        ndimage.gaussian_filter(level.values, sigma, mode="nearest")[None], level.affine
    )
    inside = Volume(
        ndimage.gaussian_filter(level.foreground.astype(np.float32), sigma, mode="nearest")[None],
        level.affine,
    )
    i, j, k = (float(n) for n in wanted)
    affine, shape = grid_with_spacing(smooth, (i, j, k))
    return Level(
        resample(smooth, affine, shape).data[0],
        resample(inside, affine, shape).data[0] >= 0.5,
        affine,
    )


def foreground_of(values: Array) -> Array:
    """Return which values lie above the dark tenth of the robust range, as Booleans.

    It is the same rule for every modality, so that two images show the same silhouette.
    """
    low, high = np.percentile(_sample(values), (0.5, 99.5))
    mask: Array = values > low + 0.1 * (high - low)
    return mask if mask.mean() >= 0.01 else values > values.min()


def to_bins(values: Array, foreground: Array) -> Array:
    """Return values as float32 in 0 .. BINS - 1: half linear, half rank within the foreground."""
    inside = _sample(values[foreground])
    low, high = np.percentile(inside, (0.5, 99.5))
    low = min(low, float(np.percentile(_sample(values), 0.5)))
    if high <= low:
        low, high = float(values.min()), float(values.max())
    knots = np.quantile(inside, np.linspace(0.005, 0.995, _KNOTS))
    clipped = np.clip(values, low, high)
    rank = np.interp(clipped, knots, np.linspace(0, 1, _KNOTS))
    mixed: Array = (0.5 * (clipped - low) / (high - low) + 0.5 * rank) * (BINS - 1)
    return mixed.astype(np.float32)


def _sample(values: Array) -> Array:
    """Return at most about a million values, evenly from the whole."""
    flat = values.reshape(-1)
    return flat[:: max(1, -(-flat.size // _SAMPLE))]


def _sheared(affine: Affine) -> bool:
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > 1e-4)


def _straight_grid(volume: Volume) -> tuple[Affine, tuple[int, int, int]]:
    """Return the grid along the world's axes that covers a sheared volume's box."""
    size = np.array(volume.shape)
    ends = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in size])).reshape(3, -1)
    world = volume.affine[:3, :3] @ ends + volume.affine[:3, 3:]
    spacing = np.full(3, min(volume.spacing))
    low, high = world.min(axis=1), world.max(axis=1)
    i, j, k = (int(n) for n in np.ceil((high - low) / spacing))
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = low + spacing / 2
    return affine, (i, j, k)
