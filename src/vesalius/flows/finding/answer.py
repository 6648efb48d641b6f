# SPDX-License-Identifier: Apache-2.0
"""The answer of `vesalius find`, for people and for machines. It names no path and no patient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vesalius.types import Json

if TYPE_CHECKING:
    from vesalius.tasks.retrieve.reason import Passage

SHOWN_FACTS = ("modality", "body_part", "plane", "view", "age", "sex")  # in a line of the terminal


@dataclass(frozen=True, slots=True)
class Pair:
    """An image of the query and the image of a case that is most like it.

    Attributes:
        query: number of the query's image, from 1.
        image: key of the case's image in its cohort.
        entry: its key in the archive.
        cosine: of their vectors.
        percentile: of the pairs of different patients in the archive, those that are less alike.
        closeness: percentage of the archive's images whose nearest image of another patient is
            further than this one is.
    """

    query: int
    image: str
    entry: str
    cosine: float
    percentile: float | None
    closeness: float | None


@dataclass(frozen=True, slots=True)
class FoundCase:
    """A case that was found, and why.

    Attributes:
        rank: from 1.
        case: key; pseudonymous.
        score: by which it is ranked, see `Answer.scored_by`.
        cosine: mean over the query's images of the best match; None without images.
        percentile, closeness: of that cosine, as in `Pair`.
        pairs: one an image of the query.
        bm25: of its words; None where none of the query's words is there.
        meaning: cosine of the meaning of the query's words with its nearest image; None without.
        topic: cosine of what the query's and its words are about; None without.
        text: words of the image that matched best, in stretches that say what matched.
        facts: of that image.
        images: how many the case has in the archive.
        entry: key in the archive of the image that tells most.
    """

    rank: int
    case: str
    score: float
    cosine: float | None
    percentile: float | None
    closeness: float | None
    pairs: tuple[Pair, ...]
    bm25: float | None
    meaning: float | None
    topic: float | None
    text: tuple[Passage, ...]
    facts: Mapping[str, Any]
    images: int
    entry: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What an archive knows that is like the query.

    Attributes:
        archive: name of its folder.
        version: that answered.
        searched: images that it holds.
        cases: the best first.
        known: whether the archive knows anything similar; None where that cannot be told.
        verdict: that, in a sentence.
        rule: by which it is told.
        scored_by: what the scores are.
        words: of the query.
        images: how many the query has.
        where: the filter.
        left_out: how many patients were left out as the query's own, and how they were known.
        notes: what else is to be known.
        html: the page that was written, or None.
    """

    archive: str
    version: int
    searched: int
    cases: tuple[FoundCase, ...]
    known: bool | None
    verdict: str
    rule: str
    scored_by: str
    words: str = ""
    images: int = 0
    where: str = ""
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    html: Path | None = None

    def to_json(self) -> Json:
        """Return all of it, for machines."""
        return {**asdict(self), "html": None if self.html is None else str(self.html)}

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return the cases as a table: its head and its rows."""
        rows = []
        for one in self.cases:
            facts = [str(one.facts[n]) for n in SHOWN_FACTS if one.facts.get(n) is not None]
            best = max(one.pairs, key=lambda pair: pair.cosine, default=None)
            rows.append([
                str(one.rank),
                one.case,
                f"{one.score:.3f}",
                "" if one.cosine is None else f"{one.cosine:.3f}",
                "" if one.percentile is None else f"{one.percentile:.1f} %",
                "" if best is None else f"{best.image} (query {best.query})",
                _matched(one.text),
                " ".join(facts),
            ])  # fmt: skip
        head = ["rank", "case", "score", "cosine", "closer than", "image", "words", "facts"]
        return head, rows

    def lines(self) -> list[str]:
        """Return what is said around the table, for people."""
        out = [self.verdict]
        for how, count in self.left_out.items():
            out.append(f"left out: {_patients(count)}, known by {how} (--own shows them)")
        out += self.notes
        out.append(f"score: {self.scored_by}; closer than: of pairs of different patients")
        out.append(
            f"answered by version {self.version} of {self.archive}: {self.searched:,} images"
        )
        if self.html is not None:
            out.append(f"page: {self.html}")
        return out


def _matched(text: tuple[Passage, ...]) -> str:
    """Return the words that matched, and those that say the contrary behind a minus."""
    found = dict.fromkeys(
        ("-" if one.mark == "contrary" else "") + one.text.lower() for one in text if one.mark
    )
    return ", ".join(found)


def _patients(count: int) -> str:
    return "1 patient of the archive" if count == 1 else f"{count} patients of the archive"
