# SPDX-License-Identifier: Apache-2.0
"""One unit of a scan to its rows and findings: read, measure, check. Runs in the workers."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vesalius.cohorts import parsing, reading
from vesalius.cohorts.index import to_name
from vesalius.cohorts.packing import Unpacker
from vesalius.cohorts.parsing import Settings
from vesalius.cohorts.quality.findings import finding
from vesalius.cohorts.quality.stack import check_stack
from vesalius.cohorts.schema import empty_row
from vesalius.errors import GeometryError, ReadError, UsageError
from vesalius.geometry import slice_plane
from vesalius.io.dicom.kinds import IMAGES
from vesalius.io.dicom.series import Stack, stacks
from vesalius.results import Finding
from vesalius.types import Json
from vesalius.volume import LabelMap, Volume

Made = tuple[str, list[tuple[str, str]], list[str]]


def make_rows(item: tuple[str, str, Json, int], settings: Settings) -> Made:
    """Return `(unit, rows, findings)` of a planned unit, rows and findings as JSON; never raises.

    `item` is `(id, kind, plan, weight)`.
    """
    unit, kind, plan, _ = item
    makers = {"dicom": _series, "file": _file, "npz": _arrays, "zip": _zip}
    rows: list[tuple[str, str]] = []
    found: list[str] = []
    try:
        for row, findings in makers[kind](plan, settings):
            if row is not None:
                rows.append((row["key"], json.dumps(row, default=bytes.hex)))
            found += [parsing.packed(one) for one in findings]
    except ReadError as error:
        found.append(parsing.packed(replace(_finding(error), file=_first(plan))))
    except Exception as error:  # hostile input may break a library anywhere: recorded, not raised
        found.append(json.dumps({**json.loads(parsing.defect(error)), "file": _first(plan)}))
    return unit, rows, found


Row = Json | None
Part = tuple[Row, list[Finding]]


def _series(plan: Json, settings: Settings) -> Iterator[Part]:
    """Yield the rows of one DICOM series: one a geometric stack."""
    root = settings.roots[plan["root"]]
    names = {os.path.join(root, to_name(path)): path for path, _ in plan["files"]}
    unpack = Unpacker(plan["bases"]).unpack
    headers = [(path, unpack(text)) for path, (_, text) in zip(names, plan["files"], strict=True)]
    hashes = {path: header.sha256 or "" for path, header in headers}
    found = stacks(headers, limits=settings.limits)
    images = [stack for stack in found if stack.kind in IMAGES]
    for number, stack in enumerate(images):
        row = _stack_row(plan, stack, number, names, settings)
        row["file_hash"] = _joined([hashes[path] for path in stack.files])
        shared = set(stack.files) & {f for s in images if s is not stack for f in s.files}
        if shared:
            row["member"] = reading.members_of(stack, headers, settings.limits)
        findings = check_stack(stack)
        if settings.pixels:
            findings += _measure_stack(row, stack, settings)
        yield _finished(row, findings, plan)


def _stack_row(
    plan: Json, stack: Stack, number: int, names: dict[str, str], settings: Settings
) -> Json:
    pseudonym = settings.pseudonyms
    head = stack.header
    row = empty_row()
    samples = 3 if head.photometric == "PALETTE COLOR" else head.samples or 1
    row |= {
        "key": pseudonym("row", plan["root"], "series", plan["series"], str(number)),
        "format": "dicom",
        "root": plan["root"],
        "files": [names[path] for path in stack.files],
        "study": pseudonym("study", head.study_uid or ""),
        "series": pseudonym("series", plan["series"]),
        "modality": stack.modality,
        "body_part": head.body_part or "",
        "laterality": head.laterality or "",
        "view": head.view or "",
        "plane": slice_plane(stack.affine) if stack.placed else "",
        "kind": stack.kind,
        "scanner": "|".join(filter(None, (head.manufacturer, head.model))),
        "site": head.institution or "",
        "description": " | ".join(
            dict.fromkeys(filter(None, (head.series_description, head.study_description)))
        ),
        "shape": [len(stack.times) * samples, *stack.shape],
        "spacing": list(stack.spacing),
        "affine": stack.affine.reshape(-1).tolist(),
        "calibrated": stack.calibrated,
        "transfer_syntax": head.transfer_syntax or "",
        "bytes": sum({s.path: s.header.file_size or 0 for t in stack.times for s in t}.values()),
    }
    if plan.get("patient"):
        row |= {"patient": plan["patient"], "patient_source": "path"}
    elif head.patient_id:
        row |= {"patient": head.patient_id, "patient_source": "dicom"}
    else:
        owner = head.study_uid or plan["series"]
        row |= {"patient": pseudonym("patient", "study", owner), "patient_source": "none"}
    row["split"] = plan.get("split")
    row["labels"] = plan.get("labels") or {}
    if plan.get("mask") and stack.kind == "image":
        path, form = plan["mask"]
        row |= {"mask_files": [path], "mask_format": form}
    return row


def _measure_stack(row: Json, stack: Stack, settings: Settings) -> list[Finding]:
    from vesalius.io.dicom.assemble import assemble

    try:
        volume = assemble(stack, limits=settings.limits)
    except GeometryError as error:
        known = {problem.name for problem in stack.problems}
        return [] if error.evidence.get("problem") in known else [_finding(error)]
    except ReadError as error:
        known = {problem.name for problem in stack.problems if problem.severity == "error"}
        return [] if "truncated-pixel-data" in known else [_finding(error)]
    return _measure(row, volume, settings)


def _file(plan: Json, settings: Settings) -> Iterator[Part]:
    """Yield the row of one image file, or of the files that are the channels of one case."""
    row = _plain_row(plan, settings)
    if not settings.pixels:
        yield _finished(row, [], plan)
        return
    volume = reading.read_image(
        _paths(plan, row["files"], settings), row["format"], "", settings.limits
    )
    findings: list[Finding] = []
    if isinstance(volume, LabelMap) and not row["mask_files"]:
        row["kind"] = "label-map"
        findings.append(finding("mask-without-image", "a label map belongs to no image"))
    yield _finished(row, findings + _measure(row, volume, settings), plan)


def _arrays(plan: Json, settings: Settings) -> Iterator[Part]:
    """Yield the rows of a run of images in one array of an NPZ file."""
    from vesalius.io import npz

    base = _plain_row(plan, settings)
    path = _paths(plan, base["files"], settings)[0]
    labels = _npz_labels(path, plan, settings)
    for index in range(plan["start"], plan["stop"]):
        member = f"{plan['array']}[{index}]"
        row = {**base, "member": member, "mask_files": [], "labels": dict(base["labels"])}
        row["key"] = settings.pseudonyms("row", plan["root"], plan["files"][0], member)
        if plan.get("single"):
            row["patient"] = settings.pseudonyms("patient", "image", row["key"])
        if labels is not None:
            values = labels[index - plan["start"]]
            names = ["label"] if len(values) == 1 else [f"label_{n}" for n in range(len(values))]
            row["labels"] |= dict(zip(names, values, strict=True))
        findings: list[Finding] = []
        if settings.pixels:
            try:
                volume = npz.read(path, member=member, limits=settings.limits)
                findings = _measure(row, volume, settings)
            except ReadError as error:
                findings = [_finding(error)]
        yield _finished(row, findings, plan)


def _npz_labels(path: Path, plan: Json, settings: Settings) -> list[list[Any]] | None:
    if not plan.get("label_array"):
        return None
    from vesalius.cohorts.layouts.medmnist import read_labels

    table = read_labels(path, plan["label_array"], settings.limits)
    found: list[list[Any]] = table[plan["start"] : plan["stop"]].tolist()
    return found


def _zip(plan: Json, settings: Settings) -> Iterator[Part]:
    """Yield a row for every image in a zip of DICOM files."""
    from vesalius import io

    base = _plain_row(plan, settings)
    path = _paths(plan, base["files"], settings)[0]
    if not settings.pixels:
        yield _finished(base, [], plan)
        return
    for number, volume in enumerate(io.read_all(path, limits=settings.limits)):
        row = {**base, "member": f"image[{number}]", "kind": "image"}
        row["key"] = settings.pseudonyms("row", plan["root"], plan["files"][0], row["member"])
        if isinstance(volume, LabelMap):
            row["kind"] = "label-map"
        yield _finished(row, _measure(row, volume, settings), plan)


def _plain_row(plan: Json, settings: Settings) -> Json:
    pseudonym = settings.pseudonyms
    row = empty_row()
    row |= {
        "key": pseudonym("row", plan["root"], plan["files"][0], ""),
        "format": plan["format"],
        "root": plan["root"],
        "files": plan["files"],
        "study": pseudonym("study", *plan["study"]) if plan.get("study") else "",
        "kind": "image",
        "bytes": plan["bytes"],
        "file_hash": _joined(plan["hashes"]),
        "labels": plan.get("labels") or {},
    }
    for name in ("modality", "body_part", "view", "laterality", "scanner", "description", "words",
                 "split"):  # fmt: skip
        if plan.get(name):
            row[name] = plan[name]
    if plan.get("patient"):
        row |= {"patient": plan["patient"], "patient_source": "path"}
    else:
        own = pseudonym("patient", "image", row["key"])
        row |= {"patient": own, "patient_source": "none"}
    if plan.get("boxes") is not None:
        row["boxes"] = json.dumps(plan["boxes"])
    if plan.get("mask"):
        row |= {"mask_files": [plan["mask"]], "mask_format": plan["mask_format"]}
    if plan.get("mask_names"):
        row["mask_names"] = json.dumps(plan["mask_names"])
    return row


def _measure(row: Json, volume: Volume, settings: Settings) -> list[Finding]:
    """Fill the pixel columns of a row and return what is wrong with the image and its mask."""
    from vesalius.cohorts.assess import assess  # late: a scan of headers alone does without
    from vesalius.cohorts.quality import check_image

    row["modality"] = row["modality"] or volume.modality
    row["shape"] = list(map(int, volume.data.shape))
    row["spacing"] = [float(np.float32(value)) for value in volume.spacing]
    row["affine"] = volume.affine.reshape(-1).tolist()
    row["dtype"] = volume.data.dtype.name
    row["calibrated"] = bool(volume.calibrated)
    if row["format"] not in ("dicom", "dicom-zip") and volume.calibrated and not volume.is_2d:
        row["plane"] = slice_plane(volume.affine)
    row |= assess(volume).columns()
    mask, findings = _mask(row, volume, settings)
    return findings + check_image(volume, row, mask)


def _mask(row: Json, volume: Volume, settings: Settings) -> tuple[LabelMap | None, list[Finding]]:
    if not row["mask_files"]:
        return None, []
    root = settings.roots[row["root"]]
    paths = [Path(root, to_name(path)) for path in row["mask_files"]]
    names = {int(value): name for value, name in json.loads(row["mask_names"] or "{}").items()}
    try:
        mask = reading.read_mask(
            paths,
            row["mask_member"],
            (lambda: volume) if "dicom" in (row["format"], row["mask_format"]) else None,
            names,
            settings.limits,
        )
    except (ReadError, UsageError) as error:
        if isinstance(error, UsageError):
            return None, [finding("corrupt-file", "the mask cannot be read on its image's grid")]
        one = _finding(error)
        if isinstance(error, GeometryError):
            one = finding("mask-off-grid", error.reason, error.evidence)
        return None, [replace(one, message=f"mask: {one.message}", file=row["mask_files"][0])]
    stated = mask.names or {int(v): f"label {v}" for v in _values(mask) if v}
    row["mask_names"] = json.dumps({str(value): stated[value] for value in sorted(stated)})
    return mask, []


def _values(mask: LabelMap) -> list[int]:
    """Return the values that a mask holds, at most 256 of them."""
    low, high = int(mask.data.min(initial=0)), int(mask.data.max(initial=0))
    if low >= 0 and high < 1 << 16:
        present = np.zeros(high + 1, bool)
        for plane in mask.data.transpose(3, 0, 1, 2):
            present[plane.reshape(-1).astype(np.intp)] = True
        found = np.flatnonzero(present)
    else:
        found = np.unique(mask.data)
    return [int(value) for value in found[:256]]


def _finished(row: Json, findings: list[Finding], plan: Json) -> Part:
    """Name the findings in the row, and the row (and what file it came from) in the findings."""
    findings = findings + [Finding(**one) for one in plan.get("findings") or ()]
    row["findings"] = sorted({one.name for one in findings})
    file = row["files"][0]
    return row, [replace(one, key=row["key"], file=one.file or file) for one in findings]


def _finding(error: ReadError) -> Finding:
    return finding(error.finding, error.reason, error.evidence)


def _first(plan: Json) -> str:
    first = plan["files"][0]
    return str(first if isinstance(first, str) else first[0])


def _joined(hashes: Sequence[str]) -> str:
    """Return the one hash, or the hash of all of them in order."""
    if len(hashes) == 1:
        return hashes[0]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def _paths(plan: Json, names: Sequence[str], settings: Settings) -> list[Path]:
    return [Path(settings.roots[plan["root"]], to_name(name)) for name in names]
