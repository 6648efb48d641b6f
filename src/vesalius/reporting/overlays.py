# SPDX-License-Identifier: Apache-2.0
"""Overlay: whether two images on one grid fit, as one picture to look at.

Three planes through the middle of the anatomy (axial, coronal, sagittal); side by side the fixed
image, the moved one, a checkerboard of both, and the moved image's edges on the fixed one. Shown as
radiologists look: the patient's left on the right, head up. A picture is patient data.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from vesalius.errors import UsageError
from vesalius.files import write_atomically
from vesalius.geometry import reorient, same_grid
from vesalius.types import Array, PathLike
from vesalius.volume import Volume

SIDE = 260  # pixels of a panel's longer side
SQUARES = 8  # of the checkerboard along the longer side
EDGE = (230, 159, 0)  # orange of Okabe & Ito (2008)
_CT_WINDOW = (-200.0, 300.0)  # HU: soft tissue
_MARGIN, _CAPTION = 4, 14


def overlay_picture(fixed: Volume, moved: Volume) -> bytes:
    """Return the picture as PNG.

    Args:
        fixed: the image that stayed.
        moved: the other one, on the same grid.

    Raises:
        UsageError: the grids differ.
    """
    if not same_grid(fixed.affine, fixed.shape, moved.affine, moved.shape):
        raise UsageError(
            f"fixed and moved must lie on one grid, got {fixed.shape} and {moved.shape}; bring "
            "them there with common_grid.onto"
        )
    one, two = _gray(reorient(fixed, "LPS")), _gray(reorient(moved, "LPS"))
    spacing = np.array(reorient(fixed, "LPS").spacing)
    scale = SIDE / (np.array(one.shape) * spacing).max()
    place = _middle(two)
    rows = [
        np.hstack(_panels(_plane(one, axis, place), _plane(two, axis, place), size))
        for axis in (2, 1, 0)
        for size in [_size(one.shape, spacing * scale, axis)]
    ]
    wide = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 0), (0, wide - row.shape[1]), (0, 0))) for row in rows]
    sheet = Image.fromarray(np.pad(np.vstack(padded), ((_CAPTION, 0), (0, 0), (0, 0))))
    names = (fixed.modality or "fixed", f"{moved.modality or 'other'} moved", "both", "edges")
    for n, name in enumerate(names):
        left = n * (_size(one.shape, spacing * scale, 2)[0] + _MARGIN)
        ImageDraw.Draw(sheet).text((left + 2, 1), name, fill=(255, 255, 255))
    stream = BytesIO()
    sheet.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def write_overlay(fixed: Volume, moved: Volume, path: PathLike) -> Path:
    """Write the picture of `overlay_picture` as a PNG file and return its path."""
    picture = overlay_picture(fixed, moved)
    return write_atomically(path, lambda stream: stream.write(picture))


def _panels(one: Array, two: Array, size: tuple[int, int]) -> list[Array]:
    """Return the four panels `(rows, columns, 3)` of one plane, enlarged to `size`."""
    first, second = (
        np.array(Image.fromarray(plane).resize(size, Image.Resampling.BICUBIC))
        for plane in (one, two)
    )
    square = max(4, SIDE // SQUARES)
    odd = (np.indices(first.shape) // square).sum(axis=0) % 2 == 1
    edges = np.stack([first] * 3, axis=-1)
    edges[_edges(second)] = EDGE
    gray = [
        np.stack([panel] * 3, axis=-1) for panel in (first, second, np.where(odd, second, first))
    ]
    return [np.pad(panel, ((0, _MARGIN), (0, _MARGIN), (0, 0))) for panel in (*gray, edges)]


def _edges(plane: Array) -> Array:
    """Return the ridges of a smoothed plane's gradient, the strongest tenth of the pixels."""
    from scipy import ndimage

    strength = ndimage.gaussian_gradient_magnitude(plane.astype(np.float32), 2.0)
    strong = strength > max(2.0, float(np.quantile(strength, 0.9)))
    ridges = [strength >= ndimage.maximum_filter1d(strength, 3, axis=axis) for axis in (0, 1)]
    found: Array = strong & (ridges[0] | ridges[1])
    return found


def _plane(values: Array, axis: int, place: Array) -> Array:
    """Return one plane `(rows, columns)` of LPS values: left on the right, front or head up."""
    plane = values.take(int(place[axis]), axis=axis).T
    return np.ascontiguousarray(plane if axis == 2 else plane[::-1])


def _size(shape: tuple[int, ...], pixels: Array, axis: int) -> tuple[int, int]:
    across, down = (n for n in range(3) if n != axis)
    return (
        max(16, round(shape[across] * float(pixels[across]))),
        max(16, round(shape[down] * float(pixels[down]))),
    )


def _middle(gray: Array) -> Array:
    """Return the voxel in the middle of what is not dark, `(3,)`."""
    bright = np.argwhere(gray > 32)
    middle: Array = bright.mean(axis=0) if len(bright) else np.array(gray.shape) / 2
    return middle.astype(int)


def _gray(volume: Volume) -> Array:
    """Return `(i, j, k)` uint8: CT in a soft-tissue window, others between robust limits."""
    values = volume.data.mean(axis=0, dtype=np.float32)
    low, high = np.percentile(values, (1, 99.5))
    if volume.modality == "CT" and low < _CT_WINDOW[1] and high > _CT_WINDOW[0]:
        low, high = max(low, _CT_WINDOW[0]), min(high, _CT_WINDOW[1])
    shown = np.clip((values - low) / max(high - low, 1e-6), 0, 1)
    gray: Array = (shown * 255).round().astype(np.uint8)
    return gray
