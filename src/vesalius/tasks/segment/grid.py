# SPDX-License-Identifier: Apache-2.0
"""From the source's grid to the plan's, and back."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from scipy import ndimage

from vesalius.errors import DataError
from vesalius.geometry import grid_with_spacing, reorient, resample, same_grid
from vesalius.normalization import Normalizer
from vesalius.tasks.segment.channels import given_channels, missing_channels
from vesalius.tasks.segment.structures import Structures
from vesalius.types import Array, Json, Shape3
from vesalius.volume import LabelMap, Volume

V = TypeVar("V", bound=Volume)


def to_plan(volume: Volume, decisions: Json, normalizer: Normalizer) -> Volume:
    """Return the image normalized, then on the plan's orientation and spacing, float32.

    Raises:
        DataError: it cannot be normalized, or has another number of channels than the plan's.
    """
    given = given_channels(volume, decisions)
    missing = missing_channels(given, decisions)
    if missing:
        given = given.copy()
        given[missing] = 0
    values = normalizer.apply(volume.with_data(given)).data
    values[missing] = 0
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
    """Return codes `(i, j, k)` on the plan's grid (see `structures`); 0 for labels not in the plan.

    Raises:
        DataError: the mask does not lie on the image's grid, or structures overlap that must not.
    """
    codes = mask_codes(mask, volume, Structures.of(decisions))
    oriented = _orient(LabelMap(codes[None], volume.affine), decisions)
    affine, shape = _plan_grid(oriented, decisions)
    out: Array = np.ascontiguousarray(resample(oriented, affine, shape).data[0])
    return out


def mask_codes(mask: LabelMap, volume: Volume, structures: Structures) -> Array:
    """Return codes `(i, j, k)` on the image's own grid.

    Raises:
        DataError: the mask does not lie on the image's grid, or structures overlap that must not.
    """
    refuse_off_grid(mask, volume)
    return structures.encode(mask)


def refuse_off_grid(mask: LabelMap, volume: Volume) -> None:
    """Raise where a mask does not lie on its image's grid.

    Raises:
        DataError: says the two shapes.
    """
    if not same_grid(mask.affine, mask.shape, volume.affine, volume.shape, tolerance_mm=0.1):
        raise DataError(
            f"the mask's grid {mask.shape} is not the image's {volume.shape} at the same place"
        )


def plan_shape(volume: Volume, decisions: Json) -> Shape3:
    """Return the shape of the image on the plan's grid, without going there."""
    return _plan_grid(_orient(volume, decisions), decisions)[1]


def empty_labels(source: Volume, decisions: Json) -> tuple[LabelMap, Array]:
    """Return a label map of zeros on the source's grid, and its voxels along the plan's axes.

    The second `(layer, i, j, k)` is a view of the first: what is written there stands in the map.
    It divides the same box as the plan's grid, which is made from the source's. There is one layer,
    or one a structure where structures may overlap.
    """
    values, structures = decisions["values"], Structures.of(decisions)
    dtype = np.uint8 if max(values) < 256 else np.int32
    labels = LabelMap(
        np.zeros((structures.layers, *source.shape), dtype),
        source.affine,
        modality="SEG",
        calibrated=source.calibrated,
        source=source.source,
        names=dict(zip(values, decisions["labels"], strict=True)),
    )
    return labels, _orient(labels, decisions).data


def _orient(volume: V, decisions: Json) -> V:
    return reorient(volume, "RAS") if decisions["orientation"] == "RAS" else volume


def _plan_grid(volume: Volume, decisions: Json) -> tuple[Array, Shape3]:
    wanted = np.array([*decisions["spacing"], volume.spacing[2]][:3])
    if np.allclose(wanted, volume.spacing, rtol=0.01):
        return volume.affine, volume.shape
    return grid_with_spacing(volume, (float(wanted[0]), float(wanted[1]), float(wanted[2])))
