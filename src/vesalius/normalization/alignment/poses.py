# SPDX-License-Identifier: Apache-2.0
"""Poses: rigid maps by rotation and shift, and a search over a grid of them at low resolution.

A pose turns about a center c, then shifts by t: q = R (p - c) + c + t. The grid covers what a
patient who lay down twice may differ by, so that a local optimizer starts inside the right basin;
Jenkinson & Smith, Med. Image Anal. 2001, show why a local optimizer alone does not get there.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from vesalius.normalization.alignment.mutual_information import Comparison
from vesalius.types import Affine, Array

REACH_MM = 30.0
STEP_MM = 15.0
TURN_DEGREES = 12.0


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """A map, its information in nats per point, and where it came from."""

    matrix: Affine
    information: float
    start: str
    iterations: int = 0


def pose(turn_degrees: Array, shift_mm: Array, center: Array) -> Affine:
    """Return the `(4, 4)` map of a rotation vector (its length is the angle) and a shift."""
    from scipy.spatial.transform import Rotation

    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(turn_degrees, degrees=True).as_matrix()
    matrix[:3, 3] = center + shift_mm - matrix[:3, :3] @ center
    return matrix


def search(
    comparison: Comparison, center: Array, offset: Array, reach_mm: float, start: str
) -> list[Found]:
    """Return every pose of the grid up to `reach_mm` around a shift `offset` (mm, `(3,)`)."""
    steps = np.arange(-reach_mm, reach_mm + 1, STEP_MM)
    shifts = np.array(list(product(steps, steps, steps))) + offset
    found = []
    for turn in _turns():
        turned = pose(turn, np.zeros(3), center)
        for shift in shifts:
            matrix = turned.copy()
            matrix[:3, 3] += shift
            found.append(Found(matrix, comparison.information(matrix), start))
    return found


def distinct(found: list[Found], comparison: Comparison, apart_mm: float) -> list[Found]:
    """Return those that lie at least `apart_mm` from every better one, the best first."""
    kept: list[Found] = []
    for one in sorted(found, key=lambda one: -one.information):
        if all(comparison.distance_mm(one.matrix, other.matrix) >= apart_mm for other in kept):
            kept.append(one)
    return kept


def _turns() -> Array:
    """Return rotation vectors in degrees: none, each axis both ways, and the eight diagonals."""
    axes = np.vstack([np.eye(3), -np.eye(3)])
    diagonals = np.array(list(product((1, -1), repeat=3))) / np.sqrt(3)
    return np.vstack([np.zeros((1, 3)), axes, diagonals]) * TURN_DEGREES
