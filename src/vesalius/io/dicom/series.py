# SPDX-License-Identifier: Apache-2.0
"""One series taken apart into geometric stacks, each sorted along its normal, with its problems.

A stack holds parallel slices of one size, kind, patient and contrast. Where positions repeat, the
slices are told apart by contrast (echo, complex component, b-value, …: separate stacks) or by time
(temporal position, trigger time, acquisition, …: time points of one stack, which become channels
`t0`, `t1`, … of its volume); what is left over at one position is a duplicate. Files may come in
any order; instance numbers serve only where positions are absent.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from vesalius.geometry import LPS_TO_RAS, flat_affine
from vesalius.io.dicom import checks
from vesalius.io.dicom.checks import Problem
from vesalius.io.dicom.header import Header
from vesalius.io.dicom.kinds import IMAGES, kind_of
from vesalius.io.dicom.multiframe import slices_of
from vesalius.io.dicom.placement import Placement, normal_of, place
from vesalius.io.dicom.separation import Separated, is_side_by_side, separate
from vesalius.io.dicom.slices import Slice, slice_of
from vesalius.io.limits import DEFAULT_LIMITS, Limits
from vesalius.types import Affine, PathLike, Shape3, Spacing3

# Cosines that differ by no more than this are one orientation (files round to 4-6 digits).
_SAME_COSINES = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """Parallel slices that form one image, in order.

    Attributes:
        times: for each time point its slices along k.
        kind: see `kinds.kind_of`.
        label: what tells it from the other stacks of its series, for example `echo 4.6`, or ``.
        affine: (4, 4) voxel index to RAS+ mm; its third column is the step between slices, which
            leans off the normal where the gantry was tilted.
        placed: whether position and orientation are stated.
        offsets: millimeters of each slice along the normal.
        gaps: `(index of the slice before it, slices missing)`.
        even: whether the slices lie on one even grid, gaps left aside.
        tilt: degrees between step and normal.
        duplicates: slices left out because another one is at their place.
        problems: what is wrong with it, under the names of findings.
    """

    times: tuple[tuple[Slice, ...], ...]
    kind: str
    label: str
    affine: Affine
    placed: bool
    offsets: tuple[float, ...]
    gaps: tuple[tuple[int, int], ...] = ()
    even: bool = True
    tilt: float = 0.0
    duplicates: tuple[Slice, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def slices(self) -> tuple[Slice, ...]:
        """The slices of the first time point, along k."""
        return self.times[0]

    @property
    def header(self) -> Header:
        """The header of the first slice."""
        return self.times[0][0].header

    @property
    def modality(self) -> str:
        """DICOM modality code, or ``."""
        return self.header.modality or ""

    @property
    def files(self) -> tuple[str, ...]:
        """The files in the order of their slices, each once."""
        return tuple(dict.fromkeys(s.path for time in self.times for s in time))

    @property
    def shape(self) -> Shape3:
        """Voxels along (i, j, k): columns, rows, slices that are there."""
        return self.header.columns or 0, self.header.rows or 0, len(self.slices)

    @property
    def spacing(self) -> Spacing3:
        """Millimeters between neighbors along (i, j, k)."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(i), float(j), float(k)

    @property
    def calibrated(self) -> bool:
        """Whether millimeters are real: spacing is stated and slices that need one have a place."""
        return self.slices[0].pixel_spacing is not None and (self.placed or len(self.slices) == 1)


