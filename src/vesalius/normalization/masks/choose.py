# SPDX-License-Identifier: Apache-2.0
"""Which rule finds an image's fitting mask: by modality, and by content where none is stated.

| modality | rule |
|---|---|
| CT in HU (stated, or values that only HU have) | `air.air_free` |
| CR, DX, MG, RF, XA, IO, PX | `collimation.exposed_field` |
| US, IVUS | `sector.probe_field` |
| SM, GM; color pictures with bare glass and no dark corner | `tissue.tissue` |
| XC, OP, ES, DMS; every other color picture | `corners.lit_field` |
| every other: MR, PT, gray pictures | `background.foreground` |

Where a rule finds nothing to exclude, nothing to keep (CT of lung alone), or one single value, the
mask is the `whole` image. Values that are not finite are outside every mask.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from vesalius.errors import NormalizationRefused, UsageError
from vesalius.geometry import same_grid
from vesalius.normalization.masks import mask as masks
from vesalius.normalization.masks.air import air_free, looks_hounsfield
from vesalius.normalization.masks.background import foreground
from vesalius.normalization.masks.collimation import exposed_field
from vesalius.normalization.masks.corners import lit_field
from vesalius.normalization.masks.grid import Grid
from vesalius.normalization.masks.mask import Mask
from vesalius.normalization.masks.sector import probe_field
from vesalius.normalization.masks.tissue import full_scale, looks_stained, tissue
from vesalius.types import Array
from vesalius.volume import LabelMap, Volume

_XRAY = frozenset({"CR", "DX", "MG", "RF", "XA", "IO", "PX"})
_ULTRASOUND = frozenset({"US", "IVUS"})
_SLIDE = frozenset({"SM", "GM"})
_PHOTOGRAPH = frozenset({"XC", "OP", "ES", "DMS"})
_RGB = ("red", "green", "blue")


def fitting_mask(volume: Volume, *, given: LabelMap | Array | None = None) -> Mask:
    """Return the voxels of `volume` that a normalizer is fitted on.

    Args:
        volume: any modality, 2D or 3D, gray or color; one mask serves all channels.
        given: the caller's own mask, honored as it is but for voxels that are not finite: nonzero
            is inside. A LabelMap (any layer) or an array `(i, j, k)` or `(channel, i, j, k)`.

    Raises:
        UsageError: `given` does not lie on the grid of the image.
        NormalizationRefused: `empty` (no voxel), `non-finite` (no finite one), `constant` (one
            single value), `empty-mask` (`given` holds no finite voxel), `blank-tile` (a slide
            without tissue).
    """
    if volume.data.size == 0:
        raise NormalizationRefused(
            "empty", f"the image is empty: shape {volume.data.shape}; leave it out"
        )
    finite = _finite(volume.data)
    if given is not None:
        inside = _honored(volume, given)
        inside = inside if finite is None else inside & finite
        if not inside.any():
            raise NormalizationRefused(
                "empty-mask", "the given mask holds no finite voxel of the image"
            )
        return masks.of(inside, "given")
    if finite is not None and not finite.any():
        raise NormalizationRefused(
            "non-finite", "every value is NaN or infinite; write the image again or leave it out"
        )
    channels = [_filled(channel, finite) for channel in _channels(volume)]
    varying = [channel for channel in channels if channel.min() != channel.max()]
    if not varying:
        raise NormalizationRefused(
            "constant", f"the image is constant: every value is {channels[0].flat[0]:g}"
        )
    kind, data = _rule(volume, varying)
    if data is not None:
        if finite is not None:
            data = data & finite
        if any(_varies(channel, data) for channel in varying):
            return masks.of(data, kind)
    return masks.of(np.ones(volume.shape, bool) if finite is None else finite, "whole")


def _rule(volume: Volume, channels: list[Array]) -> tuple[str, Array | None]:
    """Return the rule's name and its mask; None where it finds nothing to exclude."""
    modality, first = volume.modality, channels[0]
    if _is_color(volume) and len(channels) >= 3:
        scale = full_scale(float(max(channel.max() for channel in channels)), first.dtype)
        if modality in _SLIDE:
            return "tissue", tissue(channels, scale)
        if modality in _PHOTOGRAPH or not modality:
            field = lit_field(_mean(channels))
            if field is None and not modality and looks_stained(channels, scale):
                return "tissue", tissue(channels, scale)
            return "corner-free", field
        channels = [_mean(channels)]
        first = channels[0]
    if modality in _XRAY:
        return "collimated", _union(exposed_field(channel) for channel in channels)
    if modality in _ULTRASOUND:
        return "sector", _union(probe_field(channel) for channel in channels)
    if volume.unit == "HU" or (
        modality in ("", "CT") and not volume.unit and looks_hounsfield(first)
    ):
        return "air-free", air_free(first, volume.spacing)
    return "mr-foreground", _union(foreground(channel, volume.spacing) for channel in channels)


def _union(found: Iterable[Array | None]) -> Array | None:
    """Return what lies in any of the masks; None where one of them is the whole image."""
    total: Array | None = None
    for mask in found:
        if mask is None:
            return None
        total = mask if total is None else total | mask
    return total


def _channels(volume: Volume) -> list[Array]:
    """Return the channels that tell: without alpha, and one of a gray picture stored as color."""
    data = volume.data
    if not _is_color(volume):
        return [*data]
    gray = (data[0] == data[1]).all() and (data[0] == data[2]).all()
    return [data[0]] if gray else [*data[:3]]


def _is_color(volume: Volume) -> bool:
    if len(volume.data) not in (3, 4):
        return False
    if volume.channels:
        return volume.channels[:3] == _RGB
    return volume.is_2d or volume.modality in _SLIDE | _PHOTOGRAPH


def _mean(channels: list[Array]) -> Array:
    mean: Array = np.stack(channels).mean(axis=0, dtype=np.float64)
    return mean


def _finite(data: Array) -> Array | None:
    """Return where all channels are finite, `(i, j, k)`; None where they are everywhere."""
    if data.dtype.kind != "f":
        return None
    finite: Array = np.isfinite(data[0])
    for channel in data[1:]:
        finite &= np.isfinite(channel)
    return None if finite.all() else finite


def _filled(channel: Array, finite: Array | None) -> Array:
    """Return the channel with its least finite value where one is missing."""
    if finite is None:
        return channel
    filled: Array = np.where(finite, channel, channel[finite].min())
    return filled


def _varies(channel: Array, mask: Array) -> bool:
    """Return whether the mask holds two values."""
    grid = Grid.of(channel.shape)
    some = grid.sample(channel)[grid.sample(mask) > 0]
    if some.size and some.min() != some.max():
        return True
    inside = channel[mask]
    return bool(inside.size and inside.min() != inside.max())


def _honored(volume: Volume, given: LabelMap | Array) -> Array:
    """Return the caller's mask `(i, j, k)`, Boolean."""
    if isinstance(given, Volume):
        if not same_grid(volume.affine, volume.shape, given.affine, given.shape):
            raise UsageError(
                f"given must lie on the grid of the image, {volume.shape} voxels, got "
                f"{given.shape} or another place in space; "
                "bring it there with vesalius.geometry.resample"
            )
        any_layer: Array = (given.data != 0).any(axis=0)
        return any_layer
    array = np.asarray(given)
    if array.shape not in (volume.shape, (1, *volume.shape)):
        raise UsageError(
            f"given must have the shape {volume.shape} of the image, got {array.shape}"
        )
    inside: Array = (array != 0).reshape(volume.shape)
    return inside
