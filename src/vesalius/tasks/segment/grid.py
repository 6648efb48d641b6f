# SPDX-License-Identifier: Apache-2.0
"""From the source's grid to the plan's, and back."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from vesalius.errors import DataError
from vesalius.geometry import grid_with_spacing, reorient, resample, same_grid
from vesalius.normalization import Normalizer
from vesalius.types import Array, Json
from vesalius.volume import LabelMap, Volume

_SLAB = 16  # slices of the source that are resampled at once


def to_plan(volume: Volume, decisions: Json, normalizer: Normalizer) -> Volume:
    """Return the image normalized, then on the plan's orientation and spacing, float32.

    Raises:
        DataError: it cannot be normalized, or has another number of channels than the plan's.
    """
    values = normalizer.apply(volume.with_data(_channels(volume, decisions))).data
    oriented = _orient(Volume(values, volume.affine), decisions)
    affine, shape = _plan_grid(oriented, decisions)
    old, new = np.asarray(oriented.spacing), np.linalg.norm(affine[:3, :3], axis=0)
    factor = new / old
    if (factor > 1.5).any():  # low-pass before the grid becomes coarser
        sigma = (0, *np.where(factor > 1.5, 0.4 * factor, 0.0))
        oriented = oriented.with_data(ndimage.gaussian_filter(oriented.data, sigma))
    out = resample(oriented, affine, shape)
    return Volume(np.ascontiguousarray(out.data, dtype=np.float32), affine)


def mask_to_plan(mask: LabelMap, volume: Volume, decisions: Json) -> Array:
    """Return class indices `(i, j, k)` uint8 on the plan's grid; 0 for labels not in the plan.

    Raises:
        DataError: the mask does not lie on the image's grid.
    """
    indexed = class_indices(mask, volume, decisions)
    oriented = _orient(LabelMap(indexed[None], volume.affine), decisions)
    affine, shape = _plan_grid(oriented, decisions)
    out: Array = np.ascontiguousarray(resample(oriented, affine, shape).data[0])
    return out


def class_indices(mask: LabelMap, volume: Volume, decisions: Json) -> Array:
    """Return class indices `(i, j, k)` uint8 on the image's own grid.

    Raises:
        DataError: the mask does not lie on the image's grid.
    """
    if not same_grid(mask.affine, mask.shape, volume.affine, volume.shape, tolerance_mm=0.1):
        raise DataError(
            f"the mask's grid {mask.shape} is not the image's {volume.shape} at the same place"
        )
    out = np.zeros(mask.shape, np.uint8)
    for layer in mask.data:
        for index, value in enumerate(decisions["values"], 1):
            out[layer == value] = index
    return out


def to_source(logits: Array, affine: Array, source: Volume, decisions: Json) -> LabelMap:
    """Return the label map on the source's grid: logits interpolated, then the largest taken.

    Args:
        logits: `(classes, i, j, k)` on the plan's grid.
        affine: of the plan's grid.
        source: the image that was given.
        decisions: of the plan, for the labels' values and names.
    """
    values = np.array([0, *decisions["values"]])
    dtype = np.uint8 if values.max() < 256 else np.int32
    out = np.zeros(source.shape, dtype)
    for start in range(0, source.shape[2], _SLAB):
        stop = min(start + _SLAB, source.shape[2])
        slab = source.affine.copy()
        slab[:3, 3] += slab[:3, 2] * start
        shape = (source.shape[0], source.shape[1], stop - start)
        best = np.full(shape, -np.inf, np.float32)
        for index, channel in enumerate(logits):
            grid = Volume(channel[None], affine)
            here = resample(grid, slab, shape, outside=0.0 if index == 0 else -1e4).data[0]
            wins = here > best
            best[wins] = here[wins]
            out[:, :, start:stop][wins] = values[index]
    names = dict(zip(decisions["values"], decisions["labels"], strict=True))
    return LabelMap(
        out[None],
        source.affine,
        modality="SEG",
        calibrated=source.calibrated,
        source=source.source,
        names=names,
    )


def _orient(volume: Volume, decisions: Json) -> Volume:
    return reorient(volume, "RAS") if decisions["orientation"] == "RAS" else volume


def _plan_grid(volume: Volume, decisions: Json) -> tuple[Array, tuple[int, int, int]]:
    wanted = np.array([*decisions["spacing"], volume.spacing[2]][:3])
    if np.allclose(wanted, volume.spacing, rtol=0.01):
        return volume.affine, volume.shape
    return grid_with_spacing(volume, (float(wanted[0]), float(wanted[1]), float(wanted[2])))


def _channels(volume: Volume, decisions: Json) -> Array:
    wanted = decisions["network"]["in_channels"]
    data, have = volume.data, len(volume.data)
    if have == wanted:
        return data
    if decisions["color"] and have == 1:
        return np.repeat(data, 3, axis=0)
    if decisions["color"] and have > 3:
        return data[:3]
    if volume.is_2d and wanted == 1 and have in (3, 4):  # a gray image stored in color
        gray: Array = data[:3].mean(axis=0, keepdims=True)
        return gray
    raise DataError(f"the image has {have} channels, the plan expects {wanted}")
