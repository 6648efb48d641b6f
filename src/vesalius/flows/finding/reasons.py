# SPDX-License-Identifier: Apache-2.0
"""Why each case was found: which image matched which, how near that is, and which words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vesalius.flows.finding.answer import FoundCase, Pair
from vesalius.tasks.retrieve.reason import marked
from vesalius.tasks.retrieve.search_keys import image_of
from vesalius.tasks.retrieve.search_own import PHASH

if TYPE_CHECKING:
    from vesalius.store.protocol import Archive, Entry
    from vesalius.tasks.retrieve.search import Hit, Search
    from vesalius.tasks.retrieve.search_survey import Survey


def reasons(archive: Archive, found: Search, known: Survey, words: str) -> tuple[FoundCase, ...]:
    """Return the cases that were found, with their reasons.

    Args:
        archive: that was searched.
        found: in it.
        known: how alike its own images are.
        words: of the query.
    """
    keys = [_telling(hit) for hit in found.hits]
    entries = archive.entries(keys)
    images = archive.of_cases([hit.case for hit in found.hits])
    return tuple(
        _case(rank, hit, entry, len(images[hit.case]), known, words)
        for rank, (hit, entry) in enumerate(zip(found.hits, entries, strict=True), 1)
    )


def _telling(hit: Hit) -> str:
    """Return the key of the image that tells most: by its words, else by its likeness."""
    if hit.worded:
        return hit.worded[0].key
    if hit.matches:
        return max(hit.matches, key=lambda match: match.similarity).key
    if hit.meaning is None:
        raise ValueError("a hit without words, images or meaning was ranked by nothing")
    return hit.meaning.key


def _case(rank: int, hit: Hit, entry: Entry, images: int, known: Survey, words: str) -> FoundCase:
    likeness = hit.likeness
    return FoundCase(
        rank=rank,
        case=hit.case,
        score=hit.score,
        cosine=likeness,
        percentile=None if likeness is None else known.percentile(likeness),
        closeness=None if likeness is None else known.closeness(likeness),
        pairs=tuple(
            Pair(
                query=match.image + 1,
                image=image_of(match.key),
                entry=match.key,
                cosine=match.similarity,
                percentile=known.percentile(match.similarity),
                closeness=known.closeness(match.similarity),
            )
            for match in hit.matches
        ),
        bm25=hit.relevance,
        meaning=None if hit.meaning is None else hit.meaning.similarity,
        topic=hit.topic,
        text=marked(entry.words, words),
        facts={n: v for n, v in sorted(entry.facts.items()) if v is not None and n != PHASH},
        images=images,
        entry=entry.key,
    )
