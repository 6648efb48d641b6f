# SPDX-License-Identifier: Apache-2.0
"""A coarse grid over a large one: rules look at about 64 x 64 x 64 points, whatever the image.

Coarse point c along an axis stands for the voxels `c * step` to `(c + 1) * step - 1` and is read
at their middle. Axes are shortened one step at a time, always the one with the most points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy import ndimage

from vesalius.types import Array, Shape3

POINTS = 64**3


@dataclass(frozen=True, slots=True)
class Grid:
    """The coarse grid of a full one.

    Attributes:
        full: voxels of the image along (i, j, k).
        steps: voxels between coarse points along (i, j, k).
    """

    full: Shape3
    steps: Shape3

    @classmethod
    def of(cls, full: Shape3) -> Self:
        """Return the finest grid of at most `POINTS` points."""
        steps = np.ones(3, int)
        points = np.array(full)
        while points.prod() > POINTS:
            axis = int(points.argmax())
            steps[axis] += 1
            points[axis] = -(-full[axis] // steps[axis])
        i, j, k = (int(step) for step in steps)
        return cls((full[0], full[1], full[2]), (i, j, k))

    def sample(self, values: Array) -> Array:
        """Return `values` `(i, j, k)` at the coarse points, float64."""
        at = [
            np.minimum(np.arange(0, n, step) + step // 2, n - 1)
            for n, step in zip(self.full, self.steps, strict=True)
        ]
        found: Array = values[np.ix_(*at)].astype(np.float64)
        return found

    def expand(self, coarse: Array) -> Array:
        """Return a coarse mask on the full grid."""
        out = np.empty(self.full, bool)
        for n, rows in self._slabs():
            out[rows] = self._plane(coarse[n])
        return out

    def refine(self, coarse: Array, values: Array, threshold: float) -> Array:
        """Return a coarse mask on the full grid, its surface decided by `values > threshold`.

        Points inside the coarse mask with all their neighbors stay in; those with none inside
        stay out.
        """
        if self.steps == (1, 1, 1):
            return coarse
        cube = np.ones((3, 3, 3), bool)
        sure = ndimage.binary_erosion(coarse, cube, border_value=1)
        near = ndimage.binary_dilation(coarse, cube)
        out = np.empty(self.full, bool)
        for n, rows in self._slabs():
            above = values[rows] > threshold
            above &= self._plane(near[n])
            above |= self._plane(sure[n])
            out[rows] = above
        return out

    def _slabs(self) -> list[tuple[int, slice]]:
        step = self.steps[0]
        return [
            (n, slice(first, first + step)) for n, first in enumerate(range(0, self.full[0], step))
        ]

    def _plane(self, coarse: Array) -> Array:
        """Return a coarse plane (j, k) at full size."""
        plane = coarse.repeat(self.steps[1], 0)[: self.full[1]]
        full: Array = plane.repeat(self.steps[2], 1)[:, : self.full[2]]
        return full
