# SPDX-License-Identifier: Apache-2.0
"""Check: whether a registration is to be believed, from evidence that needs no truth.

Two independent starts must end within a voxel of each other; no other place may explain the images
nearly as well; the images must tell of each other at all, overlap, and have moved no further than a
patient moves. Wrong maps fail these far more often than right ones; none of them is a proof, which
is why the picture is drawn. After the idea of multi-start consistency in Jenkinson & Smith 2001.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from vesalius.errors import NormalizationRefused
from vesalius.normalization.alignment.mutual_information import Comparison
from vesalius.normalization.alignment.poses import Found
from vesalius.normalization.alignment.transform import Transform, Verdict
from vesalius.types import Affine

LEAST_OVERLAP = 0.25  # share of the smaller foreground: below, refused
DOUBTFUL_OVERLAP = 0.5  # below, flagged
LEAST_INFORMATION = 0.05  # nats per point
RIVAL_SHARE = 0.95  # another place with this share of the information makes the map ambiguous
MOST_DEGREES = 30.0
SCALES = (0.85, 1.18)  # of an affine map along any direction


@dataclass(slots=True)
class Evidence:
    """What a registration leaves to judge it by.

    Attributes:
        found: the map that won, world of A -> world of B.
        kind: `identity`, `rigid` or `affine`.
        comparison: the images at full resolution.
        tolerance_mm: the longest voxel edge of the coarser image.
        second: what an independent start found, or None where nothing was searched.
        rivals: other places that were refined as far as `found`.
        reasons: doubts that were known before.
    """

    found: Found
    kind: str
    comparison: Comparison
    tolerance_mm: float
    second: Affine | None = None
    rivals: tuple[Found, ...] = ()
    reasons: list[str] = field(default_factory=list)


def refuse_apart(overlap: float, least: float = 0.02) -> None:
    """Refuse images whose foregrounds do not meet in the scanner's coordinates.

    Raises:
        NormalizationRefused: `overlap`.
    """
    if overlap < least:
        raise NormalizationRefused(
            "overlap",
            f"the foregrounds share {overlap:.1%} of the smaller one in the scanner's coordinates:"
            " they show different parts, or the frames differ; trust_frame=False searches from"
            " their centers instead",
        )


def judge(evidence: Evidence) -> Transform:
    """Return the map with its verdict.

    Raises:
        NormalizationRefused: `overlap`, less than `LEAST_OVERLAP` of the smaller foreground.
    """
    found, comparison = evidence.found, evidence.comparison
    overlap = comparison.overlap(found.matrix)
    if overlap < LEAST_OVERLAP:
        raise NormalizationRefused(
            "overlap",
            f"only {overlap:.0%} of the smaller foreground lies in the other image, at least "
            f"{LEAST_OVERLAP:.0%} are needed to tell whether they fit",
        )
    second = found.matrix if evidence.second is None else evidence.second
    agreement = comparison.distance_mm(found.matrix, second)
    transform = Transform(
        matrix=found.matrix,
        kind=evidence.kind,
        metric=found.information,
        overlap=overlap,
        agreement_mm=agreement,
        start=found.start,
        iterations=found.iterations,
    )
    reasons = [*evidence.reasons, *_doubts(evidence, transform)]
    return transform.judged(Verdict.FLAGGED if reasons else Verdict.PASSED, tuple(reasons))


def _doubts(evidence: Evidence, transform: Transform) -> list[str]:
    found, tolerance = evidence.found, evidence.tolerance_mm
    out = []
    if transform.agreement_mm > tolerance and found.start == evidence.kind == "identity":
        out.append(
            f"left where it is, though the images alone would move it {transform.agreement_mm:.1f} "
            f"mm, more than a voxel ({tolerance:.1f} mm), with little evidence"
        )
    elif transform.agreement_mm > tolerance:
        out.append(
            f"independent starts ended {transform.agreement_mm:.1f} mm apart, more than a voxel "
            f"({tolerance:.1f} mm)"
        )
    for rival in evidence.rivals:
        away = evidence.comparison.distance_mm(found.matrix, rival.matrix)
        share = rival.information / max(found.information, 1e-12)
        if away > tolerance and share > RIVAL_SHARE:
            out.append(f"a place {away:.1f} mm away explains the images {share:.0%} as well")
    if found.information < LEAST_INFORMATION:
        out.append(f"the images hardly tell of each other ({found.information:.3f} nats a point)")
    if transform.overlap < DOUBTFUL_OVERLAP:
        out.append(f"only {transform.overlap:.0%} of the smaller foreground overlap")
    if transform.rotation_degrees > MOST_DEGREES:
        out.append(f"a rotation by {transform.rotation_degrees:.0f} degrees")
    scales = np.linalg.svd(found.matrix[:3, :3], compute_uv=False)
    if scales.min() < SCALES[0] or scales.max() > SCALES[1]:
        out.append(f"a scaling between {scales.min():.2f} and {scales.max():.2f}")
    return out
