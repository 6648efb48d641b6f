# SPDX-License-Identifier: Apache-2.0
"""Mutual information of two images under a map, from points of one looked up in the other.

I(A;B) = H(A) + H(B) - H(A,B) from a joint histogram, in nats, less the bias of sparse histograms:
(a + b - ab - 1) / 2n is added for a, b, ab filled cells and n points (Miller 1955, Roulston 1999).
Viola & Wells 1997; Maes et al., IEEE TMI 1997. Declared laws: symmetric; 0, within the noise, for
independent values; unchanged by renaming bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from vesalius.normalization.alignment.pyramid import BINS, Level
from vesalius.types import Affine, Array


def mutual_information(a: Array, b: Array, bins: int = BINS) -> float:
    """Return I(A;B) in nats of two arrays `(n,)` of integers in 0 .. bins - 1; 0 where n is 0."""
    n = len(a)
    if n == 0:
        return 0.0
    joint = np.bincount(a * bins + b, minlength=bins * bins).reshape(bins, bins)
    filled = [np.count_nonzero(counts) for counts in (joint.sum(1), joint.sum(0), joint)]
    plain = _entropy(joint.sum(1), n) + _entropy(joint.sum(0), n) - _entropy(joint, n)
    return float(plain + (filled[0] + filled[1] - filled[2] - 1) / (2 * n))


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Points of image A that are looked up in image B.

    Attributes:
        points: `(n, 3)` world of A, RAS mm.
        bins: `(n,)` the histogram bin of each point's value in A.
        foreground: `(n,)` which of them lie in A's foreground.
        other: B, values on 0 .. BINS - 1.
    """

    points: Array
    bins: Array
    foreground: Array
    other: Level

    def information(self, matrix: Affine) -> float:
        """Return I per point of A, in nats, under `matrix` (world of A -> world of B).

        It is I over the points that fall into B's box, times the share that does: a point that
        leaves the box tells nothing, so a map cannot gain by leaving.
        """
        voxels, inside = self._voxels(matrix)
        found = ndimage.map_coordinates(
            self.other.values, voxels[:, inside], order=1, mode="nearest", prefilter=False
        )
        bins = np.clip(np.rint(found), 0, BINS - 1).astype(np.intp)
        return mutual_information(self.bins[inside], bins) * float(inside.mean())

    def overlap(self, matrix: Affine) -> float:
        """Return the share of A's foreground points that fall into B's foreground."""
        voxels, inside = self._voxels(matrix)
        nearest = np.rint(voxels[:, inside]).astype(np.intp)
        for axis, size in enumerate(self.other.foreground.shape):
            np.clip(nearest[axis], 0, size - 1, out=nearest[axis])
        both = self.other.foreground[tuple(nearest)] & self.foreground[inside]
        return float(both.sum() / max(1, self.foreground.sum()))

    def distance_mm(self, one: Affine, two: Affine) -> float:
        """Return the mean distance between the images of A's foreground points under two maps."""
        moved = self.points[self.foreground] @ (one - two)[:3, :3].T + (one - two)[:3, 3]
        return float(np.linalg.norm(moved, axis=1).mean())

    def _voxels(self, matrix: Affine) -> tuple[Array, Array]:
        whole = np.linalg.inv(self.other.affine) @ matrix
        voxels = whole[:3, :3] @ self.points.T + whole[:3, 3:]
        limits = np.array(self.other.values.shape).reshape(3, 1) - 0.5
        inside: Array = np.all((voxels >= -0.5) & (voxels <= limits), axis=0)
        return voxels, inside


def compare(a: Level, b: Level, count: int, *, seed: int = 0) -> Comparison:
    """Return at most `count` points of A, in and near its foreground, to be looked up in B."""
    where = np.argwhere(a.surroundings())
    if len(where) > count:
        where = where[np.random.default_rng(seed).choice(len(where), count, replace=False)]
    place = tuple(where.T)
    return Comparison(
        points=where @ a.affine[:3, :3].T + a.affine[:3, 3],
        bins=np.rint(a.values[place]).astype(np.intp),
        foreground=a.foreground[place],
        other=b,
    )


def _entropy(counts: Array, n: int) -> float:
    p = counts[counts > 0] / n
    return float(-(p * np.log(p)).sum())
