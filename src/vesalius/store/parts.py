# SPDX-License-Identifier: Apache-2.0
"""Rows of an archive held in memory: filtered, compared one by one, found by words.

A part never changes but for rows that die; what is new in the archive is another part. Vectors and
terms are read when they are first asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vesalius.store import bm25, rows
from vesalius.store.cells import GATHERED, Cells
from vesalius.store.masks import fulfilling
from vesalius.store.protocol import Filter
from vesalius.store.where import Condition
from vesalius.types import Array

_GATHERED = 0.2  # of the rows: below, those that may answer are gathered before they are compared
_AT_ONCE = 1 << 24  # products held at a time
_REPEATED = 0.5  # distinct values a row: below, a text is kept once a value
SLACK = 1e-5  # by how much a cosine of float32 products may err


class Source(Protocol):
    """Where rows are read from, by their addresses."""

    def read(self, columns: Sequence[str], addresses: Array) -> pa.Table:
        """Return columns of the rows at addresses, in their order."""

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[Array, pa.RecordBatch]]:
        """Yield addresses and columns of all rows, a batch at a time."""


class Part:
    """Rows at addresses.

    Attributes:
        addresses: `(rows,)` uint64.
        columns: name -> Arrow array of what a filter may name, texts that repeat encoded.
        alive: `(rows,)` mask of those that are still in the archive.
        cells: what the rows are ordered by, in a part that an index holds; None where queries are
            compared with all.
    """

    def __init__(self, addresses: Array, columns: Mapping[str, pa.Array]) -> None:
        self.addresses = addresses
        self.columns = dict(columns)
        self.alive = np.ones(len(addresses), bool)
        self.cells: Cells | None = None
        self._vectors: tuple[Array, Array] | None = None
        self._postings: bm25.Postings | None = None

    @classmethod
    def of(cls, found: pa.Table, addresses: Array) -> Part:
        """Return a part of rows that were read."""
        columns = {name: found[name].combine_chunks() for name in found.column_names}
        return cls(
            addresses,
            {name: one if name == "key" else _encoded(one) for name, one in columns.items()},
        )

    def __len__(self) -> int:
        return len(self.addresses)

    def bury(self, now: Array) -> None:
        """Mark the rows dead whose addresses are not among those of the archive, sorted."""
        if len(now):
            places = np.minimum(np.searchsorted(now, self.addresses), len(now) - 1)
            self.alive = now[places] == self.addresses
        else:
            self.alive = np.zeros(len(self), bool)

    def keys(self, places: Array) -> list[str]:
        """Return the keys of rows."""
        return self.texts("key", places)

    def texts(self, column: str, places: Array) -> list[str]:
        """Return a column of rows."""
        found: list[str] = self.columns[column].take(pa.array(places)).to_pylist()
        return found

    def named(self, column: str, values: Sequence[str]) -> Array:
        """Return a mask of the living rows whose column is one of some texts."""
        return self.alive & _among(self.columns[column], values)

    def allowed(self, condition: Condition | None, given: Filter) -> Array:
        """Return a mask of the living rows that may answer."""
        found = self.alive
        if condition is not None:
            found = found & fulfilling(condition, self.columns)
        for column, values in (("patient", given.not_patients), ("case", given.not_cases)):
            if values:
                found = found & ~_among(self.columns[column], values)
        return found

    def vectors(self, source: Source, dimension: int) -> tuple[Array, Array]:
        """Return `(rows, d)` float32, zeros where there is no vector, and a mask of vectors."""
        if self._vectors is None:
            self._vectors = _read_vectors(self.addresses, self.alive, source, dimension)
        return self._vectors

    def postings(self, source: Source) -> bm25.Postings:
        """Return which rows bear which term."""
        if self._postings is None:
            living = np.flatnonzero(self.alive)
            found = source.read(["terms"], self.addresses[living])["terms"].combine_chunks()
            places = np.full(len(self), -1, np.int64)
            places[living] = np.arange(len(living))
            of_rows = (
                found.take(pa.array(places, mask=places < 0)) if len(living) < len(self) else found
            )
            self._postings = bm25.postings(of_rows.fill_null(""))
        return self._postings

    def give(self, vectors: tuple[Array, Array], postings: bm25.Postings) -> None:
        """Take vectors with their mask, and postings, that need not be read."""
        self._vectors, self._postings = vectors, postings

    def near(self, queries: Array, k: int, allowed: Array, source: Source) -> Iterator[Array]:
        """Yield for each `(n, d)` query the rows that may be among the `k` nearest.

        Rows whose cosines differ by less than float32 products err are all there.
        """
        vectors, has = self.vectors(source, queries.shape[1])
        may = allowed & has
        count = int(np.count_nonzero(may))
        if self.cells is not None and count > GATHERED:
            for query in queries:
                runs = self.cells.chosen(query, may, count, k)
                yield _near_in_cells(vectors, query, k, may, runs)
            return
        places = np.arange(len(may))
        if self.cells is not None or count < _GATHERED * len(may):
            places = np.flatnonzero(may)
            vectors, may = vectors[places], np.ones(len(places), bool)
        step = max(1, _AT_ONCE // max(len(vectors), 1))
        for at in range(0, len(queries), step):
            for scores in queries[at : at + step] @ vectors.T:
                if count < len(scores):
                    scores[~may] = -np.inf
                yield places[top(scores, k, SLACK)]


def _near_in_cells(
    vectors: Array, query: Array, k: int, may: Array, runs: Sequence[tuple[int, int]]
) -> Array:
    scores = np.concatenate([vectors[start:end] @ query for start, end in runs])
    places = np.concatenate([np.arange(start, end) for start, end in runs])
    scores[~may[places]] = -np.inf
    return places[top(scores, k, SLACK)]


def top(scores: Array, k: int, slack: float) -> Array:
    """Return the places of the `k` highest finite scores and of all at most `slack` below them."""
    finite = scores > -np.inf
    if len(scores) > k:
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        return np.flatnonzero(finite & (scores >= least - slack))
    return np.flatnonzero(finite)


def _read_vectors(
    addresses: Array, alive: Array, source: Source, dimension: int
) -> tuple[Array, Array]:
    vectors = np.zeros((len(addresses), dimension), np.float32)
    has = np.zeros(len(addresses), bool)
    living = np.flatnonzero(alive)
    if len(living) < _AT_ONCE // dimension:
        found = rows.vectors_of(source.read(["vector"], addresses[living])["vector"])
        has[living] = ~np.isnan(found[:, 0])
        vectors[living] = np.where(has[living, None], found, 0)
        return vectors, has
    order = living[np.argsort(addresses[living])]
    known = addresses[order]
    for at, batch in source.batches(["vector"]):
        places = np.minimum(np.searchsorted(known, at), len(known) - 1)
        mine = known[places] == at
        found = rows.vectors_of(batch["vector"])[mine]
        filled = ~np.isnan(found[:, 0])
        has[order[places[mine]]] = filled
        vectors[order[places[mine]]] = np.where(filled[:, None], found, 0)
    return vectors, has


def _encoded(column: pa.Array) -> pa.Array:
    """Return a text whose values repeat as numbers of distinct values, others as they are."""
    if pa.types.is_string(column.type):
        by_value = column.dictionary_encode()
        if len(by_value.dictionary) <= _REPEATED * len(column):
            return by_value
    return column


def _among(column: pa.Array, values: Sequence[str]) -> Array:
    wanted = pa.array(rows.storable(values), pa.string())
    if isinstance(column, pa.DictionaryArray):
        of_value = np.asarray(pc.is_in(column.dictionary, value_set=wanted))
        return (
            of_value[np.asarray(column.indices)] if len(of_value) else np.zeros(len(column), bool)
        )
    return np.asarray(pc.is_in(column, value_set=wanted))
