# SPDX-License-Identifier: Apache-2.0
"""The images that a query brings: read, embedded, and by what their patient is known again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vesalius.errors import DataError, ReadError, UsageError
from vesalius.types import Array

if TYPE_CHECKING:
    from vesalius.io.limits import Limits
    from vesalius.store.protocol import Archive
    from vesalius.tasks.retrieve.embedder import Embedder
    from vesalius.tasks.retrieve.search_own import Print
    from vesalius.volume import Volume


@dataclass(frozen=True, slots=True)
class Exam:
    """What is known of the images of a query.

    Attributes:
        volumes: that were read and embedded.
        vectors: `(n, d)` of them.
        prints: by which each is known again.
        textual: of each, whether text may be burned into it, which may be a name.
        patients: identifiers that their DICOM files state. They are never written anywhere.
        notes: what was left out and why, without names.
    """

    volumes: tuple[Volume, ...]
    vectors: Array
    prints: tuple[Print, ...]
    textual: tuple[bool, ...]
    patients: frozenset[str] = frozenset()
    notes: tuple[str, ...] = field(default_factory=tuple)

    @property
    def modalities(self) -> list[str]:
        """The modalities that the images state."""
        return sorted({volume.modality for volume in self.volumes if volume.modality})


def read_exam(paths: Sequence[Path], embedder: Embedder, limits: Limits | None) -> Exam:
    """Read the images of a query and embed them.

    Args:
        paths: files of any readable format, folders of one exam, zips of DICOM files.
        embedder: of the archive.
        limits: what reading an image may take in memory.

    Raises:
        UsageError: a path that does not exist, or a folder of several patients.
        DataError: no image can be read and embedded.
    """
    from vesalius.cohorts.assess import assess
    from vesalius.cohorts.quality.artifacts import check_text
    from vesalius.flows.patient_images import patient_images
    from vesalius.tasks.retrieve.search_own import Print

    notes: list[str] = []
    volumes: list[Volume] = []
    vectors: list[Array] = []
    for path in paths:
        if not path.exists():
            raise UsageError(f"the query's image '{path}' does not exist; give a file or a folder")
        for volume, _ in patient_images(path, notes, limits):
            try:
                vectors.append(embedder.embed_volumes([volume])[0])
            except DataError as error:
                reason = getattr(error, "reason", "") or error
                notes.append(f"image {len(volumes) + 1} of the query left out: {reason}")
                continue
            volumes.append(volume)
    if not volumes:
        raise DataError(f"no image of the query can be used: {'; '.join(notes) or 'there is none'}")
    measured = [assess(volume) for volume in volumes]
    return Exam(
        volumes=tuple(volumes),
        vectors=np.stack(vectors),
        prints=tuple(Print(one.content_hash or "", one.phash) for one in measured),
        textual=tuple(
            any(check_text(volume, one.columns()))
            for volume, one in zip(volumes, measured, strict=True)
        ),
        patients=_patients(volumes, limits),
        notes=tuple(notes),
    )


def own_patients(
    archive: Archive, folder: Path, exam: Exam, key: Path | None
) -> tuple[dict[str, str], list[str]]:
    """Return patients of the archive -> how the query's images were known as theirs, and notes.

    Args:
        archive: to look in.
        folder: of the archive.
        exam: the query's images.
        key: file of the pseudonym key of the archive's cohorts; None for that of the cohorts that
            are still where they were.
    """
    from vesalius.cohorts.pseudonyms import KEY_FILE, Pseudonyms, load_key
    from vesalius.flows.indexing.folder import cohorts_of
    from vesalius.tasks.retrieve.search_own import likely_own

    found = likely_own(archive, exam.vectors, exam.prints)
    notes: list[str] = []
    if exam.patients:
        keys = [key] if key is not None else [path / KEY_FILE for path in cohorts_of(folder)]
        if not keys:
            notes.append(
                "the query's patient cannot be told by its identifier, since the cohort is not "
                "where it was: images that are nearly identical alone were left out; "
                "--pseudonym-key names the cohort's key"
            )
        for path in keys:
            pseudonym = Pseudonyms(load_key(path))
            for identifier in exam.patients:
                found[pseudonym("patient", identifier)] = "the patient's identifier"
    return found, notes


def unseen(archive: Archive, exam: Exam, known: Sequence[str]) -> list[str]:
    """Return a sentence for each modality of the query of which the archive holds no image."""
    from vesalius.store.protocol import Filter

    if "modality" not in archive.columns:
        return []
    said = []
    for modality in exam.modalities:
        quoted = modality.replace("'", "''")
        (near,) = archive.nearest(exam.vectors[:1], 1, Filter(where=f"modality = '{quoted}'"))
        if not near.keys:
            held = f" (it holds {', '.join(known)})" if known else ""
            said.append(f"the archive holds no image of the modality {modality}{held}")
    return said


def _patients(volumes: Sequence[Volume], limits: Limits | None) -> frozenset[str]:
    """Return the identifiers that the DICOM files of some images state."""
    from vesalius.io.dicom.header import read_header
    from vesalius.io.limits import DEFAULT_LIMITS

    found = set()
    for volume in volumes:
        if volume.source.format != "dicom" or not volume.source.files:
            continue
        try:
            header = read_header(volume.source.files[0], limits=limits or DEFAULT_LIMITS)
        except ReadError as error:
            raise DataError(
                f"a file of the query changed while it was read ({error.finding}); run it again"
            ) from error
        found.add(header.patient_id or "")
    return frozenset(found - {""})
