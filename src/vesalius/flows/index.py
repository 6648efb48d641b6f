# SPDX-License-Identifier: Apache-2.0
"""`vesalius index`: a cohort's images and words become an archive to find similar cases in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.errors import DataError, UsageError
from vesalius.flows.indexing.outcome import Indexed as Indexed
from vesalius.types import PathLike, Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from vesalius.cohorts import Cohort
    from vesalius.store.protocol import Archive
    from vesalius.tasks.retrieve.embedder import Embedder

_PICTURE = 9_000  # bytes of a small picture, about
_ENTRY = 1_500  # bytes of words, facts and keys, about
_BASE_MEMORY = 900e6  # bytes: libraries, an encoder and the images read ahead, about


def index(
    cohort: PathLike | Cohort,
    *,
    out: PathLike,
    encoder: str = "",
    case: str = "",
    where: str = "",
    reembed: bool = False,
    show_text: bool = False,
    server: str = "",
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> Indexed:
    """Bring the archive `out` up to date with a cohort, or make it.

    Only images that are new, or whose voxels, words or facts changed, are worked on; entries of
    images that the cohort has no more are removed. What was done is on disk every few hundred
    images: the same command after a crash goes on from there. Several processes, of one cohort or
    of several, may fill one archive at once.

    Args:
        cohort: a cohort or its folder.
        out: the archive's folder.
        encoder: the run's folder, or `frozen`; may be left out for an archive that has one.
        case: what is found as a whole: `patient` (default), `study`, `series` or `image`.
        where: an SQL condition on the cohort's rows: only these are added.
        reembed: make all vectors anew, with this encoder; the old archive answers until it is done.
        show_text: keep small pictures also of images that may have text burned into them.
        server: of a new archive, `postgresql://user@host/database#name`: the entries are kept
            there, and in the folder what belongs beside them.
        progress: called as `progress(stage, done, total)`.
        say: is told what there is to do, and what it takes.

    Raises:
        UsageError: no encoder, an unknown case, or one that contradicts the archive's.
        RunError: another encoder than the archive's. DataError: no image can be read.
    """
    from vesalius.cohorts import Cohort
    from vesalius.flows.indexing import folder as beside
    from vesalius.flows.indexing.target import open_target
    from vesalius.flows.indexing.work import CASES, Work

    opened = cohort if isinstance(cohort, Cohort) else Cohort.open(cohort)
    path = Path(out)
    if case and case not in CASES:
        raise UsageError(f"case must be one of {', '.join(CASES)}, got '{case}'")
    target = open_target(path, opened, encoder=encoder, case=case, reembed=reembed, server=server)
    archive = target.archive
    work = Work(archive, opened, where, case=target.case, show_text=show_text)
    beside.remember_cohort(target.folder, work.name, opened)
    images, fresh, renewed = work.count()
    if say is not None:
        say(_estimate(images, fresh, renewed, len(work.gone), archive, target.embedder))
    work.run(target.embedder, fresh, progress)
    if fresh and not work.done.embedded:
        why = next(iter(work.done.failures.values()), "no reason given")
        raise DataError(
            f"none of the {fresh} images to embed can be read; of the first: {why}; "
            "`vesalius check` names them all"
        )
    held = archive.held()
    _learn(target.folder, archive, held)
    done = Indexed(
        path=path,
        version=archive.version,
        entries=len(held),
        images=images,
        embedded=work.done.embedded,
        renewed=work.done.renewed,
        removed=work.done.removed,
        of_other_cohorts=sum(work.of_another(key) for key in held),
        failures=dict(work.done.failures),
        seconds=work.done.seconds,
        columns=dict(archive.columns),
        left_out=tuple(work.left_out),
        remade=target.remade,
    )
    target.finish()
    return done


def _learn(folder: Path, archive: Archive, held: Mapping[str, str]) -> None:
    """Keep what the archive tells of itself, where that is not of this version."""
    from vesalius.flows.indexing import folder as beside

    kept = beside.read_survey(folder)
    if kept is None or kept.version != archive.version:
        beside.learn(folder, archive, held)


def _estimate(
    images: int, fresh: int, renewed: int, gone: int, archive: Archive, embedder: Embedder
) -> str:
    """Say what there is to do, and what it takes on disk and in memory."""
    size = fresh * (4 * embedder.dimension + _PICTURE + _ENTRY)
    held = 250 * (len(archive.held()) + images)  # keys and patients
    return (
        f"{images:,} images: {fresh:,} to embed, {renewed:,} with new words or facts, {gone:,} "
        f"gone; about {size / 1e6:,.0f} MB more on disk, {(_BASE_MEMORY + held) / 1e9:.1f} GB of "
        "memory"
    )
