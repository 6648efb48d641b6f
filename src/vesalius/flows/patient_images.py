# SPDX-License-Identifier: Apache-2.0
"""Every image of one patient, of any format, with the modality that its file or its name states."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.errors import ReadError, UsageError

if TYPE_CHECKING:
    from vesalius.io.limits import Limits
    from vesalius.volume import Volume

SEQUENCES = ("t1", "t1w", "t2", "t2w", "flair", "pd", "dwi", "adc")  # of MR, in file names
# words of file names -> DICOM's modality
_WORDS = {
    **dict.fromkeys(("ct", "cta"), "CT"),
    **dict.fromkeys(("mr", "mri", *SEQUENCES), "MR"),
    **dict.fromkeys(("pt", "pet", "suv"), "PT"),
    **dict.fromkeys(("nm", "spect"), "NM"),
    "us": "US",
}
_LABELS = frozenset({"mask", "masks", "label", "labels", "labelmap", "seg", "segmentation", "roi"})
_PICTURES = frozenset({"png", "jpeg", "bmp"})  # formats that hold a single slice


def files_of(patient: Path) -> list[Path]:
    """Return the file that `patient` is, or all files below it, sorted."""
    if patient.is_file():
        return [patient]
    return sorted(file for file in patient.rglob("*") if file.is_file())


def patient_images(
    patient: Path, notes: list[str], limits: Limits | None = None
) -> Iterator[tuple[Volume, set[str]]]:
    """Yield each image with the words of its file's name (none for DICOM), one after the other.

    DICOM series are read one by one, so that a broken one does not take the others along. Label
    maps and what cannot be read are left out; `notes` says so, without names.

    Raises:
        UsageError: the DICOM files belong to several patients, or folders side by side hold other
            images of the same modality and sequence, as folders of several patients do.
    """
    from vesalius import io
    from vesalius.volume import LabelMap

    for source, words in _sources(patient, notes, limits):
        if words & _LABELS and patient.is_dir():
            notes.append("left out: a file that its name calls a mask or label map")
            continue
        try:
            for volume in io.read_all(source, limits=limits):
                if isinstance(volume, LabelMap):
                    notes.append("left out: a label map")
                    continue
                yield replace(volume, modality=volume.modality or _modality(words)), words
        except ReadError as error:
            notes.append(f"left out: a file or series that cannot be read ({error.finding})")


def _sources(
    patient: Path, notes: list[str], limits: Limits | None
) -> Iterator[tuple[Path | list[Path], set[str]]]:
    """Yield the files of each DICOM series, then every other file with the words of its name."""
    from vesalius.io.dicom import kinds
    from vesalius.io.dicom.header import read_header
    from vesalius.io.formats import is_dicom_file
    from vesalius.io.limits import DEFAULT_LIMITS

    series: dict[str, list[Path]] = defaultdict(list)
    patients: set[str | None] = set()
    others: list[Path] = []
    for file in files_of(patient):
        if not is_dicom_file(file):
            others.append(file)
            continue
        try:
            header = read_header(file, limits=limits or DEFAULT_LIMITS)
        except ReadError as error:
            notes.append(f"left out: a DICOM file that cannot be read ({error.finding})")
            continue
        patients.add(header.patient_id)
        if kinds.kind_of(header) in ("segmentation", "structure-set"):
            notes.append("left out: a label map")
        else:
            series[header.series_uid or ""].append(file)
    if len(patients) > 1:
        raise UsageError(
            f"the DICOM files belong to {len(patients)} patients; give the folder of one of them"
        )
    _refuse_several(others)
    yield from ((members, set()) for members in series.values())
    yield from ((file, _words(file)) for file in others)


def _refuse_several(files: list[Path]) -> None:
    """Refuse folders side by side that hold an image of the same modality and sequence.

    They are looked for where the paths of the images first part.
    """
    named = [(file, kind) for file in files if (kind := _kind(file)) and _is_volume(file)]
    if not named:
        return
    top = Path(os.path.commonpath([file.parent for file, _ in named]))
    holders: dict[tuple[str, str], set[str]] = defaultdict(set)
    for file, kind in named:
        if file.parent != top:
            holders[kind].add(file.relative_to(top).parts[0])
    (modality, sequence), most = max(
        holders.items(), key=lambda item: len(item[1]), default=(("", ""), set())
    )
    if len(most) > 1:
        raise UsageError(
            f"{len(most)} folders side by side each hold an image of "
            f"{' '.join(filter(None, (modality, sequence.upper())))}, as those of several patients "
            "or sessions do; give the folder of one of them"
        )


def _kind(file: Path) -> tuple[str, str] | None:
    """Return the modality and MR sequence in a file's name; None for no modality or a mask."""
    words = _words(file)
    modality = _modality(words)
    if not modality or words & _LABELS:
        return None
    sequence = next((word for word in SEQUENCES if word in words and modality == "MR"), "")
    return modality, sequence.removesuffix("w")


def _is_volume(file: Path) -> bool:
    """Return whether a file is of a format that `vesalius.io` reads and more than a picture."""
    from vesalius.io.formats import sniff

    try:
        return sniff(file) not in _PICTURES
    except ReadError:
        return False  # reading it is refused for the same reason, which becomes a note


def _modality(words: set[str]) -> str:
    return next((code for word, code in _WORDS.items() if word in words), "")


def _words(file: Path) -> set[str]:
    return set(re.split(r"[^a-z0-9]+", file.name.lower()))
