# SPDX-License-Identifier: Apache-2.0
"""Images that look alike: near-duplicates, and the two sides of one person.

A pair is proposed by the 64-bit perceptual hash (few differing bits) and confirmed by the
signature (256 frequencies), so a chance collision of hashes merges nothing. Both come from
`cohorts.assess`. Sources: the block-permuted search is that of Manku, Jain and Das Sarma,
"Detecting near-duplicates for web crawling", WWW 2007.

The thresholds were measured on eleven kinds of images (ultrasound, X-ray, fundus, CT shapes,
cardiac MR, hippocampus MR, blood cells, smears, mixed CT/MR). JPEG at quality 60, noise of 3 % of
the range, gamma 0.75, any `a·x + b` and resampling by 0.5 to 1.7 move at most 6 of the 64 bits
in nine images of ten and keep a cosine above 0.97 (at 28 x 28 pixels, the smallest tried; above
0.99 from 256 x 256 on), while among 1,850 images of 602 medical cases and 526 cardiac slices no
pair from two persons passed. Images that share one strong pattern (a fundus' bright disc) reach
0.97 by the pattern alone; there what the cohort's images of that modality have in common is
taken off before comparing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from vesalius.cohorts.assess import SIGNATURE, frequencies
from vesalius.types import Array

if TYPE_CHECKING:
    import pyarrow as pa

NEAR_BITS = 6  # of 64 that may differ
CERTAIN = 0.998  # cosine of two signatures that is proof by itself
ALIKE = 0.97  # cosine needed, and …
ALIKE_APART = 0.9  # … cosine without what the cohort has in common
SIDES_APART = 0.3  # that of a left and a right organ of one person, one of them mirrored
SIDES_SCALE = 0.1  # and their intensity statistics agree to this fraction: one acquisition

_PARTS = 8  # of the hash; with at most 6 bits changed, two of the eight are untouched
_CHUNK = 1 << 16  # pairs compared at a time
_ROWS = 512
_PRIOR = 20  # images that the typical signature starts from zero with


def hash_distance(a: int, b: int) -> int:
    """Return how many of the 64 bits of two perceptual hashes differ."""
    return ((a ^ b) & 0xFFFF_FFFF_FFFF_FFFF).bit_count()


def signatures_matrix(signatures: Sequence[bytes]) -> Array:
    """Return `(n, SIGNATURE)` int8 from the column `signature` without nulls."""
    return np.frombuffer(b"".join(signatures), np.int8).reshape(-1, SIGNATURE)


def table_near_duplicates(table: pa.Table) -> Array:
    """Return `near_duplicates` of a cohort's table, as row numbers of the table.

    Uses `phash`, `signature` and `modality`; rows without them (not scanned, constant or tiny)
    resemble nothing. Of rows of equal `content_hash` one is compared: see `exact_duplicates`.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    known = np.flatnonzero(pc.is_valid(table["phash"]).to_numpy())
    if len(known) < 2:
        return np.empty((0, 2), np.int64)
    copies = repeated(table["content_hash"].take(known))[:, 1]
    known = np.delete(known, copies)
    part = table.select(["phash", "signature", "modality"]).take(known)
    codes = part["signature"].combine_chunks().cast(pa.binary(SIGNATURE))
    flat = np.frombuffer(codes.buffers()[1], np.int8, len(codes) * SIGNATURE)
    modality = part["modality"].combine_chunks().fill_null("").dictionary_encode()
    links = near_duplicates(
        part["phash"].to_numpy(),
        flat.reshape(-1, SIGNATURE),
        modality.indices.to_numpy().astype(np.int64),
    )
    pairs: Array = known[links]
    return pairs


def exact_duplicates(table: pa.Table) -> Array:
    """Return pairs `(m, 2)` of row numbers that link all rows of equal `content_hash`."""
    return repeated(table["content_hash"])


def repeated(column: pa.ChunkedArray) -> Array:
    """Return pairs `(m, 2)` of row numbers that chain the rows of each repeated text.

    Null and empty texts are not compared.
    """
    codes = column.combine_chunks().dictionary_encode()
    words = np.array([word == "" for word in codes.dictionary.to_pylist()], bool)
    place = codes.indices.fill_null(-1).to_numpy()
    rows = np.flatnonzero((place >= 0) & ~words[place]) if len(words) else np.empty(0, np.int64)
    rows = rows[np.argsort(place[rows], kind="stable")]
    same = place[rows[1:]] == place[rows[:-1]]
    pairs: Array = np.array([rows[:-1][same], rows[1:][same]], np.int64).T
    return pairs


