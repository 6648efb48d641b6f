# SPDX-License-Identifier: Apache-2.0
"""Small pictures of images for an archive, and where two of them are alike. Patient data."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image

from vesalius.geometry import flat_affine
from vesalius.reporting.html import data_uri
from vesalius.reporting.thumbnails import slice_picture
from vesalius.types import Array
from vesalius.volume import Volume

SIDE = 224  # pixels of a thumbnail's longer side
_QUALITY = 80
_HEAT_SIDE = 96  # pixels: heat is smooth
_COLOR = (255, 140, 0)  # a glow over gray and over stains
_STRONGEST = 0.75  # opacity of the hottest place
_STEEP = 2.0  # power by which less hot places fade


@dataclass(frozen=True, slots=True)
class Overlaid:
    """A picture and the heat to lay over it, both as `data:` addresses."""

    picture: str
    heat: str


def thumbnail(volume: Volume) -> bytes:
    """Return the middle slice of an image as a small JPEG."""
    large = _opened(slice_picture(volume, volume.shape[2] // 2))
    large.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    stream = BytesIO()
    large.save(stream, "JPEG", quality=_QUALITY)
    return stream.getvalue()


def shown(content: bytes) -> str:
    """Return a thumbnail as a `data:` address."""
    return data_uri(content, "image/png" if content.startswith(b"\x89PNG") else "image/jpeg")


def as_volume(content: bytes, modality: str) -> Volume:
    """Return a thumbnail as an image, for an original that is out of reach."""
    picture = Image.open(BytesIO(content))
    pixels = np.asarray(picture.convert("L" if picture.mode == "L" else "RGB"))
    planes = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    if len(planes) == 3 and (planes[0] == planes[1]).all() and (planes[0] == planes[2]).all():
        planes = planes[:1]
    data = np.ascontiguousarray(planes.swapaxes(1, 2)[..., None])  # (C, i, j, 1)
    return Volume(data, flat_affine(), modality=modality, calibrated=False)


def overlaid(volume: Volume, heat: Array) -> Overlaid:
    """Return the slice of an image where the heat is greatest, and that heat.

    Args:
        volume: the image.
        heat: `(i, j, k)` on its grid, 0 to 1.
    """
    k = int(heat.max(axis=(0, 1)).argmax())
    scaled = np.round(np.clip(heat, 0, 1) * 255).astype(np.uint8)
    hot = _opened(slice_picture(volume.with_data(np.repeat(scaled[None], 3, axis=0)), k))
    hot.thumbnail((_HEAT_SIDE, _HEAT_SIDE), Image.Resampling.BOX)
    strength = np.asarray(hot.convert("L"), np.float32) / 255
    pixels = np.empty((*strength.shape, 4), np.uint8)
    pixels[..., :3] = _COLOR
    pixels[..., 3] = (255 * _STRONGEST * strength**_STEEP).round()
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", optimize=True)
    return Overlaid(slice_picture(volume, k), data_uri(stream.getvalue(), "image/png"))


def _opened(uri: str) -> Image.Image:
    """Return the picture that a `data:` address holds."""
    return Image.open(BytesIO(base64.b64decode(uri.split(",", 1)[1])))
