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
    inside: Array = np.zeros(shape, bool)
    low, high = np.array([np.inf, np.inf]), np.array([-np.inf, -np.inf])
    for points in contours:
        low, high = np.minimum(low, points.min(axis=0)), np.maximum(high, points.max(axis=0))
    x0, y0 = (int(value) for value in np.clip(np.floor(low), 0, shape))
    x1, y1 = (int(value) for value in np.clip(np.floor(high) + 1, 0, shape))
    if not contours or x0 >= x1 or y0 >= y1:
        return inside
    toggles = np.zeros((x1 - x0 + 1, y1 - y0), np.int32)  # of the box around all contours
    for points in contours:
        x, row = _crossings(np.asarray(points, np.float64), y0, y1)
        # Voxels to the right of a crossing change sides.
        column = np.clip(np.ceil(x), x0, x1).astype(np.int64) - x0
        np.add.at(toggles, (column, row - y0), 1)
    inside[x0:x1, y0:y1] = np.cumsum(toggles[:-1], axis=0) % 2 == 1
    return inside


def _crossings(begin: Array, y0: int, y1: int) -> tuple[Array, Array]:
    """Return where a contour's edges meet the rows `y0 <= y < y1`: x and row."""
    end = np.roll(begin, -1, axis=0)
    low, high = np.minimum(begin[:, 1], end[:, 1]), np.maximum(begin[:, 1], end[:, 1])
    # An edge meets row y when low <= y < high: a shared vertex counts once.
    first = np.clip(np.ceil(low), y0, y1).astype(np.int64)
    last = np.clip(np.ceil(high), y0, y1).astype(np.int64)
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
    return begin[edge, 0] + share * (end[edge, 0] - begin[edge, 0]), row


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
