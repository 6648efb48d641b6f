# SPDX-License-Identifier: Apache-2.0
"""`vesalius find`: the cases of an archive that are most like an image, words, or both."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.errors import UsageError
from vesalius.flows.finding.answer import Answer as Answer
from vesalius.types import Array, PathLike

if TYPE_CHECKING:
    from vesalius.io.limits import Limits
    from vesalius.store.protocol import Archive
    from vesalius.tasks.retrieve.embedder import Embedder


def find(
    archive: PathLike,
    *,
    image: PathLike | Sequence[PathLike] = (),
    words: str = "",
    where: str = "",
    k: int = 10,
    balance: float = 0.5,
    explain: bool = False,
    html: PathLike | None = None,
    own: bool = False,
    show_text: bool = False,
    at: int | None = None,
    encoder: str = "",
    pseudonym_key: PathLike | None = None,
    limits: Limits | None = None,
) -> Answer:
    """Return the cases most like the query, with the reason of each.

    All images are taken as one case, an unordered set. The patient whose images they are is left
    out: known by the DICOM identifier, or by an identical or nearly identical image.

    Args:
        archive: folder that `vesalius index` made.
        image: files of any readable format, or folders of one exam.
        words: what to look for, in words.
        where: an SQL condition on the archive's facts: `"modality='MR' and age>50"`.
        k: how many cases.
        balance: what words weigh beside images, 0 to 1, where both are given.
        explain: show on both images where they are alike (on the page).
        html: file for a page of pictures.
        own: show the patient's own images as well.
        show_text: show the query's images on the page also where a name may be burned into them.
        at: version of the archive that is to answer; by default the newest.
        encoder: where the archive's encoder is now, if it was moved.
        pseudonym_key: of the archive's cohorts, if they were moved.
        limits: what reading an image may take in memory.

    Raises:
        UsageError: an empty query, or a filter that is not understood.
        DataError: no archive, or no image that can be read.
        RunError: the archive's encoder is gone, or another one.
    """
    from vesalius.flows.finding.exam import own_patients, read_exam, unseen
    from vesalius.flows.finding.reasons import reasons
    from vesalius.flows.finding.verdict import scored_by, verdict
    from vesalius.flows.indexing import folder as beside
    from vesalius.flows.indexing.columns import archive_where
    from vesalius.store.protocol import Filter
    from vesalius.tasks.retrieve.search import Query, search
    from vesalius.tasks.retrieve.search_survey import survey

    paths = [image] if isinstance(image, str | os.PathLike) else list(image)
    if not paths and not words.strip():
        raise UsageError("an empty query finds nothing: give --image, --words, or both")
    if explain and html is None:
        raise UsageError("--explain draws on the page: give --html FILE as well")
    folder = Path(archive)
    opened = beside.opened(folder, at)
    given = Filter(where=archive_where(where, opened.columns))
    embedder = _embedder(folder, opened, encoder, images=bool(paths), words=bool(words.strip()))
    exam, owners, notes = None, dict[str, str](), list[str]()
    if paths and embedder is not None:
        exam = read_exam([Path(path) for path in paths], embedder, limits)
        key = None if pseudonym_key is None else Path(pseudonym_key)
        notes += exam.notes
        if not own:
            owners, more = own_patients(opened, folder, exam, key)
            notes += more
            given = replace(given, not_patients=tuple(sorted(owners)))
    known = beside.read_survey(folder)
    if known is None or known.version != opened.version:
        known = survey(opened)
    strange = [] if exam is None else unseen(opened, exam, known.modalities)
    query = Query(
        None if exam is None else exam.vectors,
        words,
        _meaning(embedder, words),
        beside.read_topics(folder),
    )
    found = search(opened, query, k=k, given=given, balance=balance)
    told = verdict(found, known, query, where, strange)
    held = set(opened.held().values()) if owners else set()
    answer = Answer(
        archive=folder.resolve().name,
        version=opened.version,
        searched=known.images,
        cases=reasons(opened, found, known, words),
        known=told.known,
        verdict=told.sentence,
        rule=known.rule() if exam is not None else "",
        scored_by=scored_by(found, balance),
        words=words,
        images=0 if exam is None else len(exam.volumes),
        where=where,
        left_out=dict(Counter(how for who, how in owners.items() if who in held)),
        notes=tuple(notes),
    )
    if html is None:
        return answer
    from vesalius.flows.finding.page import write_page

    return write_page(
        Path(html), answer, opened, folder, exam, embedder, explain=explain, show_text=show_text
    )


def _embedder(
    folder: Path, archive: Archive, encoder: str, *, images: bool, words: bool
) -> Embedder | None:
    """Return the archive's encoder; None where the query needs none."""
    from vesalius.flows.indexing.folder import load_encoder, may_know_words

    if images or (words and may_know_words(folder, encoder)):
        return load_encoder(folder, archive, encoder)
    return None


def _meaning(embedder: Embedder | None, words: str) -> Array | None:
    """Return the words in the space of the images; None where the encoder learned none."""
    if embedder is None or not words.strip():
        return None
    table = embedder.words([words])
    return None if table is None else table[0]
