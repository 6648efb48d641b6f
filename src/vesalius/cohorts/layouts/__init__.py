# SPDX-License-Identifier: Apache-2.0
"""Layouts: how folders and names group files into images, masks, patients, labels and splits.

One layout a file; each is recognized by the content of the data root, never by its name. Where
several claim a file, the first of this order has it: nnU-Net raw, Decathlon, BIDS, images/+labels/
pairs, class-per-folder; what none claims is `loose`. DICOM is grouped by series whatever the
folders (files without a series by their folder), NPZ and zip hold their own. VOC and COCO boxes
and split lists add to any of them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from vesalius.cohorts import parsing
from vesalius.cohorts.index import Entry, Index, Unit
from vesalius.cohorts.layouts import bids, classes, decathlon, medmnist, nnunet, pairs
from vesalius.cohorts.layouts.boxes import Notes
from vesalius.cohorts.layouts.catalog import Catalog
from vesalius.cohorts.layouts.facts import SPLITS, Facts, Layout, Mask, below
from vesalius.cohorts.layouts.loose import Loose, mask_beside_series
from vesalius.cohorts.layouts.names import leading_id, names_tell_patients
from vesalius.cohorts.packing import Unpacker, base_of
from vesalius.cohorts.pseudonyms import Pseudonyms
from vesalius.cohorts.quality.findings import finding
from vesalius.errors import UsageError
from vesalius.types import Json

CODE = 1  # raise it when the rows of an unchanged file come out otherwise
_FINDERS = (nnunet.find, decathlon.find, bids.find, pairs.find, classes.find)
_NAMED = 2000  # names of a folder that the rule for patients looks at
_FOLDERS = 20


@dataclass(slots=True)
class Planned:
    """What planning found besides the units: layouts and their images, stray findings (JSON)."""

    layouts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    findings: list[str] = field(default_factory=list)


def pattern_of(text: str | None) -> re.Pattern[str] | None:
    """Compile the user's pattern for patients in paths; `UsageError` when it is none."""
    if not text:
        return None
    try:
        return re.compile(text)
    except re.error as error:
        raise UsageError(
            f"patient_pattern must be a regular expression, got {text!r}: {error}"
        ) from error


def plan(
    index: Index,
    root: str,
    *,
    pseudonyms: Pseudonyms,
    pattern: re.Pattern[str] | None,
    settings: Json,
    planned: Planned,
) -> Iterator[Unit]:
    """Yield the units of one data root, a function of the index and the settings alone."""
    salt = json.dumps([CODE, settings, pattern.pattern if pattern else ""])
    catalog = Catalog(index, root)
    strays: list[Entry] = []
    yield from _files(catalog, pseudonyms, pattern, salt, planned, strays)
    yield from _series(index, root, pseudonyms, pattern, salt, planned, strays)
    yield from _containers(catalog, pseudonyms, pattern, salt, planned)
    for entry in strays:
        _stray(planned, entry, "a mask has no image beside it")


def expand(index: Index, kind: str, text: str) -> Json:
    """Return the plan of a unit as the worker needs it: that of a series with its headers."""
    found: Json = json.loads(text)
    if kind == "dicom":
        entries = _of_series(index, found["root"], found["series"])
        found["files"] = [(entry.path, entry.facts) for entry in entries]
        found["bases"] = index.bases(base_of(facts) for _, facts in found["files"])
    return found


_IMAGE_KINDS = "('image', 'localizer', 'secondary-capture', 'dose', 'parametric-map')"


def _of_series(index: Index, root: str, series: str) -> Iterator[Entry]:
    where = f"r.name = ? AND f.series = ? AND f.kind IN {_IMAGE_KINDS}"
    return index.entries(where, (root, series), "d.path, f.name")


