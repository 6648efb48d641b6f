# SPDX-License-Identifier: Apache-2.0
"""One state of an archive in memory, brought up to date by what was added and what went.

Answers are exact where parts compare row by row: candidates come from float32 products, their
cosines are then computed in float64, so that a query's answer is the same alone and among others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from vesalius.store import bm25
from vesalius.store.parts import Part, Source, top
from vesalius.store.protocol import Filter, Near, Worded
from vesalius.store.where import Condition
from vesalius.store.words import terms
from vesalius.types import Array

_PARTS = 8  # more are read anew as one


class Snapshot:
    """The rows of one version.

    Attributes:
        version: of the archive.
        parts: its rows; a part's dead rows are not among them.
    """

    def __init__(self, parts: Sequence[Part], version: int) -> None:
        self.version = version
        self.parts = list(parts)

    def follow(self, version: int, now: Array, read: Callable[[Array], Part]) -> None:
        """Become another version: `now` are its addresses, `read` makes a part of new ones."""
        for part in self.parts:
            part.bury(now)
        self.parts = [part for part in self.parts if part.alive.any()]
        known = np.concatenate([part.addresses[part.alive] for part in self.parts] or [now[:0]])
        new = np.setdiff1d(now, known, assume_unique=True)
        loose = [part for part in self.parts if part.cells is None]
        if len(new) and (
            len(loose) >= _PARTS or len(new) > sum(int(part.alive.sum()) for part in loose)
        ):
            new = np.sort(np.concatenate([new, *(part.addresses[part.alive] for part in loose)]))
            self.parts = [part for part in self.parts if part not in loose]
        if len(new):
            self.parts.append(read(new))
        self.version = version

    def __len__(self) -> int:
        return sum(int(part.alive.sum()) for part in self.parts)

    def loose(self) -> int:
        """Return how many rows no index covers."""
        return sum(int(part.alive.sum()) for part in self.parts if part.cells is None)

    def find(self, column: str, values: Sequence[str]) -> list[tuple[Part, Array]]:
        """Return the rows whose key or case is one of some texts."""
        return [(part, np.flatnonzero(part.named(column, values))) for part in self.parts]

    def nearest(
        self, queries: Array, k: int, condition: Condition | None, given: Filter, source: Source
    ) -> list[Near]:
        """Return up to `k` rows near each of `(n, d)` queries of length one."""
        found: list[list[tuple[Part, Array]]] = [[] for _ in queries]
        for part in self.parts:
            allowed = part.allowed(condition, given)
            for at, places in enumerate(part.near(queries, k, allowed, source)):
                found[at].append((part, places))
        dimension = queries.shape[1]
        return [
            _ranked(query, [(part, part.vectors(source, dimension)[0][places], places)
                            for part, places in of_query], k)
            for query, of_query in zip(queries, found, strict=True)
        ]  # fmt: skip

    def worded(
        self, words: str, k: int, condition: Condition | None, given: Filter, source: Source
    ) -> list[Worded]:
        """Return up to `k` rows that bear terms of the words, by BM25 over all rows."""
        wanted = list(dict.fromkeys(terms(words)))
        every = [part.postings(source) for part in self.parts]
        lengths = [one.lengths[part.alive] for one, part in zip(every, self.parts, strict=True)]
        documents = sum(int(np.count_nonzero(one)) for one in lengths)
        mean = sum(int(one.sum(dtype=np.int64)) for one in lengths) / max(documents, 1)
        scores = [np.zeros(len(part)) for part in self.parts]
        bearing: list[list[Array]] = [[] for _ in self.parts]
        for term in wanted:
            found = [one.of(term) for one in every]
            living = [part.alive[at] for part, (at, _) in zip(self.parts, found, strict=True)]
            weight = bm25.idf(documents, sum(int(one.sum()) for one in living))
            for held, score, one, (at, counts) in zip(bearing, scores, every, found, strict=True):
                score[at] += weight * bm25.weights(counts, one.lengths[at], mean)
                held.append(at)
        best: list[Worded] = []
        for part, held, score in zip(self.parts, bearing, scores, strict=True):
            may = np.flatnonzero((score > 0) & part.allowed(condition, given))
            places = may[top(score[may], k, 1e-9)]
            named = zip(places, part.keys(places), part.texts("case", places), strict=True)
            best += [
                Worded(key, case, float(score[at]), _borne(wanted, held, at))
                for at, key, case in named
            ]
        return sorted(best, key=lambda hit: (-round(hit.score, 9), hit.key))[:k]


def _ranked(query: Array, found: Iterable[tuple[Part, Array, Array]], k: int) -> Near:
    keys: list[str] = []
    cases: list[str] = []
    cosines = []
    for part, vectors, places in found:
        keys += part.keys(places)
        cases += part.texts("case", places)
        cosines.append(np.einsum("ij,j->i", vectors.astype(np.float64), query.astype(np.float64)))
    similarities = np.concatenate(cosines or [np.empty(0)]).astype(np.float32)
    order = sorted(range(len(keys)), key=lambda at: (-similarities[at], keys[at]))[:k]
    return Near(
        tuple(keys[at] for at in order),
        tuple(cases[at] for at in order),
        np.clip(similarities[order], -1, 1) if order else similarities[:0],
    )


def _borne(wanted: Sequence[str], bearing: Sequence[Array], row: int) -> tuple[str, ...]:
    """Return the terms whose rows, rising, include one."""
    found = []
    for term, rows in zip(wanted, bearing, strict=True):
        at = int(np.searchsorted(rows, row))
        if at < len(rows) and int(rows[at]) == row:
            found.append(term)
    return tuple(found)
