# SPDX-License-Identifier: Apache-2.0
"""One file that a person or a program uploads: an image of a research format, DICOM, or a zip.

The body goes to a file of `incoming/`; then its first bytes say what it is. DICOM, alone or in a
zip, becomes instances like all others. An image of another format is kept as it is, as the only
image of a series, in a study of its own or one that an earlier upload began; its results are had
over HTTP, since nothing DICOM could refer to it. Nothing is decoded here.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO
from zipfile import ZipFile, ZipInfo

from vesalius.errors import ReadError
from vesalius.io import streams, zipped
from vesalius.io.formats import is_dicom, sniff
from vesalius.serving import refusal
from vesalius.serving.attributes import LIMITS, Attributes
from vesalius.serving.intake import Intake
from vesalius.serving.refusal import Refused
from vesalius.serving.state import State
from vesalius.serving.store import FILE, RESULT, Arrival, refused_when_full
from vesalius.serving.stow import Part10
from vesalius.serving.uids import is_uid, made_uid

_PIECE = 1 << 18
_ORIGIN = "upload"  # of DICOM instances
# format -> suffix under which a reader knows it
_SUFFIXES = {
    "nifti": "nii",
    "minc1": "mnc",
    "minc2": "mnc",
    "nrrd": "nrrd",
    "png": "png",
    "jpeg": "jpg",
    "tiff": "tif",
}
_CODE = re.compile(r"[A-Z0-9 _]{0,16}")
_TEXT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a sender says of an image that does not say it itself; DICOM does, and none is heard.

    Attributes:
        modality, body_part: DICOM's codes.
        description: of the series.
        patient_id: of the patient; best a pseudonym.
        study: UID of the study of an earlier upload that the image belongs to, or empty.
    """

    modality: str = ""
    body_part: str = ""
    description: str = ""
    patient_id: str = field(default="", repr=False)
    study: str = ""

    def __post_init__(self) -> None:
        for name in ("modality", "body_part"):
            if not _CODE.fullmatch(getattr(self, name)):
                raise Refused(
                    refusal.CANNOT_UNDERSTAND,
                    f"{name} must be a code of DICOM, at most 16 capital letters and digits",
                )
        for name in ("description", "patient_id"):
            text = getattr(self, name)
            if len(text) > _TEXT or not text.isprintable():
                raise Refused(
                    refusal.CANNOT_UNDERSTAND,
                    f"{name} must be a line of at most {_TEXT} characters",
                )
        if self.study and not is_uid(self.study):
            raise Refused(refusal.CANNOT_UNDERSTAND, "study must be a UID")


@dataclass(slots=True)
class Taken:
    """What became of an upload.

    Attributes:
        stored: instances, durable.
        refused: number of a zip's member -> why it was not taken.
    """

    stored: list[Arrival] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)

    @property
    def studies(self) -> dict[str, int]:
        """Study -> instances stored."""
        counts: dict[str, int] = {}
        for one in self.stored:
            counts[one.attributes.study_uid] = counts.get(one.attributes.study_uid, 0) + 1
        return counts