def _series(
    index: Index,
    root: str,
    pseudonyms: Pseudonyms,
    pattern: re.Pattern[str] | None,
    salt: str,
    planned: Planned,
    strays: list[Entry],
) -> Iterator[Unit]:
    masks = _dicom_masks(index, root, planned)
    used: set[int] = set()
    stray_masks: dict[str, list[Entry]] = defaultdict(list)
    for entry in strays:
        stray_masks[entry.folder].append(entry)
    rows = index.db.execute(  # the kinds are a constant
        "SELECT f.series, d.path, f.name, f.sha, f.size FROM files f "  # noqa: S608  fixed text
        "JOIN folders d ON f.folder = d.id JOIN roots r ON d.root = r.id "
        f"WHERE r.name = ? AND f.format = 'dicom' AND f.kind IN {_IMAGE_KINDS} "
        "ORDER BY f.series, d.path, f.name",
        (root,),
    )
    for series, group in groupby(rows, key=lambda row: row[0]):
        engine = hashlib.blake2b(salt.encode(), digest_size=16)
        weight, first = 0, ""
        for _, folder, name, sha, size in group:
            path = f"{folder}/{name}" if folder else name
            first = first or path
            engine.update(f"{path}\0{sha}\0".encode())
            weight += size
        plan_: Json = {"root": root, "series": series, "files": [first]}
        beside = mask_beside_series(first.rpartition("/")[0], stray_masks)
        if series in masks:
            plan_["mask"] = min(masks[series])[2], "dicom"
            engine.update(json.dumps(sorted(masks[series])).encode())
        elif beside:
            plan_["mask"] = beside.path, beside.format
            used.add(beside.id)
            engine.update(beside.sha.encode())
        patient = _by_pattern(first, pattern)
        if patient:
            plan_["patient"] = pseudonyms("patient", patient)
        planned.layouts["DICOM series"] += 1
        engine.update(json.dumps(plan_).encode())
        yield Unit(f"s:{root}:{series}", "dicom", engine.hexdigest(), json.dumps(plan_), weight)
    strays[:] = [entry for entry in strays if entry.id not in used]


def _dicom_masks(
    index: Index, root: str, planned: Planned
) -> dict[str, list[tuple[int, int, str, str]]]:
    """Return series -> `(order, -size, path, sha)` of the SEG and RTSTRUCT that refer to it.

    The first of them becomes the mask: a SEG before an RTSTRUCT, a larger before a smaller.
    """
    found: dict[str, list[tuple[int, int, str, str]]] = defaultdict(list)
    for entry in index.entries(
        "r.name = ? AND f.format = 'dicom' AND f.kind IN ('segmentation', 'structure-set')",
        (root,),
        "d.path, f.name",
    ):
        header = Unpacker(index.bases([base_of(entry.facts)])).unpack(entry.facts)
        present = [
            series
            for series in header.referenced_series or ()
            if next(_of_series(index, root, series), None)
        ]
        for series in present:
            order = 0 if entry.kind == "segmentation" else 1
            found[series].append((order, -entry.size, entry.path, entry.sha))
        if not present:
            _stray(
                planned,
                entry,
                "the series that a DICOM segmentation or structure set refers to is not here",
            )
    return found


def _files(
    catalog: Catalog,
    pseudonyms: Pseudonyms,
    pattern: re.Pattern[str] | None,
    salt: str,
    planned: Planned,
    strays: list[Entry],
) -> Iterator[Unit]:
    if not catalog.folders:
        return
    layouts: list[Layout] = [layout for find in _FINDERS for layout in find(catalog)]
    loose: Layout = Loose(catalog)
    notes = Notes(catalog)
    claims = _claims(catalog, layouts, loose)
    named = _named_groups(catalog, claims)
    for entry in catalog.images():
        layout = claims[entry.folder]
        facts = layout.describe(entry, catalog)
        if isinstance(facts, Mask):
            if not facts.has_image:
                strays.append(entry)
            continue
        if not isinstance(facts, Facts):
            continue
        planned.layouts[layout.name] += 1
        if facts.boxes is None and notes.has_boxes:
            facts.boxes = notes.boxes(entry)
        facts.split = facts.split or notes.split(entry)
        patient = _by_pattern(entry.path, pattern) or facts.patient
        if not patient and _group(layout, entry.folder) in named:
            patient = leading_id(entry.name)
        yield _file_unit(catalog, entry, facts, patient, pseudonyms, salt)


def _file_unit(
    catalog: Catalog, entry: Entry, facts: Facts, patient: str, pseudonyms: Pseudonyms, salt: str
) -> Unit:
    entries = [entry]
    if len(facts.files) > 1:
        entries = [one for path in facts.files if (one := catalog.entry(path))]
    mask = catalog.entry(facts.mask) if facts.mask else None
    plan_: Json = {
        "root": catalog.root,
        "files": [one.path for one in entries],
        "format": entry.format,
        "bytes": sum(one.size for one in entries),
        "hashes": [one.sha for one in entries],
        "detached": _detached(catalog, entry),
        "patient": pseudonyms("patient", patient),
        "study": facts.study,
        "modality": facts.modality,
        "scanner": facts.scanner,
        "description": facts.description,
        "words": facts.words,
        "split": facts.split,
        "labels": facts.labels,
        "boxes": facts.boxes,
        "mask_names": facts.mask_names if mask else None,
        "mask": mask.path if mask else "",
        "mask_format": mask.format if mask else "",
        "mask_hash": mask.sha if mask else "",
    }
    return _unit(f"f:{catalog.root}:{entry.path}", "file", plan_, salt)


