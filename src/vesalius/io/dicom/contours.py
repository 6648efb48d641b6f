# SPDX-License-Identifier: Apache-2.0
"""Closed contours and masks in one plane: each turned into the other, voxel for voxel.

Coordinates are voxel indices `(x, y)`; a voxel belongs to a contour when its center lies inside
by the even-odd rule. Contours of a mask pass half way between voxel centers, so that filling them
gives the mask back.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from vesalius.errors import CorruptFile
from vesalius.types import Array

_MOST_CROSSINGS = 20_000_000


def fill(contours: list[Array], shape: tuple[int, int]) -> Array:
    """Return the mask `(x, y)` that closed contours, each `(n, 2)`, enclose by the even-odd rule.

    Nested contours cut holes, and a keyhole channel, walked there and back, encloses nothing.
    """
    toggles = np.zeros((shape[0] + 1, shape[1]), np.int32)
    for points in contours:
        begin = np.asarray(points, np.float64)
        end = np.roll(begin, -1, axis=0)
        low, high = np.minimum(begin[:, 1], end[:, 1]), np.maximum(begin[:, 1], end[:, 1])
        # An edge meets row y when low <= y < high: a shared vertex counts once.
        first = np.clip(np.ceil(low), 0, shape[1]).astype(np.int64)
        last = np.clip(np.ceil(high), 0, shape[1]).astype(np.int64)
        counts = last - first
        total = int(counts.sum())
        if total > _MOST_CROSSINGS:
            raise CorruptFile(
                f"a contour crosses {total:,} rows, at most {_MOST_CROSSINGS:,} are drawn",
                crossings=total,
            )
        edge = np.repeat(np.arange(len(begin)), counts)
        row = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
        share = (row - begin[edge, 1]) / (end[edge, 1] - begin[edge, 1])
        x = begin[edge, 0] + share * (end[edge, 0] - begin[edge, 0])
        # Voxels to the right of a crossing change sides.
        np.add.at(toggles, (np.clip(np.ceil(x), 0, shape[0]).astype(np.int64), row), 1)
    inside: Array = np.cumsum(toggles[:-1], axis=0) % 2 == 1
    return inside


def outlines(mask: Array) -> list[Array]:
    """Return closed contours `(n, 2)` around a mask `(x, y)`, holes joined in by keyholes."""
    from contourpy import contour_generator

    if not mask.any():
        return []
    padded = np.pad(mask, 1).astype(np.float64)
    generator = contour_generator(z=padded.T, fill_type="OuterOffset")
    filled: Any = generator.filled(0.5, 2.0)
    polygons, offsets = filled
    contours = []
    for points, starts in zip(polygons, offsets, strict=True):
        rings = [
            _straightened(points[a:b][:-1] - 1.0)  # the last point repeats the first; padding off
            for a, b in pairwise(starts)
        ]
        contour = rings[0]
        for hole in rings[1:]:
            contour = _keyhole(contour, hole)
        contours.append(contour)
    return contours


def _straightened(ring: Array) -> Array:
    """Leave out points on the straight line between their neighbors."""
    before, after = np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0)
    a, b = ring - before, after - ring
    kept = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) > 1e-9
    return ring[kept] if kept.sum() >= 3 else ring


def _keyhole(outer: Array, hole: Array) -> Array:
    """Return one contour that goes to the hole, around it, and back the same way."""
    near = np.array([((outer - point) ** 2).sum(axis=1).min() for point in hole])
    n = int(near.argmin())
    m = int(((outer - hole[n]) ** 2).sum(axis=1).argmin())
    around = np.concatenate([hole[n:], hole[: n + 1]])
    return np.concatenate([outer[: m + 1], around, outer[m:]])
