# SPDX-License-Identifier: Apache-2.0
"""Whether an archive knows anything like the query, and what the scores are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from vesalius.tasks.retrieve.search import Query, Search
    from vesalius.tasks.retrieve.search_survey import Survey

_MEASURES = {
    "images": "mean best cosine of the images",
    "words": "BM25 of the words",
    "meaning": "cosine of the words' meaning with the images",
    "topics": "cosine of what the words are about",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be said first.

    Attributes:
        sentence: in words.
        known: whether anything similar is known; None where that cannot be told.
    """

    sentence: str
    known: bool | None


def verdict(
    found: Search, known: Survey, query: Query, where: str, strange: Sequence[str]
) -> Verdict:
    """Return whether anything similar is known.

    Of images: the mean over them of the cosine with the nearest image that may answer, against the
    floor of the archive's survey. Of words alone: whether any of them is there.

    Args:
        found: by the search.
        known: of the archive.
        query: that was asked.
        where: the filter, or ``.
        strange: why the archive cannot know such images, or nothing.
    """
    among = " and fulfils the filter" if where else ""
    if strange:
        return Verdict(f"nothing similar is known: {'; '.join(strange)}", False)
    if not found.hits:
        if where and not query.has_images and not found.worded:
            why = "no image that fulfils the filter bears any of the query's words"
        elif where:
            why = "no image fulfils the filter"
        elif query.has_images:
            why = "it holds no image of another patient"
        else:
            why = "none of the query's words is there"
        return Verdict(f"nothing similar is known to the archive: {why}", False)
    if not query.has_images:
        if found.worded:
            return Verdict(f"{found.worded:,} images bear some of the query's words", True)
        return Verdict("none of the query's words is there; found by their meaning alone", None)
    seen = found.nearest[np.isfinite(found.nearest)]
    if known.floor is None or not len(seen):
        return Verdict(f"whether anything similar is known cannot be told: {known.rule()}", None)
    nearest = float(seen.mean())
    if nearest < known.floor:
        words = "; what follows has some of its words" if found.worded else ""
        return Verdict(
            f"nothing similar is known to the archive: the query's images lie at a mean cosine of "
            f"{nearest:.3f} from the nearest that it holds{among} ({known.rule()}){words}",
            False,
        )
    return Verdict(f"similar cases are known: nearest cosine {nearest:.3f} ({known.rule()})", True)


def scored_by(found: Search, balance: float) -> str:
    """Say what the scores of an answer are."""
    said = [_MEASURES[name] for name in found.measures]
    if len(said) < 2:
        return "".join(said) or "nothing"
    shares = f", words weigh {balance:.0%}" if "images" in found.measures else ""
    return f"reciprocal ranks of {', '.join(said[:-1])} and {said[-1]}{shares}; 1 leads them all"
