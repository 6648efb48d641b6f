# SPDX-License-Identifier: Apache-2.0
"""Which archive `vesalius index` fills: the one that is there, a new one, or one made anew."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vesalius import files
from vesalius.errors import DataError, UsageError
from vesalius.flows.indexing import folder as beside
from vesalius.flows.indexing.columns import fact_columns

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort
    from vesalius.store.protocol import Archive
    from vesalius.tasks.retrieve.embedder import Embedder

DEFAULT_CASE = "patient"
_REMADE, _BEFORE = ".remade", ".before"  # suffixes beside an archive while it is made anew


@dataclass(frozen=True, slots=True)
class Target:
    """An archive to fill.

    Attributes:
        archive: opened.
        embedder: of the archive.
        folder: where it is now.
        path: where it is to be in the end.
    """

    archive: Archive
    embedder: Embedder
    folder: Path
    path: Path

    @property
    def remade(self) -> bool:
        """Whether it will take another archive's place."""
        return self.folder != self.path

    @property
    def case(self) -> str:
        """What it finds as a whole."""
        return str(self.archive.identity[beside.CASE])

    def finish(self) -> None:
        """Put an archive that was made anew in the place of the old one, and remove that."""
        if not self.remade:
            return
        before = self.path.with_name(self.path.name + _BEFORE)
        self.path.rename(before)
        self.folder.rename(self.path)
        files.fsync_folder(self.path.parent)
        shutil.rmtree(before)


def open_target(
    path: Path, cohort: Cohort, *, encoder: str, case: str, reembed: bool, server: str
) -> Target:
    """Return the archive to fill; see `flows.index.index` for what is asked.

    Raises:
        UsageError: no encoder for a new archive, or what contradicts the one that is there.
        RunError: no such encoder, or another one than the archive's.
        DataError: something is there that is no archive.
    """
    from vesalius.tasks.retrieve.embedder import Embedder

    _settle(path)
    exists = any(path.iterdir()) if path.is_dir() else path.exists()
    if not exists:
        if not encoder:
            raise UsageError(
                "a new archive needs an encoder: --encoder RUN of `vesalius train retrieve`, or "
                "--encoder frozen for the pretrained one"
            )
        embedder = Embedder.load(encoder)
        archive = _create(path, cohort, embedder, case or DEFAULT_CASE, server)
        return Target(archive, embedder, path, path)
    archive = beside.opened(path)
    if server or (reembed and beside.on_server(path)):
        raise UsageError(
            "where an archive's entries are cannot change, and one on a server is not made anew in "
            "its place: give another --out, with --server postgresql://…#name"
        )
    if reembed:
        embedder = Embedder.load(encoder or beside.encoder_of(path))
        level = case or str(archive.identity[beside.CASE])
        folder = path.with_name(path.name + _REMADE)
        return Target(_remade(folder, cohort, embedder, level), embedder, folder, path)
    embedder = beside.load_encoder(path, archive, encoder)
    if encoder:
        beside.remember_encoder(path, embedder.source)
    _refuse_case(archive, case)
    return Target(archive, embedder, path, path)


def _create(path: Path, cohort: Cohort, embedder: Embedder, case: str, server: str) -> Archive:
    try:
        archive = beside.make(
            path,
            server,
            identity={**embedder.identity, beside.CASE: case},
            dimension=embedder.dimension,
            columns=fact_columns(cohort),
        )
    except (UsageError, OSError):
        if not path.exists():
            raise
        archive = beside.opened(path)  # another process was quicker
        beside.refuse_other(path, archive, embedder)
        _refuse_case(archive, case)
    beside.remember_encoder(path, embedder.source)
    return archive


def _remade(folder: Path, cohort: Cohort, embedder: Embedder, case: str) -> Archive:
    """Return the archive that takes the old one's place: begun before, or new."""
    if folder.exists():
        try:
            archive = beside.opened(folder)
        except DataError:
            shutil.rmtree(folder)  # killed while it was created
        else:
            same = beside.maker(archive.identity) == embedder.identity
            if same and archive.identity[beside.CASE] == case:
                return archive
            shutil.rmtree(folder)
    return _create(folder, cohort, embedder, case, "")


def _settle(path: Path) -> None:
    """Finish an exchange that was interrupted."""
    before = path.with_name(path.name + _BEFORE)
    if not before.exists():
        return
    if not path.exists():
        path.with_name(path.name + _REMADE).rename(path)
        files.fsync_folder(path.parent)
    shutil.rmtree(before)


def _refuse_case(archive: Archive, case: str) -> None:
    held = archive.identity[beside.CASE]
    if case and case != held:
        raise UsageError(
            f"the archive finds by {held}, not by {case}; leave --case out, or make it anew with "
            "--reembed"
        )