def stacks(
    headers: Iterable[tuple[PathLike, Header]], *, limits: Limits = DEFAULT_LIMITS
) -> list[Stack]:
    """Take one series apart into geometric stacks; images first, the largest first.

    Args:
        headers: path and header of each file of the series, in any order.
        limits: bounds for multi-frame files, whose functional groups are read here.

    Raises:
        CorruptFile: a multi-frame file contradicts itself.
    """
    slices: list[Slice] = []
    kinds: dict[int, str] = {}
    for path, header in headers:
        kinds[id(header)] = kind = kind_of(header)
        if kind in IMAGES:
            slices += slices_of(path, header, limits=limits)
        else:
            slices.append(slice_of(os.fspath(path), header))
    slices.sort(key=_natural)
    shared = list(checks.identity([s for s in slices if kinds[id(s.header)] in IMAGES]))

    clusters: list[tuple[float, ...]] = []
    groups: dict[Hashable, list[Slice]] = defaultdict(list)
    turned: dict[Hashable, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for s in slices:
        kind = kinds[id(s.header)]
        header = s.header
        whose = (header.patient_id, header.study_uid)
        if kind not in IMAGES:
            groups[kind, s.path].append(s)
            continue
        size = (header.rows, header.columns, header.samples, header.photometric, s.stack)
        if checks.is_placed(s):
            cluster = _cluster(clusters, s.orientation or ())
            spacing = tuple(round(x, 4) for x in s.pixel_spacing or ())
            groups[kind, whose, size, cluster, spacing].append(s)
            if kind == "image":
                turned[whose][cluster] += 1
        elif header.modality in checks.VOLUMETRIC and (header.frames or 1) == 1:
            groups[kind, whose, size].append(s)
        else:
            groups[kind, s.path].append(s)

    orientation = {
        whose: list(checks.orientations([(clusters[c], n) for c, n in counts.items()]))
        for whose, counts in turned.items()
    }
    result = []
    for members in groups.values():
        kind = kinds[id(members[0].header)]
        whose = (members[0].header.patient_id, members[0].header.study_uid)
        if kind not in IMAGES:
            result.append(_unplaced(members[:1], kind, []))
        elif not checks.is_placed(members[0]):
            result.append(_unplaced(members, kind, shared))
        elif is_side_by_side(members):
            result.append(_unplaced(members, kind, [*shared, checks.side_by_side(members)]))
        else:
            known = shared + (orientation.get(whose, []) if kind == "image" else [])
            result += [_placed(part, kind, known) for part in separate(members)]
    return sorted(
        result, key=lambda s: (s.kind != "image", -len(s.slices), _natural(s.slices[0]), s.label)
    )


def _natural(s: Slice) -> tuple[Any, ...]:
    """Return an order that does not depend on the order in which files were named."""
    number = s.number if s.number is not None else 1 << 40
    return number, s.header.sop_instance or "", s.frame, os.path.basename(s.path), s.path


def _cluster(clusters: list[tuple[float, ...]], cosines: tuple[float, ...]) -> int:
    for n, known in enumerate(clusters):
        if max(abs(a - b) for a, b in zip(known, cosines, strict=True)) <= _SAME_COSINES:
            return n
    clusters.append(cosines)
    return len(clusters) - 1


def _placed(part: Separated, kind: str, known: list[Problem]) -> Stack:
    slices = part.times[0]
    head = slices[0]
    orientation = head.orientation or ()
    between_rows, between_columns = head.pixel_spacing or (1.0, 1.0)
    found = [*known, *checks.cosines(head)]
    positions = np.array([s.position for s in slices], dtype=np.float64)
    placement: Placement | None = None
    if len(slices) > 1:
        placement = place(positions, orientation, pixel=min(between_rows, between_columns))
        found += checks.placing(placement, slices, lenient=kind not in ("image", "dose"))
    found += _duplicates(part)
    found += checks.values([s for time in part.times for s in time], kind)
    matrix = np.eye(4)
    matrix[:3, 0] = np.array(orientation[:3]) * between_columns
    matrix[:3, 1] = np.array(orientation[3:]) * between_rows
    thickness = head.spacing_between or head.thickness or 1.0
    matrix[:3, 2] = placement.step if placement else normal_of(orientation) * abs(thickness)
    matrix[:3, 3] = placement.first if placement else positions[0]
    return Stack(
        tuple(map(tuple, part.times)),
        kind,
        part.label,
        LPS_TO_RAS @ matrix,
        placed=True,
        offsets=tuple(map(float, placement.offsets)) if placement else (0.0,),
        gaps=placement.gaps if placement else (),
        even=placement.even if placement else True,
        tilt=placement.tilt if placement else 0.0,
        duplicates=tuple(part.duplicates),
        problems=tuple(found),
    )


def _unplaced(members: list[Slice], kind: str, known: list[Problem]) -> Stack:
    """Make a stack of slices without position: frames are time points, files are slices."""
    head = members[0]
    one_file = len({s.path for s in members}) == 1
    times = [[s] for s in members] if one_file else [members]
    between_rows, between_columns = head.pixel_spacing or (1.0, 1.0)
    thickness = abs(head.spacing_between or head.thickness or 1.0)
    found = [*known]
    if kind in IMAGES:
        found += checks.values(members, kind)
    return Stack(
        tuple(map(tuple, times)),
        kind,
        "",
        flat_affine((between_columns, between_rows, thickness)),
        placed=False,
        offsets=tuple(thickness * n for n in range(len(times[0]))),
        problems=tuple(found),
    )


def _duplicates(part: Separated) -> list[Problem]:
    if not part.duplicates:
        return []
    slices = part.times[0]
    spots = np.array([s.position for s in slices])
    places = []
    same = True
    for copy in part.duplicates:
        k = int(np.abs(spots - copy.position).max(axis=1).argmin())
        places.append(k)
        twin, header = slices[k].header, copy.header
        same &= copy.frame == slices[k].frame and (
            (header.sop_instance is not None and header.sop_instance == twin.sop_instance)
            or (header.sha256 is not None and header.sha256 == twin.sha256)
        )
    return [
        Problem(
            "duplicate-slices",
            "warning" if same else "error",
            places[0],
            f"{len(places)} slice(s) lie where another one lies, the first at slice {places[0]}; "
            + ("they are copies and were left out" if same else
               "nothing tells them apart: the one with the lowest instance number was kept"),
            {"slices": places[:100], "copies": same},
        )
    ]  # fmt: skip
