# SPDX-License-Identifier: Apache-2.0
"""Registration: find where one image of a patient lies in another, by mutual information.

    M* = argmax over rigid (or affine) M of I(A; B∘M)

A is the image with the smaller foreground. A grid of poses around the scanner's own coordinates,
and around the alignment of the foregrounds' centers, is scored at low resolution; the best basins
and the unmoved image are refined, the best of these level by level up to full resolution. The
unmoved image wins unless it is clearly worse: images of one session share a frame. Maes et al.,
IEEE TMI 1997; Wells et al., Med. Image Anal. 1996.

The result is judged by `alignment.check`: flagged where doubtful, refused where the images
overlap too little to tell. Declared laws: the same call gives the same numbers; swapping the two
images inverts the map, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vesalius.errors import NormalizationRefused, UsageError, did_you_mean
from vesalius.normalization.alignment.check import Evidence, judge, refuse_apart
from vesalius.normalization.alignment.mutual_information import Comparison, compare
from vesalius.normalization.alignment.poses import REACH_MM, STEP_MM, Found, distinct, pose, search
from vesalius.normalization.alignment.pyramid import Level, base_level, coarser
from vesalius.normalization.alignment.refinement import refine
from vesalius.normalization.alignment.transform import Transform
from vesalius.types import Array
from vesalius.volume import Volume

KINDS = ("identity", "rigid", "affine")
UNMOVED_SHARE = 0.97  # the unmoved image wins with this share of the best information
# PET tells little of the anatomy, and one gantry places it beside its CT better than the images do
HYBRID, HYBRID_SHARE = (frozenset({"CT", "PT"}), frozenset({"CT", "NM"})), 0.7
# of the smaller foreground, at the lowest resolution and at most at the highest
_COARSE_VOXELS, _FINE_VOXELS = 4000, 2_000_000
_COARSEST_MM, _FINEST_MM = 12.0, 1.0
_SEARCH_POINTS, _POINTS = 1000, 20_000
LEAST_START_OVERLAP = 0.1
_CANDIDATES, _BASINS, _FINALISTS = 60, 6, 2
# the second opinion starts this far from the result
_NUDGE_DEGREES, _NUDGE_MM = np.array([3.0, -3.0, 3.0]), np.array([-4.0, 4.0, 4.0])


def register(
    fixed: Volume,
    moving: Volume,
    *,
    kind: str = "rigid",
    trust_frame: bool = True,
    seed: int = 0,
) -> Transform:
    """Return the map from `fixed`'s world to `moving`'s, with a verdict on itself.

    Args:
        fixed: the image that stays.
        moving: another image of the same patient, any modality; channels are averaged.
        kind: `rigid`, `affine`, or `identity`: move nothing, only judge the coordinates as given.
        trust_frame: whether the scanner's coordinates are roughly right. Then images that lie
            apart in them are refused, and the unmoved image wins unless it is clearly worse (PET
            or SPECT beside CT: unless it is worse by far). False searches from the foregrounds'
            centers too, and favors nothing.
        seed: of the drawing of points.

    Raises:
        UsageError: unknown kind.
        NormalizationRefused: `overlap`, or an image is `empty`, `constant`, `non-finite` or
            `too-thin` (see `pyramid.base_level`).
    """
    if kind not in KINDS:
        raise UsageError(
            f"kind must be one of {', '.join(KINDS)}, got '{kind}'.{did_you_mean(kind, KINDS)}"
        )
    one, two = base_level(fixed), base_level(moving)
    swapped = two.volume_mm3 < one.volume_mm3
    pair = _Pair.of(*((two, one) if swapped else (one, two)), seed)
    if trust_frame or kind == "identity":
        refuse_apart(pair.low.overlap(np.eye(4)))
    share = HYBRID_SHARE if {fixed.modality, moving.modality} in HYBRID else UNMOVED_SHARE
    share = share if trust_frame else np.inf
    found = _identity(pair) if kind == "identity" else _moved(pair, kind, share)
    if not (fixed.calibrated and moving.calibrated):
        found.reasons.append("a file states no spacing: millimeters are not real")
    transform = judge(found)
    return transform.inverse() if swapped else transform


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """Two images at each resolution, coarse to fine, and their comparison at both ends.

    `low` has few points at the lowest resolution, for the search, `middle` many, to rank basins;
    `full` has many at the highest, for the decision. `voxel_mm` is the longest edge of a voxel.
    """

    levels: tuple[tuple[Level, Level], ...]
    steps_mm: tuple[float, ...]
    voxel_mm: float
    center: Array
    low: Comparison
    middle: Comparison
    full: Comparison
    seed: int

    @classmethod
    def of(cls, a: Level, b: Level, seed: int) -> _Pair:
        enough = float(np.cbrt(a.volume_mm3 / _FINE_VOXELS))
        finest = max(a.mean_spacing_mm, b.mean_spacing_mm, _FINEST_MM, enough)
        coarse = float(np.clip(np.cbrt(a.volume_mm3 / _COARSE_VOXELS), finest, _COARSEST_MM))
        spacings = [coarse]
        while spacings[-1] > finest * 1.2:
            half = spacings[-1] / 2
            spacings.append(half if half > finest * 1.5 else finest)
        levels: list[tuple[Level, Level]] = []
        for spacing in reversed(spacings):
            one, two = levels[0] if levels else (a, b)
            levels.insert(0, (coarser(one, spacing), coarser(two, spacing)))
        return cls(
            levels=tuple(levels),
            steps_mm=tuple(spacing / 2 for spacing in spacings),
            voxel_mm=float(max(a.spacing_mm.max(), b.spacing_mm.max())),
            center=a.center,
            low=compare(*levels[0], _SEARCH_POINTS, seed=seed),
            middle=compare(*levels[0], _POINTS, seed=seed),
            full=compare(*levels[-1], _POINTS, seed=seed),
            seed=seed,
        )

    def climb(self, found: Found, kind: str, levels: range, draw: int) -> Found:
        """Return `found` refined through some of the levels; `draw` tells its points apart."""
        for n in levels:
            matrix, steps = refine(
                *self.levels[n],
                found.matrix,
                self.center,
                kind=kind,
                seed=1 + self.seed * 1000 + draw * 10 + n,
                step_mm=self.steps_mm[n],
            )
            found = replace(found, matrix=matrix, iterations=found.iterations + steps)
        end = self.middle if levels.stop == 1 else self.full
        return replace(found, information=end.information(found.matrix))


def _identity(pair: _Pair) -> Evidence:
    unmoved = Found(np.eye(4), pair.full.information(np.eye(4)), "identity")
    return Evidence(unmoved, "identity", pair.full, pair.voxel_mm)


def _moved(pair: _Pair, kind: str, unmoved_share: float) -> Evidence:
    top = len(pair.levels)
    basins = distinct(_basins(pair), pair.middle, pair.steps_mm[0])[:_FINALISTS]
    if not basins:
        raise NormalizationRefused(
            "overlap", "no pose that was tried lays one foreground on the other"
        )
    last = range(max(0, top - 2), top)
    finalists = [pair.climb(one, "rigid", range(1, top), n) for n, one in enumerate(basins)]
    if kind == "affine":
        finalists = [pair.climb(one, kind, range(top), 10 + n) for n, one in enumerate(finalists)]
        finalists = [pair.climb(one, kind, last, 20 + n) for n, one in enumerate(finalists)]
    finalists.sort(key=lambda one: -one.information)
    best = finalists[0]
    unmoved = _identity(pair).found
    if unmoved.information >= unmoved_share * best.information:
        return Evidence(unmoved, "identity", pair.full, pair.voxel_mm, best.matrix)
    nudged = best.matrix @ pose(_NUDGE_DEGREES, _NUDGE_MM, pair.center)
    second = pair.climb(replace(best, matrix=nudged), kind, last, 30)
    return Evidence(best, kind, pair.full, pair.voxel_mm, second.matrix, tuple(finalists[1:]))


def _basins(pair: _Pair) -> list[Found]:
    """Return every start refined at the lowest resolution; one that runs off B is no candidate."""
    found = []
    for n, start in enumerate(_starts(pair)):
        try:
            found.append(pair.climb(start, "rigid", range(1), n))
        except NormalizationRefused:
            continue
    return found


def _starts(pair: _Pair) -> list[Found]:
    """Return the unmoved image and the best basins of the grid, where the images overlap."""
    apart = pair.levels[0][1].center - pair.center
    grid = search(pair.low, pair.center, np.zeros(3), REACH_MM, "search")
    if np.linalg.norm(apart) > STEP_MM:
        grid += search(pair.low, pair.center, apart, STEP_MM, "centers")
    grid = sorted(grid, key=lambda one: -one.information)[:_CANDIDATES]
    best = distinct(grid, pair.low, 3 * pair.steps_mm[0])[:_BASINS]
    starts = [Found(np.eye(4), 0.0, "identity"), *best]
    return [one for one in starts if pair.low.overlap(one.matrix) >= LEAST_START_OVERLAP]
