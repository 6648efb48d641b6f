# SPDX-License-Identifier: Apache-2.0
"""A smooth field on a grid: tensor cubic B-splines with a penalty on their bending.

With N masked samples f, s = sum of c B_a(i) B_b(j) B_c(k) minimizes

    1/N sum (f - s)^2 + stiffness * integral of s_ii^2 + s_jj^2 + s_kk^2 + 2 (s_ij^2 + ...)

over the box, lengths in units of the knot distance. Sled et al.: A nonparametric method for
automatic correction of intensity nonuniformity in MRI data, IEEE TMI 1998, appendix B. Knots are
centered on the box. An axis of one voxel carries a constant. The normal equations depend on the
mask alone, so they are solved once for all iterations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from vesalius.errors import UsageError
from vesalius.types import Array, Spacing3

_PIECES = (
    [-1, 3, -3, 1],
    [3, -6, 0, 4],
    [-3, 3, 3, 1],
    [1, 0, 0, 0],
)  # cubics on one span, times 6
_MOST = 3000  # coefficients: their normal equations take 72 MB


@dataclass(frozen=True, slots=True)
class Axis:
    """Basis functions along one axis: `count` of them, the first span starting at `start` mm."""

    start: float
    distance: float
    count: int

    @classmethod
    def over(cls, voxels: int, spacing: float, distance: float) -> Axis:
        """Return the axis for a box that reaches half a voxel beyond the outer centers."""
        if voxels == 1:
            return cls(0.0, distance, 1)
        length = voxels * spacing
        spans = math.ceil(length / distance * (1 - 1e-12))
        middle = 0.5 * (voxels - 1) * spacing
        return cls(middle - 0.5 * spans * distance, distance, spans + 3)

    def values(self, at: Array) -> Array:
        """Return every basis function at the positions `at` (mm), `(positions, count)`."""
        if self.count == 1:
            return np.ones((len(at), 1))
        place = (at - self.start) / self.distance
        span = np.clip(np.floor(place).astype(int), 0, self.count - 4)
        out = np.zeros((len(at), self.count))
        for piece, cubic in enumerate(_PIECES):
            out[np.arange(len(at)), span + piece] = np.polyval(cubic, place - span) / 6
        return out

    def bending(self, order: int) -> Array:
        """Return the integrals of products of `order`-th derivatives, `(count, count)`."""
        if self.count == 1:
            return np.full((1, 1), float(order == 0))
        nodes, weights = np.polynomial.legendre.leggauss(4)  # exact for degree 7
        at = (nodes + 1) / 2
        rows = np.array([np.polyval(np.polyder(np.divide(p, 6), order), at) for p in _PIECES])
        one_span = (rows * weights / 2) @ rows.T
        out = np.zeros((self.count, self.count))
        for span in range(self.count - 3):
            out[span : span + 4, span : span + 4] += one_span
        return out


class SplineField:
    """Fits fields on the masked samples of a coarse grid; evaluates them on the full one."""

    def __init__(
        self,
        shape: tuple[int, ...],
        spacing: Spacing3,
        *,
        steps: tuple[int, int, int],
        mask: Array,
        distance: float,
        stiffness: float,
    ) -> None:
        """Prepare the normal equations.

        Args:
            shape, spacing: of the full grid, voxels and millimeters.
            steps: full voxels to one of the coarse grid, which starts at the same voxel.
            mask: Boolean on the coarse grid.
            distance: between knots, millimeters.
            stiffness: weight of the bending energy.

        Raises:
            UsageError: `distance` or `stiffness` is not positive, or there are too many knots.
        """
        if not distance > 0 or not stiffness > 0:
            raise UsageError(
                f"distance and stiffness must be positive, got {distance} mm and {stiffness}"
            )
        axes = [Axis.over(n, s, distance) for n, s in zip(shape, spacing, strict=True)]
        self._mask = mask
        self._size = tuple(axis.count for axis in axes)
        if math.prod(self._size) > _MOST:
            raise UsageError(
                f"knots every {distance:g} mm need {math.prod(self._size):,} coefficients, at most "
                f"{_MOST:,} allowed; raise distance"
            )
        full = [np.arange(n) * s for n, s in zip(shape, spacing, strict=True)]
        self._full = [axis.values(at) for axis, at in zip(axes, full, strict=True)]
        self._coarse = [rows[::step] for rows, step in zip(self._full, steps, strict=True)]
        penalty = stiffness * mask.sum() * _bending(axes)
        self._inverse = np.linalg.pinv(self._gram() + penalty, rcond=1e-15, hermitian=True)

    def fit(self, samples: Array) -> Array:
        """Return the coefficients of the field closest to `samples` (coarse grid, in the mask)."""
        right = _expand(np.where(self._mask, samples, 0.0), [b.T for b in self._coarse])
        out: Array = (self._inverse @ right.ravel()).reshape(self._size)
        return out

    def coarse(self, coefficients: Array) -> Array:
        """Return the field on the coarse grid."""
        return _expand(coefficients, self._coarse)

    def full(self, coefficients: Array) -> Array:
        """Return the field on the full grid."""
        return _expand(coefficients, self._full)

    def _gram(self) -> Array:
        pairs = [(b[:, :, None] * b[:, None, :]).reshape(len(b), -1).T for b in self._coarse]
        total = _expand(self._mask.astype(np.float64), pairs)
        i, j, k = self._size
        square = total.reshape(i, i, j, j, k, k).transpose(0, 2, 4, 1, 3, 5)
        return square.reshape(i * j * k, i * j * k)


def _expand(values: Array, matrices: list[Array]) -> Array:
    """Multiply each of the three axes by its matrix."""
    for matrix in matrices:  # each turn works on the first axis and puts it last
        values = np.tensordot(values, matrix, axes=(0, 1))
    return values


def _bending(axes: list[Axis]) -> Array:
    total: Array = np.zeros(())
    for orders, weight in (
        ((2, 0, 0), 1), ((0, 2, 0), 1), ((0, 0, 2), 1),
        ((1, 1, 0), 2), ((1, 0, 1), 2), ((0, 1, 1), 2),
    ):  # fmt: skip
        i, j, k = (axis.bending(order) for axis, order in zip(axes, orders, strict=True))
        total = total + weight * np.kron(np.kron(i, j), k)
    return total
