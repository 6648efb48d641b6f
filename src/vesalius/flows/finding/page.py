# SPDX-License-Identifier: Apache-2.0
"""The page of an answer: its pictures are gathered here, `reporting.retrieval` draws it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.errors import DataError, UsageError
from vesalius.files import write_text
from vesalius.flows.finding.answer import Answer, FoundCase, Pair

if TYPE_CHECKING:
    from vesalius.flows.finding.exam import Exam
    from vesalius.reporting.retrieval_card import CasePicture
    from vesalius.store.protocol import Archive, Entry
    from vesalius.tasks.retrieve.embedder import Embedder
    from vesalius.volume import Volume

_PICTURES = 4  # of one case


def write_page(
    path: Path,
    answer: Answer,
    archive: Archive,
    folder: Path,
    exam: Exam | None,
    embedder: Embedder | None,
    *,
    explain: bool,
    show_text: bool,
) -> Answer:
    """Write the page of an answer and return the answer with it.

    Args:
        path: of the file.
        answer: that the page shows.
        archive: that answered.
        folder: of the archive.
        exam: the query's images; None without.
        embedder: of the archive; None where it was not needed.
        explain: draw where the query's image and a case's are alike. The originals are looked at
            where the archive's cohort is still in its place, else the small pictures.
        show_text: show the query's images also where text, and so a name, may be burned in.
    """
    from vesalius.reporting.retrieval import result_page
    from vesalius.reporting.retrieval_pictures import shown, thumbnail

    if path.is_dir():
        raise UsageError(f"'{path}' is a folder; name a file for the page, such as found.html")
    notes = list(answer.notes)
    visible = [] if exam is None else [show_text or not textual for textual in exam.textual]
    if not all(visible):
        notes.append(
            "images of the query that may show a name are withheld; --show-text shows them"
        )
    volumes = () if exam is None else exam.volumes
    queries = [
        shown(thumbnail(volume)) if seen else ""
        for volume, seen in zip(volumes, visible, strict=True)
    ]
    pictures: dict[str, list[CasePicture]] = {}
    for case in answer.cases:
        pictures[case.case] = list(_pictures(archive, case))
    if explain and exam is not None and embedder is not None:
        small = 0
        for case in answer.cases:
            made, was_small = _explained(archive, folder, case, exam, embedder, visible, notes)
            small += was_small
            if made is not None:
                pictures[case.case][0] = made
        if small:
            notes.append(
                f"{small} originals are out of reach: the archive's small pictures were compared "
                "for the maps"
            )
    told = replace(answer, notes=tuple(dict.fromkeys(notes)), html=path)
    page = told.to_json()
    write_text(path, result_page(page, queries, pictures))
    return told


def _pictures(archive: Archive, case: FoundCase) -> Iterator[CasePicture]:
    """Yield the pictures of a case: of each match, the most alike first; else of what tells most.

    An image of the case is shown once.
    """
    from vesalius.reporting.retrieval_card import CasePicture
    from vesalius.reporting.retrieval_pictures import shown

    best: dict[str, Pair] = {}
    for pair in sorted(case.pairs, key=lambda pair: -pair.cosine):
        best.setdefault(pair.entry, pair)
    keys = list(best)[:_PICTURES] or [case.entry]
    for entry in archive.entries(keys):
        matched = best.get(entry.key)
        yield CasePicture(
            shown(entry.thumbnail) if entry.thumbnail else "",
            None if matched is None else matched.query,
            None if matched is None else matched.cosine,
        )


def _explained(
    archive: Archive,
    folder: Path,
    case: FoundCase,
    exam: Exam,
    embedder: Embedder,
    visible: Sequence[bool],
    notes: list[str],
) -> tuple[CasePicture | None, bool]:
    """Return the case's best match with both maps, and whether a small picture stood in for it."""
    from vesalius.reporting.retrieval_card import CasePicture
    from vesalius.reporting.retrieval_pictures import overlaid

    best = max(case.pairs, key=lambda pair: pair.cosine, default=None)
    if best is None or not visible[best.query - 1]:
        return None, False
    (entry,) = archive.entries([best.entry])
    if not entry.thumbnail:  # withheld, or it cannot be shown
        return None, False
    try:
        other, small = _original(folder, entry)
        query = exam.volumes[best.query - 1]
        here, there = embedder.similarity_map(query, other)
        return CasePicture(
            "", best.query, best.cosine, overlaid(query, here), overlaid(other, there)
        ), small
    except DataError as error:
        reason = getattr(error, "finding", "") or "it cannot be prepared"
        notes.append(f"no map for image {best.image}: {reason}")
        return None, False


def _original(folder: Path, entry: Entry) -> tuple[Volume, bool]:
    """Return an archive's image: the original, or its small picture where that is out of reach."""
    from vesalius.cohorts import Cohort
    from vesalius.flows.indexing.folder import cohort_of
    from vesalius.reporting.retrieval_pictures import as_volume
    from vesalius.tasks.retrieve.search_keys import EntryKey

    key = EntryKey.parse(entry.key)
    path = None if key is None else cohort_of(folder, key.cohort)
    if key is not None and path is not None:
        cohort = Cohort.open(path)
        row = cohort.row(key.row)
        if all((cohort.roots[row["root"]] / name).exists() for name in row["files"]):
            return cohort.read(row), False
    return as_volume(entry.thumbnail, str(entry.facts.get("modality") or "")), True
