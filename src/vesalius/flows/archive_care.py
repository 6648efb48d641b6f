# SPDX-License-Identifier: Apache-2.0
"""The care of an archive: erasing patients, folding new rows in, and how it is."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.errors import DataError, UsageError, did_you_mean
from vesalius.types import Json, PathLike

if TYPE_CHECKING:
    from vesalius.store.protocol import Condition


@dataclass(frozen=True, slots=True)
class Erased:
    """What was erased.

    Attributes:
        patients: pseudonyms.
        images: entries, each with vector, words, facts and picture.
        version: the first, and only one, without them.
        files: of the archive that were searched for what was erased.
        bytes: of these.
    """

    patients: tuple[str, ...]
    images: int
    version: int
    files: int
    bytes: int

    def to_json(self) -> Json:
        """Return all of it, for machines."""
        return asdict(self)

    def line(self) -> str:
        """Say it in a line."""
        return (
            f"erased {', '.join(self.patients)}: {self.images:,} images with their vectors, words "
            f"and pictures, and every earlier version; version {self.version} is without; "
            f"none of their names is left in {self.files:,} files ({self.bytes / 1e6:,.1f} MB)"
        )


def forget(archive: PathLike, patients: Sequence[str]) -> Erased:
    """Erase patients from an archive and from all its earlier versions, and look that they are.

    Args:
        archive: its folder.
        patients: pseudonyms, or identifiers as the images state them where a cohort that the
            archive was filled from is still in its place.

    Raises:
        UsageError: none is named, or one that the archive does not hold.
        DataError: something of them is left in the archive's files.
    """
    from vesalius.flows.indexing import folder as beside

    path = Path(archive)
    opened = beside.opened(path)
    if not patients:
        raise UsageError("name the patients to forget, by their pseudonyms")
    held = opened.held()
    names = tuple(dict.fromkeys(_pseudonym(path, name, set(held.values())) for name in patients))
    keys = [key for key, patient in held.items() if patient in names]
    version = opened.erase_patients(names)
    beside.learn(path, opened, opened.held())
    searched, size = _search(path, [*names, *keys])
    return Erased(names, len(keys), version, searched, size)


def compact(archive: PathLike) -> Condition:
    """Fold small files and new rows into an archive's indexes; return how it is then."""
    from vesalius.flows.indexing import folder as beside

    path = Path(archive)
    opened = beside.opened(path)
    version = opened.compact()
    kept = beside.read_survey(path)
    if kept is not None:  # the rows are the same
        beside.write_survey(path, replace(kept, version=version))
    return opened.condition()


def status(archive: PathLike) -> Json:
    """Return how an archive is, what made it, and what it can be filtered by."""
    from vesalius.flows.indexing import folder as beside

    path = Path(archive)
    opened = beside.opened(path)
    kept = beside.read_survey(path)
    return {
        "version": opened.version,
        **asdict(opened.condition()),
        "identity": dict(opened.identity),
        "columns": dict(opened.columns),
        "patients": None if kept is None else kept.patients,
        "modalities": [] if kept is None else list(kept.modalities),
        "rule": "" if kept is None else kept.rule(),
    }


def _pseudonym(folder: Path, name: str, known: set[str]) -> str:
    """Return a patient's pseudonym in an archive, of the pseudonym or the identifier."""
    from vesalius.cohorts.pseudonyms import KEY_FILE, Pseudonyms, load_key
    from vesalius.flows.indexing.folder import cohorts_of

    if name in known:
        return name
    for cohort in cohorts_of(folder):
        found = Pseudonyms(load_key(cohort / KEY_FILE))("patient", name)
        if found in known:
            return found
    raise UsageError(
        f"the archive holds no patient '{name}'.{did_you_mean(name, known)} Patients are named by "
        "their pseudonyms (`p-…`), as `vesalius find` shows them"
    )


def _search(folder: Path, names: Sequence[str]) -> tuple[int, int]:
    """Return how many files, and bytes, hold none of some names.

    Raises:
        DataError: a file holds one.
    """
    wanted = [name.encode() for name in names]
    count = size = 0
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        length = os.stat(path).st_size
        count, size = count + 1, size + length
        if not length:
            continue
        with (
            open(path, "rb") as stream,
            mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            if any(content.find(name) >= 0 for name in wanted):
                raise DataError(
                    f"{path} still holds a name of an erased patient: another process may have "
                    "written at the same time; run the same command again"
                )
    return count, size