def mirrored(signatures: Array, dimensions: int = 3) -> Array:
    """Return the signatures of the same images flipped left to right (first axis)."""
    odd = frequencies(dimensions)[:, 0] % 2
    turned: Array = signatures * np.where(odd, -1, 1).astype(signatures.dtype)
    return turned


def typical_signature(signatures: Array) -> Array:
    """Return what the images have in common: their mean, drawn to zero while they are few."""
    total = signatures.sum(axis=0, dtype=np.float64)
    shared: Array = (total / (len(signatures) + _PRIOR)).astype(np.float32)
    return shared


def near_duplicates(hashes: Array, signatures: Array, kinds: Array | None = None) -> Array:
    """Return pairs `(m, 2)` of row numbers that link all near-duplicates; sorted.

    Args:
        hashes: `(n,)` int64, the column `phash` without nulls.
        signatures: `(n, SIGNATURE)` int8, see `signatures_matrix`.
        kinds: `(n,)` integers from 0, for example the modality: what images have in common is
            taken off kind by kind.

    Every pair returned is confirmed by the signatures, so no image joins another only because a
    third collides with both; every near-duplicate pair lies in one connected component of them
    (`groups`). Rows with one hash are linked by a spanning tree, so that a thousand copies cost
    a thousand pairs. The groups do not depend on the order of the rows.
    """
    hashes = np.ascontiguousarray(hashes, np.int64).view(np.uint64)
    unique, first, place = np.unique(hashes, return_index=True, return_inverse=True)
    order = np.argsort(place, kind="stable")
    start = np.append(np.searchsorted(place[order], np.arange(len(unique))), len(hashes))
    kinds = np.zeros(len(hashes), np.int64) if kinds is None else kinds
    typical = [
        typical_signature(signatures[first[kinds[first] == kind]])
        for kind in range(int(kinds.max(initial=0)) + 1)
    ]
    shared = (np.array(typical, np.float32), kinds)
    found = [np.empty((0, 2), np.int64)]
    for n in np.flatnonzero(np.diff(start) > 1):
        found.extend(_spanning(signatures, shared, order[start[n] : start[n + 1]]))
    for left, right in _proposed(unique):
        found.extend(
            np.sort(pairs[_confirm(signatures, shared, pairs)], axis=1)
            for pairs in _members(left, right, start, order)
        )
    return np.unique(np.concatenate(found), axis=0)


def side_pairs(signatures: Array, statistics: Array) -> Array:
    """Return pairs `(m, 2)` of row numbers that look like two sides of one person.

    Args:
        signatures: `(n, SIGNATURE)` int8, of volumes (3D).
        statistics: `(n, s)` positive intensity statistics in one unit, for example median, 99th
            percentile and standard deviation.

    Two crops of one scan share its intensity scale, and a paired organ resembles its mirror
    image more than another person's: a pair must agree in every statistic to `SIDES_SCALE`,
    exceed `SIDES_APART` (as it is or mirrored, without what the cohort has in common), and each
    must be the other's best such partner. So a row has one partner at most and nothing chains.
    It is a suspicion fit for grouping before a split (a false pair costs nothing there); it is
    not evidence of identity.
    """
    n = len(signatures)
    if n < 2:
        return np.empty((0, 2), np.int64)
    logs = np.log(np.maximum(np.abs(statistics).astype(np.float64), 1e-9))
    shared = typical_signature(signatures)
    apart = _normalized(signatures - shared)
    flipped = _normalized(mirrored(signatures) - shared)
    best, score = np.full(n, -1), np.full(n, -1.0)
    for start in range(0, n, _ROWS):
        piece = slice(start, start + _ROWS)
        likeness = np.maximum(apart[piece] @ apart.T, _mirror_likeness(apart, flipped, piece))
        for column in logs.T:
            likeness[np.abs(column[piece, None] - column) > np.log1p(SIDES_SCALE)] = -1
        own = np.arange(start, min(n, start + _ROWS))
        likeness[own - start, own] = -1
        best[piece] = likeness.argmax(axis=1)
        score[piece] = likeness.max(axis=1)
    mutual = (best[best] == np.arange(n)) & (score >= SIDES_APART) & (best > np.arange(n))
    rows = np.flatnonzero(mutual)
    return np.array([rows, best[rows]], np.int64).T


