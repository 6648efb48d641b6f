# SPDX-License-Identifier: Apache-2.0
"""What headers alone tell about defects of one stack; each problem under its finding's name."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vesalius.io.dicom.placement import Placement, normal_of
from vesalius.io.dicom.slices import Slice
from vesalius.results import Severity

# Modalities whose single planes have a place in the patient.
VOLUMETRIC = frozenset({"CT", "MR", "PT"})
# Modalities that change the slope from slice to slice on purpose.
_OWN_SLOPES = frozenset({"PT", "NM"})

_MOST_TILT = 45.0  # degrees; gantries tilt by 30 at most


def is_placed(s: Slice) -> bool:
    """Return whether a slice states a position and an orientation that spans a plane."""
    if s.position is None or s.orientation is None:
        return False
    a, b, c, d, e, f = s.orientation
    normal = (b * f - c * e, c * d - a * f, a * e - b * d)
    return math.hypot(a, b, c) > 0.5 and math.hypot(d, e, f) > 0.5 and math.hypot(*normal) > 0.5


class Problem(NamedTuple):
    """One defect of a stack: finding, severity, slice along k or None, sentence, numbers."""

    name: str
    severity: Severity
    slice: int | None
    message: str
    evidence: Mapping[str, Any]


def identity(slices: Sequence[Slice]) -> Iterator[Problem]:
    """Look for several patients or studies under one series; their images are never mixed."""
    patients = [s.header.patient_id for s in slices]
    studies = [s.header.study_uid for s in slices]
    for name, what, values in (
        ("two-patients", "patients", patients),
        ("two-studies", "studies", studies),
    ):
        counts = sorted((values.count(value) for value in set(values)), reverse=True)
        if len(counts) > 1:
            yield Problem(
                name,
                "error",
                None,
                f"the series holds slices of {len(counts)} {what} ({_listed(counts)} slices); "
                "they are kept apart: find out to whom they belong",
                {"slices": counts},
            )


def orientations(clusters: Sequence[tuple[tuple[float, ...], int]]) -> Iterator[Problem]:
    """Look for several orientations, given as `(cosines, slices)`, in one series of images."""
    if len(clusters) < 2:
        return
    counts = [count for _, count in clusters]
    normals = [normal_of(cosines) for cosines, _ in clusters]
    evidence = {"slices": counts, "cosines": [list(cosines) for cosines, _ in clusters]}
    parallel = any(
        abs(float(a @ b)) > 0.999 for n, a in enumerate(normals) for b in normals[n + 1 :]
    )
    if parallel:
        yield Problem(
            "orientation-contradiction",
            "error",
            None,
            f"slices of one plane state {len(clusters)} different row or column directions "
            f"({_listed(counts)} slices): some are mirrored or turned; check the export",
            evidence,
        )
    else:
        yield Problem(
            "mixed-orientation",
            "warning",
            None,
            f"the series holds {len(clusters)} orientations ({_listed(counts)} slices); each "
            "becomes an image of its own",
            evidence,
        )


def cosines(s: Slice) -> Iterator[Problem]:
    """Look whether one orientation is a pair of unit vectors at right angles, and plausible."""
    if s.orientation is None:
        return
    row, column = np.array(s.orientation[:3]), np.array(s.orientation[3:])
    lengths = float(np.linalg.norm(row)), float(np.linalg.norm(column))
    dot = float(row @ column)
    if max(abs(lengths[0] - 1), abs(lengths[1] - 1), abs(dot)) > 1e-3:
        yield Problem(
            "orientation-contradiction",
            "error",
            None,
            "row and column directions must be unit vectors at right angles, got lengths "
            f"{lengths[0]:.4f} and {lengths[1]:.4f} with a product of {dot:.4f}; geometry is "
            "unsound",
            {
                "cosines": list(s.orientation),
                "lengths": list(lengths),
                "product": dot,
                "unsound": True,
            },
        )
        return
    types = {value.upper() for value in s.image_type}
    if s.header.modality != "CT" or not {"ORIGINAL", "AXIAL"} <= types:
        return
    across = abs(float(normal_of(s.orientation)[2]))
    upside_down = s.header.patient_position in ("HFS", "FFS") and column[1] < -0.5
    if across < 0.5 or upside_down:
        yield Problem(
            "orientation-contradiction",
            "warning",
            None,
            "an original axial CT "
            + ("has slices that are not axial" if across < 0.5 else "of a supine patient is "
               "stated upside down")
            + "; check the orientation",
            {"cosines": list(s.orientation), "patient_position": s.header.patient_position},
        )  # fmt: skip


def side_by_side(slices: Sequence[Slice]) -> Problem:
    """Return the problem of slices that all lie in one plane: positions run within it."""
    positions = np.array([s.position for s in slices])
    reach = float(np.linalg.norm(np.ptp(positions, axis=0)))
    return Problem(
        "orientation-contradiction",
        "error",
        None,
        f"all {len(slices)} slices lie in one plane, up to {reach:.1f} mm apart: orientation or "
        "positions are wrong; they are in the order of their instance numbers",
        {"slices": len(slices), "reach_mm": reach, "unsound": True},
    )


def placing(placement: Placement, slices: Sequence[Slice], *, lenient: bool) -> Iterator[Problem]:
    """Report gaps, unevenness, tilt and scatter of a stack that was placed."""
    severity: Severity = "info" if lenient else "error"
    spacing = float(np.linalg.norm(placement.step))
    if placement.gaps:
        missing = sum(count for _, count in placement.gaps)
        k, count = placement.gaps[0]
        gap = float(placement.offsets[k + 1] - placement.offsets[k])
        yield Problem(
            "missing-slices",
            severity,
            k,
            f"{missing} slice(s) missing at {len(placement.gaps)} place(s), the first after slice "
            f"{k}: gap of {gap:.3f} mm where {gap / (count + 1):.3f} mm expected; find the "
            "files, or read with allow_gaps=True",
            {"gaps": [list(g) for g in placement.gaps], "gap_mm": gap, "spacing_mm": spacing},
        )
    if not placement.even:
        steps = np.diff(placement.offsets)
        worst = int(np.abs(steps - np.median(steps)).argmax())
        yield Problem(
            "uneven-spacing",
            severity,
            worst,
            f"steps between slices range from {steps.min():.3f} to {steps.max():.3f} mm, worst "
            f"after slice {worst}; read with resample_irregular=True to interpolate",
            {"smallest_mm": float(steps.min()), "largest_mm": float(steps.max()),
             "worst_offset_mm": placement.worst},
        )  # fmt: skip
    if placement.tilt > _MOST_TILT:
        yield Problem(
            "orientation-contradiction",
            "error",
            None,
            f"positions run {placement.tilt:.1f} degrees off the normal of the stated orientation, "
            "more than any gantry tilts: orientation or positions are wrong",
            {"degrees": placement.tilt, "unsound": True},
        )
    elif placement.tilt:
        stated = slices[0].header.gantry_tilt
        yield Problem(
            "gantry-tilt",
            severity,
            None,
            f"slices lean {placement.tilt:.2f} degrees off their normal"
            + (f" (stated gantry tilt {stated:g})" if stated is not None else "")
            + "; read with resample_irregular=True to straighten",
            {"degrees": placement.tilt, "stated_degrees": stated},
        )
    if placement.shift:
        yield Problem(
            "uneven-spacing",
            severity,
            None,
            f"slices are shifted against each other by up to {placement.shift:.3f} mm in their "
            "plane; no grid holds them: check the positions",
            {"shift_mm": placement.shift, "unsound": True},
        )


def values(slices: Sequence[Slice], kind: str) -> Iterator[Problem]:
    """Report slopes, spacing, positions and pixel data of the slices of one stack, in order."""
    header = slices[0].header
    modality = header.modality or ""
    slopes = [(1.0 if s.slope is None else s.slope, s.intercept or 0.0) for s in slices]
    zero = [k for k, (slope, _) in enumerate(slopes) if slope == 0]
    if zero:
        yield Problem(
            "uneven-slope",
            "error",
            zero[0],
            f"rescale slope is 0 in {len(zero)} slice(s): their values are lost",
            {"slices": zero[:100]},
        )
    elif len(set(slopes)) > 1 and modality not in _OWN_SLOPES and header.functional_groups is None:
        odd = next(k for k, pair in enumerate(slopes) if pair != slopes[0])
        distinct = sorted(set(slopes))
        yield Problem(
            "uneven-slope",
            "warning",
            odd,
            f"{len(distinct)} different rescale slopes and intercepts in one series, first change "
            f"at slice {odd}; each slice is scaled by its own: check that this is meant",
            {"pairs": [list(pair) for pair in distinct[:10]]},
        )
    if kind in ("image", "localizer", "dose", "parametric-map"):
        if slices[0].pixel_spacing is None:
            yield Problem(
                "no-spacing",
                "warning",
                None,
                "no pixel spacing is stated: distances, areas and volumes are in pixels",
                {},
            )
        if not is_placed(slices[0]) and modality in VOLUMETRIC:
            yield Problem(
                "no-position",
                "error" if len(slices) > 1 else "warning",
                None,
                "no usable position or orientation is stated: slices are in the order of their "
                "instance numbers and have no place in the patient",
                {"slices": len(slices)},
            )
    for k, s in enumerate(slices):
        if s.frame == 0 and s.header.missing_bytes:
            yield Problem(
                "truncated-pixel-data",
                "error",
                k,
                f"slice {k}: {s.header.missing_bytes:,} bytes of its pixel data are missing",
                {"missing_bytes": s.header.missing_bytes},
            )
        if s.frame == 0 and s.header.invalid:
            yield Problem(
                "invalid-header-value",
                "warning",
                k,
                f"slice {k}: unreadable value of {', '.join(s.header.invalid)}",
                {"attributes": list(s.header.invalid)},
            )


def _listed(counts: Sequence[int]) -> str:
    return " + ".join(map(str, counts[:6])) + (" + …" if len(counts) > 6 else "")
