# SPDX-License-Identifier: Apache-2.0
"""An image becomes views of one size for the network: itself, its slices, or the whole volume."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vesalius.geometry import axis_codes, reorient
from vesalius.normalization import Normalizer
from vesalius.tasks.slices import depth_axis, places_of_slices
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


def resize(views: Tensor, size: int) -> Tensor:
    """Return `(M, C, ...)` with every spatial side of `size`."""
    if all(side == size for side in views.shape[2:]):
        return views
    if views.ndim == 5:
        return functional.interpolate(views, (size,) * 3, mode="trilinear", align_corners=False)
    return functional.interpolate(
        views, (size, size), mode="bicubic", align_corners=False, antialias=size < views.shape[-1]
    )


def on_image(heat: Array, volume: Volume, decisions: Json, normalizer: Normalizer) -> Array:
    """Return what was found on the views of an image as `(i, j, k)` on the image's own grid.

    Channels of one place are averaged; of a volume, a slice that was not shown takes what was
    found on the nearest one that was.

    Args:
        heat: `(n, size, size)`, of the views that `make_views` gives for a plan in 2D.
        volume: the image.
        decisions: of the plan.
        normalizer: in front of the views.
    """
    if volume.is_2d:
        spacing = np.asarray(volume.spacing if volume.calibrated else (1.0, 1.0, 1.0))[:2]
        return _unfit(heat.mean(axis=0), volume.shape[:2], spacing)[..., None]
    normal = normalizer.apply(volume)
    turned = reorient(normal, "LPS") if volume.calibrated else normal
    axis, chosen = _chosen(turned, decisions["input"]["slices"])
    plane = np.delete(np.asarray(turned.spacing), axis)
    shape = tuple(int(n) for n in np.delete(turned.shape, axis))
    by_slice = heat.reshape(-1, len(chosen), *heat.shape[1:]).mean(axis=0)
    shown = np.stack([_unfit(one, shape, plane) for one in by_slice])
    nearest = np.abs(np.arange(turned.shape[axis])[:, None] - chosen).argmin(axis=1)
    whole = np.moveaxis(shown[nearest], 0, axis)
    found = replace(turned, data=np.ascontiguousarray(whole)[None], channels=())
    return np.asarray(reorient(found, axis_codes(volume.affine)).data[0])


def _chosen(volume: Volume, count: int) -> tuple[int, Array]:
    """Return the axis that slices lie across, and those that are shown."""
    axis = depth_axis(np.asarray(volume.spacing), calibrated=volume.calibrated)
    return axis, places_of_slices(volume.data, axis, count)


def _slices(volume: Volume, count: int) -> tuple[Array, Array]:
    """Return `(n, 1, i, j)` slices and their in-plane spacing."""
    if volume.calibrated:
        volume = reorient(volume, "LPS")
    axis, chosen = _chosen(volume, count)
    slices = np.moveaxis(volume.data, axis + 1, 1)[:, chosen]  # (c, n, i, j)
    return slices.reshape(-1, 1, *slices.shape[2:]), np.delete(np.asarray(volume.spacing), axis)


def _fit(image: Array, spacing: Array, size: int) -> Array:
    """Scale `(C, ...)` to `size` along its longest side and pad the others, centered."""
    shape, place = _frame(image.shape[1:], spacing, size)
    tensor = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None]
    if shape != image.shape[1:]:
        if len(shape) == 2:
            tensor = functional.interpolate(
                tensor, shape, mode="bilinear", antialias=True, align_corners=False
            )
        else:
            tensor = functional.interpolate(tensor, shape, mode="trilinear", align_corners=False)
    out = np.full((len(image), *[size] * len(shape)), float(tensor.min()), np.float32)
    out[(slice(None), *place)] = tensor[0].numpy()
    return out


def _unfit(heat: Array, shape: tuple[int, ...], spacing: Array) -> Array:
    """Return `(size, size)` of a view as `(i, j)` of the slice that `_fit` made it from."""
    _, place = _frame(shape, spacing, len(heat))
    inner = torch.from_numpy(np.ascontiguousarray(heat[place], dtype=np.float32))[None, None]
    found = functional.interpolate(inner, shape, mode="bilinear", align_corners=False)
    return np.asarray(found[0, 0].numpy())


def _frame(
    shape: tuple[int, ...], spacing: Array, size: int
) -> tuple[tuple[int, ...], tuple[slice, ...]]:
    """Return the shape that an image is scaled to, and where it lies in its view."""
    extent = np.array(shape) * spacing
    scaled = np.maximum(1, np.round(extent / extent.max() * size)).astype(int)
    start = (size - scaled) // 2
    place = tuple(slice(int(a), int(a + n)) for a, n in zip(start, scaled, strict=True))
    return tuple(int(n) for n in scaled), place


def _channels(view: Array, wanted: int) -> Array:
    if len(view) == wanted:
        return view
    gray = view.mean(axis=0, keepdims=True)
    return np.repeat(gray, wanted, axis=0)