class Upload:
    """A body on its way in: `write` its pieces, then `take`, or `discard`."""

    def __init__(self, intake: Intake):
        """Begin; raises `Refused` where the disk has no room."""
        intake.check_room()
        self._intake = intake
        self._sha = hashlib.sha256()
        self._given = False  # the file belongs to the intake by now
        self.size = 0
        with refused_when_full():
            handle, name = tempfile.mkstemp(suffix=".part", dir=intake.state.incoming)
        self.path = Path(name)
        self._stream = os.fdopen(handle, "wb", buffering=0)

    def write(self, piece: bytes) -> None:
        """Append bytes; raises `Refused` where they are too many, or the disk is full."""
        self.size += len(piece)
        if self.size > self._intake.largest:
            raise Refused(refusal.OUT_OF_RESOURCES, "the file is too large")
        with refused_when_full():
            rest = memoryview(piece)
            while rest:
                rest = rest[self._stream.write(rest) :]
        self._sha.update(piece)

    def discard(self) -> None:
        """Remove what was written."""
        self._stream.close()
        if not self._given:
            self.path.unlink(missing_ok=True)

    def take(self, about: About) -> Taken:
        """Return what was taken, all of it durable.

        Raises:
            Refused: nothing was.
        """
        try:
            kind = self._kind()
            if kind == "dicom":
                with open(self.path, "rb") as stream:
                    return Taken([_instance(self._intake, _pieces(stream))])
            if kind == "dicom-zip":
                return self._unpack()
            return Taken([self._image(kind, about)])
        finally:
            self.discard()

    def _kind(self) -> str:
        try:
            kind = sniff(self.path)
        except ReadError as error:
            raise Refused(refusal.CANNOT_UNDERSTAND, error.reason) from error
        if kind not in ("dicom", "dicom-zip", *_SUFFIXES):
            raise Refused(
                refusal.CANNOT_UNDERSTAND,
                f"{kind} is not taken; upload {', '.join(_SUFFIXES)}, DICOM or a zip of DICOM",
            )
        return kind

    def _unpack(self) -> Taken:
        taken = Taken()
        try:
            with zipped.opened(self.path, LIMITS) as archive:
                entries = archive.infolist()
                wanted = sum(entry.file_size for entry in entries)
                allowed = min(LIMITS.allowed(self.size), self._intake.largest)
                if wanted > allowed:
                    raise Refused(
                        refusal.CANNOT_UNDERSTAND,
                        f"the zip unpacks to {wanted >> 20:,} MiB, allowed are {allowed >> 20:,}",
                    )
                for number, entry in enumerate(entries):
                    if not entry.is_dir():
                        self._member(archive, entry, number, taken)
        except ReadError as error:
            raise Refused(refusal.CANNOT_UNDERSTAND, error.reason) from error
        if not taken.stored:
            reason = next(iter(taken.refused.values()), "the zip holds no DICOM file")
            raise Refused(refusal.CANNOT_UNDERSTAND, reason)
        return taken

    def _member(self, archive: ZipFile, entry: ZipInfo, number: int, taken: Taken) -> None:
        try:
            with zipped.member(archive, entry, path="") as stream:
                head = zipped.take(stream, _PIECE, path="")
                if is_dicom(head):  # not: notes, a DICOMDIR's pictures, desktop litter
                    rest = iter(lambda: zipped.take(stream, _PIECE, path=""), b"")
                    taken.stored.append(_instance(self._intake, chain([head], rest)))
        except Refused as refused:
            if refused.status == refusal.OUT_OF_RESOURCES and not taken.stored:
                raise
            taken.refused[number] = str(refused)
        except ReadError as error:
            taken.refused[number] = error.reason

    def _image(self, kind: str, about: About) -> Arrival:
        """Take the file as it is, as an image of a series of its own."""
        digest = self._sha.hexdigest()
        study = _study_of(self._intake.state, digest, about.study)
        suffix = _SUFFIXES[kind] + (".gz" if streams.is_gzip(self.path) else "")
        attributes = Attributes(
            sop_class="",
            sop_uid=made_uid("upload", digest),
            series_uid=made_uid("upload", "series", digest),
            study_uid=study,
            transfer_syntax=suffix,
            modality=about.modality,
            body_part=about.body_part,
            series_description=about.description,
            patient_id=about.patient_id,
        )
        with refused_when_full():
            os.fsync(self._stream.fileno())
        self._given = True
        return self._intake.count(Arrival(self.path, digest, self.size, attributes, FILE))


def _instance(intake: Intake, pieces: Iterable[bytes]) -> Arrival:
    part = Part10(intake)
    try:
        for piece in pieces:
            part.write(piece)
        return part.take("", _ORIGIN)
    finally:
        part.discard()


def _pieces(stream: IO[bytes]) -> Iterable[bytes]:
    while piece := stream.read(_PIECE):
        yield piece


def _study_of(state: State, digest: str, asked: str) -> str:
    """Return the study of an image that is no DICOM: asked for, known, or made of its content.

    Raises:
        Refused: the image lies in another study, or the study asked for holds DICOM.
    """
    held = state.connection().execute(
        "SELECT study_uid FROM instances WHERE sha256 = ?", (digest,)
    ).fetchone()  # fmt: skip
    if held is not None:
        if asked and held[0] != asked:
            raise Refused(refusal.MISMATCH, "the same file is held in another study")
        return str(held[0])
    if not asked:
        return made_uid("upload", "study", digest)
    others, count = state.connection().execute(
        "SELECT coalesce(sum(origin NOT IN (?, ?)), 0), count(*) FROM instances "
        "WHERE study_uid = ?",
        (FILE, RESULT, asked),
    ).fetchone()  # fmt: skip
    if not count or others:
        raise Refused(
            refusal.MISMATCH, "study must be one that an earlier upload of such an image began"
        )
    return asked
