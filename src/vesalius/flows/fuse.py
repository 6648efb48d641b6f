# SPDX-License-Identifier: Apache-2.0
"""`vesalius normalize PATIENT --fuse CT,MR,PET`: one patient's modalities on one grid."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vesalius.errors import DataError, NormalizationRefused, UsageError, did_you_mean
from vesalius.files import read_json, write_json
from vesalius.flows.patient_images import SEQUENCES, files_of, patient_images
from vesalius.types import Json, PathLike, Progress, Spacing3

if TYPE_CHECKING:
    from vesalius.io.limits import Limits
    from vesalius.normalization.alignment.transform import Transform
    from vesalius.volume import Volume

RECORD = "fusion.json"


@dataclass(frozen=True, slots=True)
class Member:
    """One image of the fusion.

    Attributes:
        name: of its files, without a patient's name.
        modality: DICOM's code.
        verdict: `reference`, `passed`, `flagged` or `refused`.
        reason: why it is flagged or refused, or ``.
        transform: the map from the reference's world to its own; None where there is none.
        files: what was written for it.
    """

    name: str
    modality: str
    verdict: str
    reason: str = ""
    transform: Transform | None = None
    files: tuple[Path, ...] = ()

    def to_json(self) -> Json:
        """Return all of it, files by name, for machines."""
        return {
            "name": self.name,
            "modality": self.modality,
            "verdict": self.verdict,
            "reason": self.reason,
            "transform": None if self.transform is None else self.transform.to_json(),
            "files": [path.name for path in self.files],
        }


@dataclass(frozen=True, slots=True)
class Fusion:
    """One patient's images on one grid.

    Attributes:
        members: the reference first.
        spacing: of the common grid, mm.
        shape: of the common grid, voxels along `(i, j, k)`.
        record: the file `fusion.json`.
        notes: images that were left out, and why.
    """

    members: tuple[Member, ...]
    spacing: Spacing3
    shape: tuple[int, int, int]
    record: Path
    notes: tuple[str, ...] = ()

    def to_json(self) -> Json:
        """Return all of it, for machines."""
        return {
            "reference": self.members[0].name,
            "spacing_mm": [*self.spacing],
            "shape": [*self.shape],
            "members": [member.to_json() for member in self.members],
            "notes": [*self.notes],
        }

    def lines(self) -> list[str]:
        """Return all of it, for people."""
        size = "x".join(map(str, self.shape))
        spacing = " x ".join(f"{value:.3g}" for value in self.spacing)
        out = [f"grid of {self.members[0].name}: {size} voxels of {spacing} mm"]
        for member in self.members[1:]:
            line = f"{member.name}: {member.verdict}"
            if (found := member.transform) is not None:
                line += f", {found.kind}, overlap {found.overlap:.0%}"
                if found.kind != "identity":
                    line += (
                        f", rotation {found.rotation_degrees:.1f} degrees, starts agree within "
                        f"{found.agreement_mm:.1f} mm"
                    )
            out.append(f"{line}; {member.reason}" if member.reason else line)
        return [*out, *self.notes, f"written: {self.record.parent}"]


def fuse(
    patient: PathLike,
    *,
    modalities: Sequence[str] = ("CT", "MR", "PET"),
    out: PathLike,
    to: str = "",
    spacing: Spacing3 | float | None = None,
    kind: str = "rigid",
    trust_frame: bool = True,
    progress: Progress | None = None,
    limits: Limits | None = None,
) -> Fusion:
    """Register one patient's images to one of them and write all of them on one grid.

    For each image the folder `out` gets `NAME.nii.gz`; for each that was moved also
    `NAME-to-REFERENCE.json` (the matrix, RAS+ mm, with its evidence), the same as ITK's `.tfm`, and
    `NAME-over-REFERENCE.png`, the picture to look at before the result is used. `fusion.json` holds
    all verdicts, and what was asked: the same call again overwrites its own results, another is
    refused. Label maps and single slices are left out, with a note.

    Args:
        patient: a file of any readable format, or a folder: DICOM series, NIfTI and other files,
            also mixed. The modality comes from the file, else from words in its name (`ct`, `mr`,
            `t1`, `pet`, …).
        modalities: DICOM's codes of the images that take part; `PET` means `PT`.
        out: folder for the results, outside the patient's; the files in it bear no names of
            patients.
        to: modality of the image that stays; by default the first of `modalities` that is there.
        spacing: of the common grid in mm, one or three numbers; by default the reference's own.
        kind: `rigid`, `affine`, or `identity` (the scanner's coordinates as they are).
        trust_frame: whether the scanner's coordinates are roughly right; see `register`. False is
            `--ignore-frame` on the command line.
        progress: called after each image.
        limits: what reading may take in memory.

    Raises:
        UsageError: `patient` does not exist or is several patients, `to` is not among
            `modalities`, `kind` or `spacing` is none of the above, or `out` is a file, lies in the
            patient's folder or holds another fusion.
        DataError: fewer than two images take part, or none of modality `to`.
    """
    from vesalius.normalization.alignment.registration import KINDS

    wanted = [_code(name) for name in modalities]
    if to and _code(to) not in wanted:
        raise UsageError(f"to must be one of the modalities {', '.join(modalities)}, got '{to}'")
    if not Path(patient).exists():
        raise UsageError(f"'{patient}' does not exist")
    if kind not in KINDS:
        raise UsageError(
            f"kind must be one of {', '.join(KINDS)}, got '{kind}'.{did_you_mean(kind, KINDS)}"
        )
    folder = Path(out)
    _refuse_place(folder, Path(patient))
    three = (spacing,) * 3 if isinstance(spacing, int | float) else spacing
    request: Json = {
        "inputs": _digest(Path(patient)),
        "modalities": wanted,
        "to": _code(to),
        "spacing_mm": None if three is None else [float(value) for value in three],
        "kind": kind,
        "trust_frame": trust_frame,
    }
    _refuse_other(folder, request)
    notes: list[str] = []
    images = [
        (volume, words)
        for volume, words in patient_images(Path(patient), notes, limits)
        if _serves(volume, wanted, notes)
    ]
    names = _names(images)
    chosen = _reference([volume for volume, _ in images], [_code(to)] if to else wanted)
    order = [chosen, *(n for n in range(len(images)) if n != chosen)]
    listed = [(names[n], images[n][0]) for n in order]
    return _write(listed, folder, request, spacing, kind, trust_frame, progress, notes)


def _write(
    listed: list[tuple[str, Volume]],
    folder: Path,
    request: Json,
    spacing: Spacing3 | float | None,
    kind: str,
    trust_frame: bool,
    progress: Progress | None,
    notes: list[str],
) -> Fusion:
    from vesalius import io
    from vesalius.normalization.alignment.common_grid import Grid, onto

    name, reference = listed[0]
    grid = Grid.of(reference, spacing)
    fixed = onto(reference, grid)
    record = write_json(folder / RECORD, {"request": request})  # before any result
    members = [
        Member(
            name,
            reference.modality,
            "reference",
            files=(io.write(fixed, folder / f"{name}.nii.gz"),),
        )
    ]
    for done, (other, moving) in enumerate(listed[1:], 1):
        members.append(_member(other, moving, name, reference, fixed, folder, kind, trust_frame))
        if progress is not None:
            progress("register", done, len(listed) - 1)
    fusion = Fusion(tuple(members), grid.spacing, grid.shape, record, tuple(notes))
    whole = {"request": request, "affine_ras_mm": grid.affine.tolist(), **fusion.to_json()}
    write_json(record, whole)
    return fusion


def _member(
    name: str,
    moving: Volume,
    reference_name: str,
    reference: Volume,
    fixed: Volume,
    folder: Path,
    kind: str,
    trust_frame: bool,
) -> Member:
    from vesalius import io
    from vesalius.normalization.alignment.common_grid import Grid, onto
    from vesalius.normalization.alignment.itk import write_tfm
    from vesalius.normalization.alignment.registration import register
    from vesalius.reporting.overlays import write_overlay

    try:
        found = register(reference, moving, kind=kind, trust_frame=trust_frame)
    except NormalizationRefused as error:
        reason = f"{error.reason}: {_as_typed(str(error), kind)}"
        return Member(name, moving.modality, "refused", reason)
    moved = onto(moving, Grid.of(fixed), found)
    to, over = f"{name}-to-{reference_name}", f"{name}-over-{reference_name}"
    files = (
        io.write(moved, folder / f"{name}.nii.gz"),
        write_json(folder / f"{to}.json", found.to_json()),
        write_tfm(found, folder / f"{to}.tfm"),
        write_overlay(fixed, moved, folder / f"{over}.png"),
    )
    return Member(name, moving.modality, str(found.verdict), "; ".join(found.reasons), found, files)


def _as_typed(message: str, kind: str) -> str:
    """Return a refusal of `register` with its advice also as the command line takes it."""
    if kind == "identity":  # searches nowhere
        typed = "--kind rigid --ignore-frame (in Python kind='rigid', trust_frame=False)"
    else:
        typed = "--ignore-frame (in Python trust_frame=False)"
    return message.replace("trust_frame=False", typed)


def _refuse_place(out: Path, patient: Path) -> None:
    """Refuse a folder for the results that is a file, or that the next call would read."""
    place = out.resolve()
    for folder in (place, *place.parents):
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"out must be a folder, '{folder}' is a file")
    if patient.resolve() in (place, *place.parents):
        raise UsageError(
            f"out ('{out}') lies in the patient's folder: the next call would take the results for "
            "images of the patient; choose a folder outside"
        )


def _refuse_other(out: Path, request: Json) -> None:
    """Refuse a folder that holds the results of another call."""
    record = out / RECORD
    if not record.exists():
        return
    try:
        before = read_json(record)["request"]
        changed = [name for name in request if request[name] != before[name]]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(
            f"'{record}' does not state what was asked ({type(error).__name__}); choose another "
            "--to (in Python `out`), or remove the folder"
        ) from error
    if changed:
        raise UsageError(
            f"'{out}' holds another fusion (different: {', '.join(changed)}); choose another --to "
            "(in Python `out`), or remove the folder"
        )


def _digest(patient: Path) -> str:
    """Return a hash of where the patient's files lie and of their sizes; it tells no name."""
    found = sha256()
    for file in files_of(patient.resolve()):
        found.update(f"{file}\0{file.stat().st_size}\0".encode(errors="surrogateescape"))
    return found.hexdigest()


def _serves(volume: Volume, wanted: Sequence[str], notes: list[str]) -> bool:
    if volume.is_2d:
        notes.append(f"left out: a single slice ({volume.modality or 'modality unknown'})")
        return False
    if volume.modality not in wanted:
        notes.append(
            f"left out: an image of modality {volume.modality}"
            if volume.modality
            else "left out: an image of unknown modality; name it in the file's name, as in ct.nii"
        )
        return False
    return True


def _reference(images: Sequence[Volume], wanted: Iterable[str]) -> int:
    """Return which image stays: of the first modality that is there, the one of most voxels."""
    if len(images) < 2:
        raise DataError(f"fusion needs at least two images of one patient, found {len(images)}")
    for code in wanted:
        held = [n for n, volume in enumerate(images) if volume.modality == code]
        if held:
            return max(held, key=lambda n: (int(np.prod(images[n].shape)), -n))
    there = sorted({volume.modality for volume in images})
    raise DataError(f"no image of modality {', '.join(wanted)}; there are {', '.join(there)}")


def _names(images: Sequence[tuple[Volume, set[str]]]) -> list[str]:
    """Return a name for each image: modality, sequence where known, a number where needed."""
    out: list[str] = []
    for volume, words in images:
        sequence = [word for word in SEQUENCES if word in words and volume.modality == "MR"]
        name = "-".join([volume.modality.lower(), *sequence[:1]])
        taken = sum(1 for other in out if re.fullmatch(rf"{name}(-\d+)?", other))
        out.append(f"{name}-{taken + 1}" if taken else name)
    return out


def _code(name: str) -> str:
    code = name.strip().upper()
    return "PT" if code == "PET" else code
