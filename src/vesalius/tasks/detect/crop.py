# SPDX-License-Identifier: Apache-2.0
"""The part of a 2D image around one box, as an image of its own at the same place in the world."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vesalius.types import Json
from vesalius.volume import Volume

MARGIN = 0.1  # of a box's longer side, around it


def crop(volume: Volume, box: Json) -> Volume:
    """Return the square around a box of a 2D image with some margin, cut at the image's borders."""
    low, high = np.array([box["x0"], box["y0"]]), np.array([box["x1"], box["y1"]])
    half = (high - low).max() * (0.5 + MARGIN)
    center = (low + high) / 2
    limit = np.array(volume.shape[:2])
    start = np.floor(center - half).clip(0, limit - 1).astype(int)
    stop = np.maximum(start + 1, np.ceil(center + half).clip(0, limit).astype(int))
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :2] @ start
    data = volume.data[:, start[0] : stop[0], start[1] : stop[1]]
    return replace(volume, data=np.ascontiguousarray(data), affine=affine)
