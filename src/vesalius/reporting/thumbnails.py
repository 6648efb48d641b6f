# SPDX-License-Identifier: Apache-2.0
"""One slice of an image as a small picture, with contours of truth and prediction.

Shown as radiologists look: the patient's left on the right, front up (axial), head up (else), in
true proportions. Pictures are patient data like the images that they come from.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image

from vesalius.errors import UsageError
from vesalius.geometry import axis_codes
from vesalius.reporting.html import data_uri
from vesalius.types import Array
from vesalius.volume import Volume

SIDE = 340  # pixels of the longer side
_CT_WINDOW = (-200.0, 300.0)  # HU: soft tissue
TRUTH = (86, 180, 233)  # sky blue and orange of Okabe & Ito (2008): told apart by all
PREDICTION = (230, 159, 0)


def slice_picture(
    volume: Volume, k: int, *, truth: Array | None = None, prediction: Array | None = None
) -> str:
    """Return slice `k` as a `data:` address (JPEG, longer side 340 pixels).

    `truth` and `prediction` are label maps `(i, j, k)` on the volume's grid; the borders of all
    their structures are drawn, truth wide in blue, prediction narrow in orange on top.
    """
    if not 0 <= k < volume.shape[2]:
        raise UsageError(f"k must lie within 0 to {volume.shape[2] - 1}, got {k}")
    codes = axis_codes(volume.affine)
    pixels = _oriented(_gray_or_color(volume, k), codes)
    width_mm, height_mm = _in_plane(volume, codes)
    scale = SIDE / max(width_mm, height_mm)
    size = max(24, round(width_mm * scale)), max(24, round(height_mm * scale))
    coarse = min(pixels.shape[:2]) * 4 < min(size)
    way = Image.Resampling.NEAREST if coarse else Image.Resampling.BICUBIC
    canvas = np.array(Image.fromarray(pixels).convert("RGB").resize(size, way))
    for labels, color, wide in ((truth, TRUTH, True), (prediction, PREDICTION, False)):
        if labels is not None:
            plane = _oriented(np.asarray(labels)[:, :, k], codes)
            enlarged = Image.fromarray(plane.astype(np.int32)).resize(
                size, Image.Resampling.NEAREST
            )
            canvas[_borders(np.array(enlarged), wide=wide)] = color
    stream = BytesIO()
    Image.fromarray(canvas).save(stream, "JPEG", quality=86, subsampling=0)
    return data_uri(stream.getvalue(), "image/jpeg")


def telling_slice(truth: Array, prediction: Array | None = None) -> int:
    """Return the slice `k` where two label maps `(i, j, k)` differ most; alone: the fullest."""
    other = np.zeros_like(truth) if prediction is None else prediction
    differing = np.count_nonzero(truth != other, axis=(0, 1))
    if not differing.any():
        differing = np.count_nonzero(truth, axis=(0, 1))
    return int(np.argmax(differing)) if differing.any() else truth.shape[2] // 2


def _gray_or_color(volume: Volume, k: int) -> Array:
    """Return one slice as uint8 `(i, j)` or `(i, j, 3)`."""
    if len(volume.data) == 3 and volume.data.dtype == np.uint8:
        return np.moveaxis(volume.data[..., k], 0, -1)
    values = np.asarray(volume.data[0, :, :, k], np.float64)
    finite = values[np.isfinite(values)]
    if not len(finite):
        return np.zeros(values.shape, np.uint8)
    low, high = np.percentile(finite, [1, 99.5])
    if volume.modality == "CT" and low < _CT_WINDOW[1] and high > _CT_WINDOW[0]:
        low, high = max(low, _CT_WINDOW[0]), min(high, _CT_WINDOW[1])
    if high <= low:
        low, high = float(finite.min()), float(finite.max())
    if high <= low:
        return np.full(values.shape, 128, np.uint8)
    shown = np.clip(
        (np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) / (high - low), 0, 1
    )
    gray: Array = (shown * 255).round().astype(np.uint8)
    return gray


def _axes(codes: str) -> tuple[int, str, str]:
    """Return which in-plane axis lies across, and the letters that point right and down."""
    across = next((n for n in (0, 1) if codes[n] in "LR"), None)
    if across is None:
        across = next(n for n in (0, 1) if codes[n] in "AP")
    down = codes[1 - across]
    return across, "L" if codes[across] in "LR" else "P", "P" if down in "AP" else "I"


def _oriented(plane: Array, codes: str) -> Array:
    """Return `(i, j, …)` as `(rows, columns, …)`."""
    across, right, down = _axes(codes)
    if codes[across] != right:
        plane = np.flip(plane, across)
    if codes[1 - across] != down:
        plane = np.flip(plane, 1 - across)
    return np.ascontiguousarray(plane.swapaxes(0, 1) if across == 0 else plane)


def _in_plane(volume: Volume, codes: str) -> tuple[float, float]:
    """Return the slice's width and height in mm."""
    across, _, _ = _axes(codes)
    lengths = [volume.shape[n] * volume.spacing[n] for n in (0, 1)]
    return lengths[across], lengths[1 - across]


def _borders(labels: Array, *, wide: bool) -> Array:
    """Return the pixels along structures' borders, about 1 or 3 pixels broad."""
    padded = np.pad(labels, 1)
    center = padded[1:-1, 1:-1]
    border = np.zeros(center.shape, bool)
    for neighbor in (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]):
        border |= (center > 0) & (neighbor != center)
    if wide:
        grown = np.pad(border, 1)
        border = border | grown[:-2, 1:-1] | grown[2:, 1:-1] | grown[1:-1, :-2] | grown[1:-1, 2:]
    return border
