# SPDX-License-Identifier: Apache-2.0
"""Where parallel slices lie: order along the normal, step, gaps, tilt, unevenness (LPS+ mm).

Spacing comes from positions alone: SliceThickness and SpacingBetweenSlices are often wrong or
mean something else (PS3.3 C.7.6.2.1.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vesalius.types import Array

# A slice may lie this far from its place in the grid: 1 % of the step, or what rounding of
# positions to 0.1 mm does, but never more than a tenth of the step.
_SHARE, _ROUNDING_MM, _MOST = 0.01, 0.06, 0.1
# Slices closer than this along the normal are at one position.
SAME_MM = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """A stack's place.

    Attributes:
        first: position of the first slice.
        step: (3,) vector from one slice to the next; leans off the normal by `tilt` degrees.
        offsets: (n,) millimeters of each slice along the normal, the first at 0.
        gaps: `(index of the slice before it, slices missing)` for each gap.
        worst: largest distance of a slice from its place in the even grid, millimeters.
        even: whether that is within tolerance (gaps left aside).
        tilt: degrees between step and normal, 0 where the lean is within tolerance.
        shift: largest distance in the plane from the straight line through the stack in mm, 0
            where that is within tolerance.
    """

    first: Array
    step: Array
    offsets: Array
    gaps: tuple[tuple[int, int], ...]
    worst: float
    even: bool
    tilt: float
    shift: float


def normal_of(orientation: tuple[float, ...]) -> Array:
    """Return the unit normal: row direction times column direction."""
    normal = np.cross(orientation[:3], orientation[3:])
    length = float(np.linalg.norm(normal))
    return normal / length if length > 0 else normal


def place(positions: Array, orientation: tuple[float, ...], *, pixel: float) -> Placement:
    """Place slices that are sorted along the normal, no two at one position.

    Args:
        positions: (n, 3), n >= 2.
        orientation: the six direction cosines that they share.
        pixel: the smaller pixel spacing in mm, the yardstick for lean in the plane.
    """
    normal = normal_of(orientation)
    relative = positions - positions[0]
    offsets = relative @ normal
    steps = np.diff(offsets)
    base = _base(steps)
    counts = np.maximum(1, np.rint(steps / base))
    tolerance = min(max(_SHARE * base, _ROUNDING_MM), _MOST * base)
    index = np.concatenate([[0.0], np.cumsum(counts)])
    whole = bool(np.all(np.abs(steps - counts * base) <= 2 * tolerance))
    if not whole:  # no multiple of one step: every slice counts as one
        index = np.arange(len(offsets), dtype=np.float64)
    # The straight line through all slices, by least squares in their grid index.
    centered = index - index.mean()
    step = centered @ relative / (centered @ centered)
    along = float(step @ normal)
    line = relative.mean(axis=0) + centered[:, None] * step
    residual = relative - line
    deviation = np.abs(residual @ normal)
    in_plane = np.linalg.norm(residual - np.outer(residual @ normal, normal), axis=1)
    worst = float(deviation.max())
    even = whole and worst <= tolerance
    gaps = tuple((int(k), int(counts[k]) - 1) for k in np.flatnonzero(counts > 1)) if whole else ()

    lean = step - along * normal
    drift = float(np.linalg.norm(lean)) * index[-1]
    scatter = float(in_plane.max())
    is_shifted = scatter > max(0.1, 0.1 * pixel)
    tilted = drift > max(0.05 * pixel, 1e-3) and not is_shifted
    tilt = float(np.degrees(np.arctan2(np.linalg.norm(lean), along))) if tilted else 0.0
    return Placement(
        first=positions[0] + (line[0] if even else 0.0),
        step=step,
        offsets=offsets,
        gaps=gaps,
        worst=worst,
        even=even,
        tilt=tilt if tilt > 0.05 else 0.0,
        shift=scatter if is_shifted else 0.0,
    )


def _base(steps: Array) -> float:
    """Return the step of the grid: the median of those that cross no gap."""
    smallest = float(steps.min())
    return float(np.median(steps[steps <= 1.2 * smallest + 2 * SAME_MM]))