def _containers(
    catalog: Catalog,
    pseudonyms: Pseudonyms,
    pattern: re.Pattern[str] | None,
    salt: str,
    planned: Planned,
) -> Iterator[Unit]:
    for entry in catalog.of_format("npz", "dicom-zip"):
        if entry.kind != "image":
            continue
        patient = _by_pattern(entry.path, pattern)
        base: Json = {
            "root": catalog.root,
            "files": [entry.path],
            "format": entry.format,
            "bytes": entry.size,
            "hashes": [entry.sha],
            "patient": pseudonyms("patient", patient),
        }
        name = f"{catalog.root}:{entry.path}"
        if entry.format == "dicom-zip":
            planned.layouts["zip of DICOM"] += 1
            yield _unit(f"z:{name}", "zip", base, salt)
            continue
        for run in medmnist.runs(entry):
            planned.layouts["MedMNIST"] += run["stop"] - run["start"]
            full = {**base, **run, "single": not patient}
            yield _unit(f"n:{name}:{run['array']}:{run['start']:09d}", "npz", full, salt)


def _unit(name: str, kind: str, plan_: Json, salt: str) -> Unit:
    text = json.dumps(plan_, sort_keys=True)
    digest = hashlib.blake2b((salt + text).encode(), digest_size=16).hexdigest()
    return Unit(name, kind, digest, text, plan_["bytes"])


def _claims(catalog: Catalog, layouts: list[Layout], loose: Layout) -> dict[str, Layout]:
    """Return folder -> the layout that describes its images: of the first kind, the innermost."""
    order = {name: n for n, name in enumerate(dict.fromkeys(layout.name for layout in layouts))}
    bases: dict[str, list[Layout]] = defaultdict(list)
    for layout in layouts:
        bases[layout.base].append(layout)
    claims = {}
    for folder in catalog.folders:
        parts = folder.split("/") if folder else []
        above = ["/".join(parts[:n]) for n in range(len(parts), -1, -1)]
        fits = [layout for base in above for layout in bases.get(base, ()) if below(folder, base)]
        claims[folder] = min(fits, key=lambda one: order[one.name], default=loose)
    return claims


def _group(layout: Layout, folder: str) -> tuple[str, str]:
    """Return the folders whose file names follow one convention: layout, and path less split."""
    parent = folder.rpartition("/")[0] if layout.name == "class-per-folder" else folder
    return layout.name, "/".join(p for p in parent.split("/") if p.lower() not in SPLITS)


def _named_groups(catalog: Catalog, claims: dict[str, Layout]) -> set[tuple[str, str]]:
    """Return the groups of folders in which file names start with their patient."""
    names: dict[tuple[str, str], list[str]] = defaultdict(list)
    looked: dict[tuple[str, str], int] = defaultdict(int)
    for folder, layout in claims.items():
        group = _group(layout, folder)
        if looked[group] < _FOLDERS:
            looked[group] += 1
            names[group] += catalog.first(folder, _NAMED)
    return {group for group, found in names.items() if names_tell_patients(found)}


def _detached(catalog: Catalog, entry: Entry) -> list[str]:
    """Return the hashes of voxel files that lie beside a header file of the same stem."""
    name = entry.name.lower()
    if not name.endswith((".hdr", ".nhdr", ".mhd", ".img", ".img.gz")):
        return []
    start = re.sub(r"\.(hdr|nhdr|mhd|img|img\.gz)$", "", entry.name, flags=re.IGNORECASE)
    return [
        one.sha
        for one in catalog.index.entries(
            "r.name = ? AND d.path = ? AND f.name > ? AND f.name < ? AND f.id != ?",
            (catalog.root, entry.folder, f"{start}.", f"{start}/", entry.id),
            "f.name",
        )
    ]


def _by_pattern(path: str, pattern: re.Pattern[str] | None) -> str:
    match = pattern.search(path) if pattern else None
    if not match:
        return ""
    return (match[1] if match.re.groups else match[0]) or ""


def _stray(planned: Planned, entry: Entry, message: str) -> None:
    one: dict[str, Any] = json.loads(parsing.packed(finding("mask-without-image", message)))
    planned.findings.append(json.dumps({**one, "file": entry.path, "root": entry.root}))
