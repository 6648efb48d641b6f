# SPDX-License-Identifier: Apache-2.0
"""The search: a quick first pass over images, late interaction over cases, words, and fusion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from vesalius.errors import UsageError
from vesalius.store.protocol import Archive, Filter, Worded
from vesalius.tasks.retrieve.fusion import ordered, reciprocal_ranks
from vesalius.tasks.retrieve.search_bags import Bag, Match, max_similarities
from vesalius.tasks.retrieve.search_topics import Topics
from vesalius.types import Array

Measure = Literal["images", "words", "meaning", "topics"]
EVEN = 0.5  # what words weigh beside images when nobody says otherwise
_FIRST = 200  # entries of the first pass for each vector
_EACH = 20  # or this many for each case that is wanted
_WORDED = 1000  # entries that words may find
_CONDITION = 9000  # characters of a filter's condition


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for.

    Attributes:
        vectors: `(n, d)` of the query's images, of length one; None without an image.
        words: `` for none.
        meaning: `(d,)` of the words in the images' space; None where the encoder knows no words.
        topics: tells what texts are about; None for an archive of too few words.
    """

    vectors: Array | None = None
    words: str = ""
    meaning: Array | None = None
    topics: Topics | None = None

    @property
    def has_images(self) -> bool:
        """Whether there is an image to look for."""
        return self.vectors is not None and len(self.vectors) > 0


@dataclass(frozen=True, slots=True)
class Hit:
    """A case that was found.

    Attributes:
        case: its key.
        score: by which it is ranked: the fused one, else cosine or BM25.
        likeness: of images: mean best cosine; None where images were not asked, or it has none.
        matches: the best match of each image of the query.
        relevance: of words: BM25 of its best image; None where no word was found.
        meaning: cosine of the words' meaning with its best image, and that image; None without.
        topic: cosine of what its best text and the words are about; None without.
        worded: its images that words found, the best first.
    """

    case: str
    score: float
    likeness: float | None = None
    matches: tuple[Match, ...] = ()
    relevance: float | None = None
    meaning: Match | None = None
    topic: float | None = None
    worded: tuple[Worded, ...] = ()


@dataclass(frozen=True, slots=True)
class Search:
    """What was found.

    Attributes:
        hits: the best first.
        nearest: `(n,)` cosine of each image of the query with its nearest entry; NaN without.
        worded: how many entries words found.
        measures: that the scores come from.
    """

    hits: tuple[Hit, ...]
    nearest: Array = field(default_factory=lambda: np.empty(0, np.float32))
    worded: int = 0
    measures: tuple[Measure, ...] = ()


def search(
    archive: Archive, query: Query, *, k: int, given: Filter | None = None, balance: float = EVEN
) -> Search:
    """Return the `k` cases that are most like the query.

    Args:
        archive: to search in.
        query: images, words or both.
        k: how many cases.
        given: which entries may answer.
        balance: what words weigh, 0 to 1, where both images and words are given.

    Raises:
        UsageError: an empty query, `k` below 1, a balance outside 0 to 1, or a filter that is not
            understood.
    """
    given = given or Filter()
    if not query.has_images and not query.words.strip():
        raise UsageError("an empty query finds nothing: give an image, words, or both")
    if k < 1:
        raise UsageError(f"k must be 1 or more, got {k}")
    if not 0 <= balance <= 1:
        raise UsageError(f"balance must lie within 0 (images alone) to 1 (words), got {balance}")
    images = query.vectors if query.vectors is not None and query.has_images else None
    worded = archive.worded(query.words, max(_WORDED, _EACH * k), given) if query.words else []
    probes, nearest = _probes(archive, images, query.meaning, k, given)
    candidates = sorted({*probes, *(one.case for one in worded)})
    bags, meanings, keys = _compare(archive, images, query.meaning, candidates, given)
    topic = _topics(archive, query, [*keys, *(one.key for one in worded)])
    relevance: dict[str, float] = {}
    for one in worded:
        relevance[one.case] = max(one.score, relevance.get(one.case, 0.0))
    likeness = {case: bag.score for case, bag in bags.items()}
    meaning = {case: match.similarity for case, match in meanings.items()}
    said: dict[Measure, dict[str, float]] = {
        "images": likeness, "words": relevance, "meaning": meaning, "topics": topic,
    }  # fmt: skip
    scores, measures = _scores({name: one for name, one in said.items() if one}, balance)
    hits = [
        Hit(
            case,
            score,
            likeness.get(case),
            bags[case].matches if case in bags else (),
            relevance.get(case),
            meanings.get(case),
            topic.get(case),
            tuple(one for one in worded if one.case == case),
        )
        for case, score in ordered(scores)[:k]
    ]
    return Search(tuple(hits), nearest, len(worded), measures)


