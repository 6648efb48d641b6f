# SPDX-License-Identifier: Apache-2.0
"""An image becomes views of one size for the network: itself, its slices, or the whole volume."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from vesalius.geometry import reorient
from vesalius.normalization import Normalizer
from vesalius.tasks.classify.slices import depth_axis, places_of_slices
from vesalius.types import Array, Json
from vesalius.volume import Volume


def make_views(volume: Volume, decisions: Json, normalizer: Normalizer) -> Array:
    """Return the views of one image, `(n, C, size, size[, size])` float16.

    A 2D image gives one view; a volume some slices of each channel (see `slices`), or itself as a
    whole where the plan says 3D. The longest side is scaled to the plan's size, proportions in
    millimeters are kept, the rest is padded with the darkest value.

    Raises:
        DataError: the image is empty, constant or not finite.
    """
    shape = decisions["input"]
    size = shape["size"]
    color = volume.is_2d and len(volume.data) >= 3
    if color:
        volume = volume.with_data(volume.data[:3])
    data = normalizer.apply(volume).data
    spacing = np.asarray(volume.spacing if volume.calibrated else (1.0, 1.0, 1.0))
    if shape["spatial_dims"] == 3:
        fitted = [_fit(channel[None], spacing, size) for channel in data]
        return np.stack(fitted).astype(np.float16)
    if volume.is_2d:
        images = data[None, ..., 0] if color else data[:, None, :, :, 0]  # (n, C, i, j)
        plane = spacing[:2]
    else:
        images, plane = _slices(volume.with_data(data), shape["slices"])
    fitted = [_fit(image, plane, size) for image in images]
    return np.stack([_channels(view, shape["channels"]) for view in fitted]).astype(np.float16)


def _slices(volume: Volume, count: int) -> tuple[Array, Array]:
    """Return `(n, 1, i, j)` slices and their in-plane spacing."""
    if volume.calibrated:
        volume = reorient(volume, "LPS")
    spacing = np.asarray(volume.spacing)
    axis = depth_axis(spacing, calibrated=volume.calibrated)
    chosen = places_of_slices(volume.data, axis, count)
    slices = np.moveaxis(volume.data, axis + 1, 1)[:, chosen]  # (c, n, i, j)
    return slices.reshape(-1, 1, *slices.shape[2:]), np.delete(spacing, axis)


def _fit(image: Array, spacing: Array, size: int) -> Array:
    """Scale `(C, ...)` to `size` along its longest side and pad the others, centered."""
    extent = np.array(image.shape[1:]) * spacing
    shape = np.maximum(1, np.round(extent / extent.max() * size)).astype(int)
    tensor = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None]
    if tuple(shape) != image.shape[1:]:
        if len(shape) == 2:
            tensor = functional.interpolate(
                tensor, tuple(shape), mode="bilinear", antialias=True, align_corners=False
            )
        else:
            tensor = functional.interpolate(
                tensor, tuple(shape), mode="trilinear", align_corners=False
            )
    out = np.full((len(image), *[size] * len(shape)), float(tensor.min()), np.float32)
    start = (size - shape) // 2
    place = tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))
    out[(slice(None), *place)] = tensor[0].numpy()
    return out


def _channels(view: Array, wanted: int) -> Array:
    if len(view) == wanted:
        return view
    gray = view.mean(axis=0, keepdims=True)
    return np.repeat(gray, wanted, axis=0)
