# SPDX-License-Identifier: Apache-2.0
"""From the source's grid to the plan's, and back."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from scipy import ndimage

from vesalius.errors import DataError
from vesalius.geometry import grid_with_spacing, reorient, resample, same_grid
from vesalius.normalization import Normalizer
from vesalius.types import Array, Json, Shape3
from vesalius.volume import LabelMap, Volume

V = TypeVar("V", bound=Volume)


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


def plan_shape(volume: Volume, decisions: Json) -> Shape3:
    """Return the shape of the image on the plan's grid, without going there."""
    return _plan_grid(_orient(volume, decisions), decisions)[1]


def empty_labels(source: Volume, decisions: Json) -> tuple[LabelMap, Array]:
    """Return a label map of zeros on the source's grid, and its voxels along the plan's axes.

    The second `(i, j, k)` is a view of the first: what is written there stands in the map. It
    divides the same box as the plan's grid, which is made from the source's.
    """
    values = decisions["values"]
    dtype = np.uint8 if max(values) < 256 else np.int32
    labels = LabelMap(
        np.zeros((1, *source.shape), dtype),
        source.affine,
        modality="SEG",
        calibrated=source.calibrated,
        source=source.source,
        names=dict(zip(values, decisions["labels"], strict=True)),
    )
    return labels, _orient(labels, decisions).data[0]


def _orient(volume: V, decisions: Json) -> V:
    return reorient(volume, "RAS") if decisions["orientation"] == "RAS" else volume


def _plan_grid(volume: Volume, decisions: Json) -> tuple[Array, Shape3]:
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
