# SPDX-License-Identifier: Apache-2.0
"""A picture of where a classifier looked: the image as it saw it, and heat over it."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image

from vesalius.types import Array

SIDE = 320  # pixels of the longer side
MOST = 4  # views side by side
# Five stops of the color map "inferno" (Smith, van der Walt 2015; CC0), from cold to hot.
_STOPS = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], float)


def heat_picture(views: Array, heat: Array) -> bytes:
    """Return a JPEG: above the views, below the same under heat. A picture is patient data.

    Args:
        views: `(n, C, ...)`, 2 or 3 spatial axes `i, j[, k]`; of a volume the hottest slice.
        heat: `(n, ...)` in 0 to 1, on the same grid.
    """
    chosen = np.unique(np.linspace(0, len(views) - 1, min(MOST, len(views))).round().astype(int))
    columns = []
    for place in chosen:
        view, hot = np.asarray(views[place], np.float32), np.asarray(heat[place], np.float32)
        if hot.ndim == 3:
            slice_at = int(hot.sum(axis=(0, 1)).argmax())
            view, hot = view[..., slice_at], hot[..., slice_at]
        plain = _gray(view)
        strength = np.clip(hot.T, 0, 1)[..., None]
        mixed = plain * (1 - 0.6 * strength) + _colors(hot) * 0.6 * strength
        columns.append(np.vstack([_scaled(plain), _scaled(mixed)]))
    stream = BytesIO()
    Image.fromarray(np.hstack(columns)).save(stream, "JPEG", quality=88)
    return stream.getvalue()


def _gray(view: Array) -> Array:
    """Return `(j, i, 3)` in 0 to 255 of a view `(C, i, j)`."""
    low, high = np.percentile(view, (0.5, 99.5))
    scaled = np.clip((view - low) / max(float(high - low), 1e-6), 0, 1) * 255
    colors = scaled[:3] if len(view) >= 3 else np.repeat(scaled[:1], 3, axis=0)
    return np.asarray(colors.transpose(2, 1, 0))


def _colors(heat: Array) -> Array:
    """Return `(j, i, 3)` colors of heat `(i, j)`."""
    at = np.clip(heat.T, 0, 1) * (len(_STOPS) - 1)
    low = np.minimum(at.astype(int), len(_STOPS) - 2)
    part = (at - low)[..., None]
    return np.asarray(_STOPS[low] * (1 - part) + _STOPS[low + 1] * part)


def _scaled(picture: Array) -> Array:
    image = Image.fromarray(picture.round().clip(0, 255).astype(np.uint8))
    factor = SIDE / max(image.size)
    wide, high = (max(1, round(side * factor)) for side in image.size)
    return np.asarray(image.resize((wide, high), Image.Resampling.BICUBIC))
