# SPDX-License-Identifier: Apache-2.0
"""Every image of an exam with the name that its answer may bear."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.errors import ReadError, UsageError
from vesalius.flows.patient_images import files_of
from vesalius.types import PathLike

if TYPE_CHECKING:
    from vesalius.io.limits import Limits
    from vesalius.volume import Volume

_CHANNEL = re.compile(r"_\d{4}(?=(\.[A-Za-z0-9]+){1,2}$)")


def exam_images(
    exam: PathLike,
    notes: list[str],
    *,
    out: Path,
    limits: Limits | None = None,
    channels: bool = False,
) -> Iterator[tuple[str, Volume]]:
    """Yield each image, one in memory at a time; label maps are left out.

    Of a folder without DICOM files each file is read by itself, in the order of their names; what
    cannot be read is left out and `notes` says so, without its name.

    Args:
        exam: a file of any readable format, a folder, or a zip of DICOM files.
        notes: is appended to.
        out: folder of the results.
        limits: what reading may take in memory.
        channels: files of a folder whose names differ in a last number alone, `CASE_0000.nii.gz`,
            `CASE_0001.nii.gz`, are channels of one image.

    Yields:
        The file's path within the exam, without its suffixes and told from the others' by a
        number where it must be; `` for an image of a DICOM folder or zip. And the image.

    Raises:
        UsageError: the folder is empty, or the results would lie among its images.
    """
    from vesalius import io
    from vesalius.cohorts.reading import read_image
    from vesalius.io.formats import is_dicom_file
    from vesalius.volume import LabelMap

    root = Path(exam)
    sources = [[root]]
    if root.is_dir():
        files = [file for file in files_of(root) if not file.name.startswith(".")]
        if not files:
            raise UsageError(f"the folder '{root}' holds no file; give another")
        if not any(is_dicom_file(file) for file in files):
            if out.resolve().is_relative_to(root.resolve()):
                raise UsageError(
                    f"the results would lie among the images of '{root}', and be taken for such "
                    "the next time; choose an --out outside it"
                )
            sources = _cases(files) if channels else [[file] for file in files]
    taken: set[str] = set()
    for place, (file, *others) in enumerate(sources, 1):
        try:
            several = [read_image([file, *others], "", limits=limits)] if others else None
            for volume in several or io.read_all(file, limits=limits):
                if isinstance(volume, LabelMap):
                    continue
                dicom = volume.source.format.startswith("dicom")
                yield "" if dicom else _name(file, root, taken), volume
        except ReadError as error:
            if len(sources) == 1:
                raise
            notes.append(f"file {place} of {len(sources)} left out: {error.reason}")


def _cases(files: Sequence[Path]) -> list[list[Path]]:
    """Return files in groups: the channels of one image, in the order of their numbers."""
    found: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(files):
        found[_CHANNEL.sub("", str(file))].append(file)
    return list(found.values())


def _name(file: Path, root: Path, taken: set[str]) -> str:
    """Return a file's name for its answer, that none of `taken` is, and remember it."""
    path = file.relative_to(root if root.is_dir() else root.parent)
    stem = path.with_suffix("").with_suffix("") if path.suffix == ".gz" else path.with_suffix("")
    name, number = str(stem), 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name)
    return name