def groups(n: int, *pairs: Array) -> Array:
    """Return for each of `n` rows the smallest row number that pairs connect it with."""
    parent = list(range(n))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for links in pairs:
        for left, right in links.tolist():
            a, b = root(left), root(right)
            parent[max(a, b)] = min(a, b)
    return np.array([root(row) for row in range(n)], np.int64)


def _mirror_likeness(apart: Array, flipped: Array, rows: slice) -> Array:
    """Return how like a mirrored image is to another, the same both ways."""
    likeness: Array = np.minimum(apart[rows] @ flipped.T, flipped[rows] @ apart.T)
    return likeness


def _normalized(signatures: Array) -> Array:
    norms = np.linalg.norm(signatures, axis=1, keepdims=True)
    unit: Array = signatures / np.maximum(norms, 1e-9)
    return unit


def _confirm(signatures: Array, shared: tuple[Array, Array], pairs: Array) -> Array:
    a, b = (signatures[rows].astype(np.float32) for rows in pairs.T)
    whole = (_normalized(a) * _normalized(b)).sum(axis=1)
    typical, kinds = shared
    apart = (v - typical[kinds[rows]] for v, rows in zip((a, b), pairs.T, strict=True))
    one, other = (_normalized(v) for v in apart)
    rest = (one * other).sum(axis=1)
    alike: Array = (whole >= CERTAIN) | ((whole >= ALIKE) & (rest >= ALIKE_APART))
    return alike


def _spanning(signatures: Array, shared: tuple[Array, Array], rows: Array) -> Iterator[Array]:
    """Yield confirmed pairs among `rows` that form a spanning tree of each component."""
    unseen = rows
    while len(unseen):
        edge, unseen = [int(unseen[0])], unseen[1:]
        while edge and len(unseen):
            pairs = np.array([np.full(len(unseen), edge.pop()), unseen]).T
            alike = _confirm(signatures, shared, pairs)
            yield np.sort(pairs[alike], axis=1)
            edge.extend(unseen[alike].tolist())
            unseen = unseen[~alike]


def _proposed(unique: Array) -> Iterator[tuple[Array, Array]]:
    """Yield index arrays of pairs of distinct hashes that differ in at most `NEAR_BITS`, once.

    Each of the 28 ways to choose two of eight parts of the hash sorts the hashes by these parts,
    and those that share them are compared. A part takes every eighth bit, low and high
    frequencies alike, so that anatomy common to all images does not make one part constant.
    """
    parts = [np.uint64(sum(1 << bit for bit in range(n, 64, _PARTS))) for n in range(_PARTS)]
    masks = [a | b for a, b in combinations(parts, 2)]
    for n, mask in enumerate(masks):
        for left, right in _neighbors(unique & mask):
            apart = unique[left] ^ unique[right]
            near = np.bitwise_count(apart) <= NEAR_BITS
            left, right, apart = left[near], right[near], apart[near]
            fresh = np.ones(len(left), bool)
            for earlier in masks[:n]:
                fresh &= (apart & earlier) != 0
            yield left[fresh], right[fresh]


def _members(left: Array, right: Array, start: Array, order: Array) -> Iterator[Array]:
    """Yield pairs `(m, 2)` of rows from pairs of distinct hashes, about `_CHUNK` at a time."""
    wide = start[right + 1] - start[right]
    count = (start[left + 1] - start[left]) * wide
    ends = np.cumsum(count)
    for at in range(0, int(ends[-1]) if len(ends) else 0, _CHUNK):
        number = np.arange(at, min(at + _CHUNK, int(ends[-1])))
        pair = np.searchsorted(ends, number, side="right")
        local = number - (ends[pair] - count[pair])
        one = order[start[left[pair]] + local // wide[pair]]
        yield np.stack([one, order[start[right[pair]] + local % wide[pair]]], axis=1)


def _neighbors(keys: Array) -> Iterator[tuple[Array, Array]]:
    """Yield index arrays of all pairs with equal keys, at most `_CHUNK` pairs at a time."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    alive = np.arange(len(keys))
    step = 1
    while True:
        alive = alive[alive + step < len(keys)]
        alive = alive[ordered[alive] == ordered[alive + step]]
        if not len(alive):
            return
        for at in range(0, len(alive), _CHUNK):
            piece = alive[at : at + _CHUNK]
            yield order[piece], order[piece + step]
        step += 1
