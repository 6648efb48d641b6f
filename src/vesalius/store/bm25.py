# SPDX-License-Identifier: Apache-2.0
"""Okapi BM25 over rows in memory: postings, and the scores of a query's terms.

Robertson, Walker, Jones, Hancock-Beaulieu, Gatford: Okapi at TREC-3 (1994), with k1 1.2 and b 0.75;
the inverse document frequency is `ln(1 + (n - df + 0.5) / (df + 0.5))`, which is above zero even
for a term that most documents bear (Robertson and Zaragoza, Foundations and Trends in Information
Retrieval 3:333-389, 2009, give the form without the 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vesalius.types import Array

K1, B = 1.2, 0.75
_AT_ONCE = 1 << 17  # rows whose terms are sorted at a time


@dataclass(frozen=True, slots=True)
class Postings:
    """Which rows bear which term, how often.

    Attributes:
        vocabulary: terms, sorted.
        offsets: `(terms + 1,)`, where each term's rows begin.
        rows: int32, row numbers, rising within a term.
        counts: uint16, how often the row bears the term.
        lengths: `(rows,)` int32, number of terms of each row.
    """

    vocabulary: pa.Array
    offsets: Array
    rows: Array
    counts: Array
    lengths: Array

    def of(self, term: str) -> tuple[Array, Array]:
        """Return the rows that bear a term and how often."""
        at = self._place(term)
        if at < 0:
            return self.rows[:0], self.counts[:0]
        here = slice(int(self.offsets[at]), int(self.offsets[at + 1]))
        return self.rows[here], self.counts[here]

    def _place(self, term: str) -> int:
        low, high = 0, len(self.vocabulary)
        while low < high:
            middle = (low + high) // 2
            if self.vocabulary[middle].as_py() < term:
                low = middle + 1
            else:
                high = middle
        found = low < len(self.vocabulary) and self.vocabulary[low].as_py() == term
        return low if found else -1


def postings(joined: pa.Array) -> Postings:
    """Return the postings of `(rows,)` texts of terms with a space between them."""
    if isinstance(joined, pa.ChunkedArray):
        joined = joined.combine_chunks()
    parts = [_postings(joined[at : at + _AT_ONCE]) for at in range(0, len(joined), _AT_ONCE)]
    if len(parts) == 1:
        return parts[0]
    vocabulary = pa.array(
        sorted({t for part in parts for t in part.vocabulary.to_pylist()}), pa.string()
    )
    places = [np.asarray(pc.index_in(part.vocabulary, vocabulary), np.int64) for part in parts]
    sizes = np.zeros(len(vocabulary), np.int64)
    for part, at in zip(parts, places, strict=True):
        sizes[at] += np.diff(part.offsets)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    rows, counts = np.empty(offsets[-1], np.int32), np.empty(offsets[-1], np.uint16)
    filled = offsets[:-1].copy()
    for number, (part, at) in enumerate(zip(parts, places, strict=True)):
        size = np.diff(part.offsets)
        to = np.repeat(filled[at] - part.offsets[:-1], size) + np.arange(len(part.rows))
        rows[to], counts[to] = part.rows + number * _AT_ONCE, part.counts
        filled[at] += size
    lengths = np.concatenate([part.lengths for part in parts] or [np.empty(0, np.int32)])
    return Postings(vocabulary, offsets, rows, counts, lengths)


def _postings(joined: pa.Array) -> Postings:
    lists = pc.split_pattern(joined, " ")
    values = lists.flatten()
    rows = np.asarray(pc.list_parent_indices(lists), np.int64)
    filled = pc.not_equal(values, "")
    rows, values = rows[np.asarray(filled)], values.filter(filled)
    encoded = values.dictionary_encode()
    vocabulary, codes = encoded.dictionary, np.asarray(encoded.indices, np.int64)
    lengths = np.bincount(rows, minlength=len(joined)).astype(np.int32)
    order = np.asarray(pc.sort_indices(vocabulary))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    pairs, counts = np.unique(rank[codes] * len(joined) + rows, return_counts=True)
    offsets = np.searchsorted(pairs // len(joined), np.arange(len(order) + 1))
    counts = np.minimum(counts, np.iinfo(np.uint16).max).astype(np.uint16)
    rows_of = (pairs % len(joined)).astype(np.int32)
    return Postings(vocabulary.take(pa.array(order)), offsets, rows_of, counts, lengths)


def idf(documents: int, bearing: int) -> float:
    """Return the weight of a term that `bearing` of `documents` bear, above zero."""
    return float(np.log1p((documents - bearing + 0.5) / (bearing + 0.5)))


def weights(counts: Array, lengths: Array, mean_length: float) -> Array:
    """Return what each occurrence count of a term is worth in a document of that length."""
    times = counts.astype(np.float64)
    return times * (K1 + 1) / (times + K1 * (1 - B + B * lengths / max(mean_length, 1e-9)))
