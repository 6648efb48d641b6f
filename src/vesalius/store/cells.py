# SPDX-License-Identifier: Apache-2.0
"""Cells of a space of unit vectors: a query is compared with the rows of the cells nearest to it.

Inverted file of k-means cells (Sivic and Zisserman, Video Google, ICCV 2003; Jégou, Douze, Schmid,
Product quantization for nearest neighbor search, IEEE TPAMI 33:117-128, 2011) with whole float32
vectors in it: what is compared is compared exactly, only a cell that is not looked at can hide a
neighbor. How many cells must be looked at is measured on the archive itself when the cells are
made, without a filter and with filters that leave a share of the rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vesalius.types import Array

GATHERED = 16_384  # rows that may answer: up to so many are all compared, whatever their cell
SHARES = (1.0, 0.25, 0.05)  # of the rows, for which the number of cells is measured
RECALL = 0.99  # of the ten nearest, that the number of cells is chosen for
_AHEAD = 10  # rows looked at for each that is asked for, at least
_NEAREST = 10
_SAMPLE = 64  # training vectors a cell
_ROUNDS = 12
_QUERIES = 100
_AT_ONCE = 1 << 24


@dataclass(frozen=True, slots=True)
class Cells:
    """Where each cell's rows are, and how many cells a query looks at.

    Attributes:
        centroids: `(cells, d)` float32 of length one.
        offsets: `(cells + 1,)` int64, first row of each cell and the end of the last; no cell is
            empty, rows behind the last have no vector.
        looked: share of the rows that may answer -> number of cells.
    """

    centroids: Array
    offsets: Array
    looked: Mapping[float, int]

    def chosen(self, query: Array, may: Array, count: int, k: int) -> list[tuple[int, int]]:
        """Return the runs of rows that a query is compared with: the cells nearest to it.

        Args:
            query: `(d,)` of length one.
            may: `(rows,)` mask of what may answer; cells without any are passed over.
            count: number of rows in it.
            k: number of rows that are asked for; cells with several times as many are looked at.
        """
        within = np.add.reduceat(may.view(np.uint8), self.offsets[:-1], dtype=np.int64)
        if self.offsets[-1] < len(may):  # the last sum went on to the rows without vector
            within[-1] = np.count_nonzero(may[self.offsets[-2] : self.offsets[-1]])
        order = np.argsort(-(self.centroids @ query), kind="stable")
        order = order[within[order] > 0]
        enough = int(np.searchsorted(np.cumsum(within[order]), _AHEAD * k)) + 1
        order = order[: max(enough, self.number(count / int(self.offsets[-1])))]
        return [(int(self.offsets[cell]), int(self.offsets[cell + 1])) for cell in order]

    def number(self, share: float) -> int:
        """Return how many cells are looked at when a share of the rows may answer."""
        measured = [one for one in self.looked if one <= share]
        return int(self.looked[max(measured)]) if measured else 2 * max(self.looked.values())


def number_of_cells(vectors: int) -> int:
    """Return how many cells so many vectors are divided into."""
    return min(vectors, max(16, min(4096, math.isqrt(vectors))))


def sample_share(vectors: int) -> float:
    """Return the share of vectors that cells are made from."""
    return min(1.0, _SAMPLE * number_of_cells(vectors) / max(vectors, 1))


def centroids_of(sample: Array, cells: int, rng: np.random.Generator) -> Array:
    """Return `(cells, d)` centers of length one, by spherical k-means of a sample."""
    centers = sample[rng.choice(len(sample), cells, replace=False)]
    for _ in range(_ROUNDS):
        cell = nearest_cell(sample, centers)
        order = np.argsort(cell, kind="stable")
        found, starts = np.unique(cell[order], return_index=True)
        sums = np.add.reduceat(sample[order], starts, axis=0)
        centers = sample[rng.choice(len(sample), cells, replace=False)]  # for those without rows
        length = np.linalg.norm(sums, axis=1, keepdims=True)
        centers[found] = np.where(length > 1e-9, sums / np.maximum(length, 1e-9), centers[found])
    return centers.astype(np.float32)


def nearest_cell(vectors: Array, centroids: Array) -> Array:
    """Return the cell of each of `(n, d)` vectors."""
    step = max(1, _AT_ONCE // len(centroids))
    found = np.empty(len(vectors), np.int32)
    for at in range(0, len(vectors), step):
        found[at : at + step] = (vectors[at : at + step] @ centroids.T).argmax(axis=1)
    return found


def measured(
    vectors: Array, centroids: Array, offsets: Array, rng: np.random.Generator
) -> dict[float, tuple[int, float]]:
    """Return share of rows -> number of cells to look at, and the recall of ten that it gives.

    Queries are rows of the archive, each without itself, and as many points halfway between two
    rows, for queries that are like none; the neighbors are exact.
    """
    rows = int(offsets[-1])
    own = rng.choice(rows, min(_QUERIES, rows), replace=False)
    halfway = vectors[own] + vectors[rng.permutation(own)]
    halfway /= np.maximum(np.linalg.norm(halfway, axis=1, keepdims=True), 1e-9)
    queries = np.concatenate([vectors[own], halfway])
    own = np.concatenate([own, np.full(len(own), -1)])
    cell_of = np.repeat(np.arange(len(centroids)), np.diff(offsets))
    order = np.argsort(-(queries @ centroids.T), axis=1)
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(len(centroids))[None], axis=1)
    found = {}
    for share in SHARES:
        may = rng.random(rows) < share
        nearest = _neighbors(vectors[:rows], queries, own, may)
        ranks = np.sort(
            np.concatenate(
                [rank[i, cell_of[near]] for i, near in enumerate(nearest)] or [order[:0, 0]]
            )
        )
        if not len(ranks):
            found[share] = (len(centroids), 1.0)
            continue
        number = int(ranks[min(len(ranks) - 1, int(np.ceil(RECALL * len(ranks))) - 1)]) + 1
        found[share] = (number, float(np.mean(ranks < number)))
    return found


def _neighbors(vectors: Array, queries: Array, own: Array, may: Array) -> list[Array]:
    """Return for each query the rows of the ten highest products among those that may answer."""
    best = np.full((len(queries), 0), -np.inf, np.float32)
    where = np.zeros((len(queries), 0), np.int64)
    step = max(1, _AT_ONCE // len(queries))
    for at in range(0, len(vectors), step):
        scores = queries @ vectors[at : at + step].T
        scores[:, ~may[at : at + step]] = -np.inf
        inside = np.flatnonzero((own >= at) & (own < at + step))
        scores[inside, own[inside] - at] = -np.inf
        places = np.broadcast_to(np.arange(at, at + scores.shape[1]), scores.shape)
        best, where = np.hstack([best, scores]), np.hstack([where, places])
        if best.shape[1] > _NEAREST:
            top = np.argpartition(-best, _NEAREST - 1, axis=1)[:, :_NEAREST]
            best = np.take_along_axis(best, top, axis=1)
            where = np.take_along_axis(where, top, axis=1)
    return [row[score > -np.inf] for row, score in zip(where, best, strict=True)]


def arranged(cell: Array) -> tuple[Array, Array, Array]:
    """Return the rows in the order of their cells, the cells that have rows, and their offsets.

    `cell` is `(rows,)`, -1 where a row has no vector: such rows come last.
    """
    order = np.argsort(np.where(cell < 0, np.iinfo(np.int32).max, cell), kind="stable")
    found, sizes = np.unique(cell[cell >= 0], return_counts=True)
    return order, found, np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