def _scores(
    measures: Mapping[Measure, Mapping[str, float]], balance: float
) -> tuple[dict[str, float], tuple[Measure, ...]]:
    """Return case -> by what it is ranked, and the measures that had a say.

    One measure ranks as it is, several by their ranks; those of words share what words weigh.
    """
    worded = [name for name in measures if name != "images"]
    mixed = "images" in measures and bool(worded)
    weights: dict[Measure, float] = {
        name: (balance if mixed else 1.0) / len(worded) if name in worded else 1 - balance * mixed
        for name in measures
    }
    asked = tuple(name for name in measures if weights[name] > 0)
    if len(asked) < 2:
        return (dict(measures[asked[0]]) if asked else {}), asked
    fused = reciprocal_ranks([measures[n] for n in asked], [weights[n] for n in asked])
    return fused, asked


def _topics(archive: Archive, query: Query, keys: Sequence[str]) -> dict[str, float]:
    """Return case -> cosine of what its best text and the words are about, of those with words."""
    if query.topics is None or not query.words:
        return {}
    (asked,) = query.topics.vectors([query.words])
    if not asked.any():
        return {}
    entries = [e for e in archive.entries(list(dict.fromkeys(keys))) if e.words]
    texts = list(dict.fromkeys(entry.words for entry in entries))
    if not texts:
        return {}
    cosines = dict(zip(texts, (query.topics.vectors(texts) @ asked).tolist(), strict=True))
    found: dict[str, float] = {}
    for entry in entries:
        found[entry.case] = max(cosines[entry.words], found.get(entry.case, -1.0))
    return found


def _probes(
    archive: Archive, images: Array | None, meaning: Array | None, k: int, given: Filter
) -> tuple[set[str], Array]:
    """Return cases that lie near the images, their mean or the words' meaning.

    And the cosine of each image with its nearest entry. The pass goes deeper until it has met `k`
    cases, or all entries.
    """
    rows = [] if images is None else [images]
    if images is not None and len(images) > 1:
        rows.append(_unit(images.mean(axis=0))[None])
    if meaning is not None:
        rows.append(meaning[None])
    nearest = np.full(0 if images is None else len(images), np.nan, np.float32)
    if not rows:
        return set(), nearest
    vectors = np.concatenate(rows).astype(np.float32)
    depth = max(_FIRST, _EACH * k)
    while True:
        nears = archive.nearest(vectors, depth, given)
        met = [set(near.cases) for near in nears]
        if all(len(m) >= k or len(n.keys) < depth for m, n in zip(met, nears, strict=True)):
            break
        depth *= 2
    for place in range(len(nearest)):
        if len(nears[place].similarities):
            nearest[place] = nears[place].similarities[0]
    return set().union(*met), nearest


def _compare(
    archive: Archive,
    images: Array | None,
    meaning: Array | None,
    cases: Sequence[str],
    given: Filter,
) -> tuple[dict[str, Bag], dict[str, Match], list[str]]:
    """Compare the query with every image of the cases that may answer.

    Returns case -> what late interaction says, case -> the image that the words mean most, and the
    keys of the images that were compared.
    """
    if not cases or (images is None and meaning is None):
        return {}, {}, []
    keys: list[str] = []
    bags: dict[str, Bag] = {}
    meanings: dict[str, Match] = {}
    for some in _groups(cases, _CONDITION - len(given.where)):
        many = sum(len(keys) for keys in archive.of_cases(some).values())
        within = _within(given, some)
        if images is not None:
            nears = archive.nearest(images.astype(np.float32), many, within)
            bags |= max_similarities(nears)
            keys += nears[0].keys
        if meaning is not None:
            near = archive.nearest(meaning[None].astype(np.float32), many, within)
            meanings |= {case: bag.matches[0] for case, bag in max_similarities(near).items()}
            keys += near[0].keys
    return bags, meanings, keys


def _groups(cases: Sequence[str], most: int) -> Iterator[list[str]]:
    """Yield cases in groups whose names, quoted, have at most `most` characters; none is empty."""
    group: list[str] = []
    length = 0
    for case in cases:
        if group and length + len(case) + 4 > most:
            yield group
            group, length = [], 0
        group.append(case)
        length += len(case) + 4
    if group:
        yield group


def _within(given: Filter, cases: Sequence[str]) -> Filter:
    """Return a filter that some cases alone pass."""
    quoted = ", ".join("'" + case.replace("'", "''") + "'" for case in cases)
    among = f"case IN ({quoted})"
    return replace(given, where=f"({given.where}) AND {among}" if given.where else among)


def _unit(vector: Array) -> Array:
    length = float(np.linalg.norm(vector))
    return vector / length if length > 0 else vector
