# SPDX-License-Identifier: Apache-2.0
"""Checks of nearness: the order of plain NumPy, ties, queries that are refused."""

from __future__ import annotations

import dataclasses

import numpy as np

from vesalius.errors import UsageError
from vesalius.store.conformance.engine import (
    DIMENSION,
    Check,
    Engine,
    archive,
    expect,
    refused,
    some,
    unit,
    vector_of,
)
from vesalius.store.protocol import Entry, Filter, Near
from vesalius.types import Array


def nearest_are_those_of_numpy(engine: Engine) -> None:
    """Keys, cases and cosines, of several queries and of one, for any k."""
    entries = some(300)
    made = archive(engine, entries)
    queries = unit(np.random.default_rng(1), 6)
    for k in (1, 10, 1000):
        found = made.nearest(queries, k)
        expect(len(found) == len(queries), "an answer a query")
        for query, near in zip(queries, found, strict=True):
            _compare(near, entries, query, k)
            (alone,) = made.nearest(query, k)
            expect(alone.keys == near.keys, "one query alone is answered as among others")
            expect(np.array_equal(alone.similarities, near.similarities), "to the last bit")
    (scaled,) = made.nearest(queries[:1] * 5, 10)
    expect(scaled.keys == made.nearest(queries[:1], 10)[0].keys, "a query's length is no matter")


def ties_are_ordered_by_key(engine: Engine) -> None:
    """Equal vectors, more of them than are asked for."""
    one = unit(np.random.default_rng(2))
    entries = [Entry(f"k{at:03d}", "c", "p", one) for at in range(60)]
    made = archive(engine, entries[::-1])
    (near,) = made.nearest(one, 7)
    expect(near.keys == tuple(f"k{at:03d}" for at in range(7)), "the lowest keys come first")
    expect(bool((near.similarities <= 1).all()), "no cosine is above one")


def filters_never_shorten(engine: Engine) -> None:
    """Few entries fulfil the filter, and they are the farthest: all of them answer."""
    rng = np.random.default_rng(3)
    query = unit(rng)
    entries = []
    for at in range(400):
        vector = unit(rng) + (query if at >= 4 else -query)
        vector /= np.linalg.norm(vector)
        facts = {"modality": "US" if at < 4 else "MR"}
        entries.append(Entry(f"k{at:03d}", f"c{at}", f"p{at}", vector, facts=facts))
    made = archive(engine, entries)
    (near,) = made.nearest(query, 10, Filter(where="modality = 'US'"))
    expect(sorted(near.keys) == [f"k{at:03d}" for at in range(4)], "all that fulfil it answer")
    _compare(near, entries[:4], query, 10)
    (near,) = made.nearest(query, 10, Filter(not_patients=tuple(f"p{at}" for at in range(4, 400))))
    expect(len(near.keys) == 4, "all that are not left out answer")


def own_patient_and_cases_are_left_out(engine: Engine) -> None:
    """Leave out what is the query's own."""
    entries = some(80)
    made = archive(engine, entries)
    query = entries[8]
    never = (query.patient, "unknown", "a\0", "\ud83d")
    given = Filter(not_patients=never, not_cases=("case-0010", "case-0011"))
    for keys in (
        {key for near in made.nearest(vector_of(query), 80, given) for key in near.keys},
        {hit.key for hit in made.worded("effusion mass lobe", 80, given)},
    ):
        left = {e.key for e in entries if e.patient == query.patient} | {
            e.key for e in entries if e.case in given.not_cases
        }
        expect(not keys & left, "left out is left out")
        expect(len(keys) > 20, "others answer")


def queries_are_checked(engine: Engine) -> None:
    """Refuse a vector of another length, of zeros or not finite, and a `k` of none."""
    made = archive(engine, some(5))
    refused(lambda: made.nearest(np.ones(DIMENSION + 1), 5), UsageError, str(DIMENSION))
    refused(lambda: made.nearest(np.zeros(DIMENSION), 5), UsageError, "zero")
    refused(lambda: made.nearest(np.full(DIMENSION, np.inf), 5), UsageError, "finite")
    refused(lambda: made.nearest(np.ones(DIMENSION), 0), UsageError, "0")
    refused(lambda: made.worded("mass", 0), UsageError, "0")


def words_alone_need_no_vectors(engine: Engine) -> None:
    """Keep and find entries in an archive of dimension 0."""
    made = engine.create(identity={}, dimension=0, columns={})
    made.upsert([Entry("a", "c", "p", None, "mass"), Entry("b", "c", "p", None, "effusion")])
    expect([hit.key for hit in made.worded("mass", 5)] == ["a"], "words find")
    expect(made.vectors(["b", "a"]).shape == (2, 0), "there are no vectors")
    expect([entry.words for entry in made.entries(["b", "a"])] == ["effusion", "mass"], "entries")
    refused(lambda: made.nearest(np.ones(4), 5), UsageError, "words")
    made.compact()
    expect([hit.key for hit in made.worded("mass", 5)] == ["a"], "words find after compaction")


def vectorless_entries_are_near_nothing(engine: Engine) -> None:
    """Entries of words alone beside others, and alone."""
    entries = some(30)
    bare = [dataclasses.replace(entry, vector=None) for entry in entries]
    made = archive(engine, bare)
    expect(made.nearest(np.ones(DIMENSION), 5)[0].keys == (), "nothing has a vector")
    made.upsert(entries[:1])
    expect(made.nearest(np.ones(DIMENSION), 5)[0].keys == ("image-0000",), "one has")


def _compare(near: Near, entries: list[Entry], query: Array, k: int) -> None:
    having = [entry for entry in entries if entry.vector is not None]
    cosines = np.array([np.dot(vector_of(e), query) for e in having], np.float64)
    order = sorted(range(len(having)), key=lambda at: (-cosines[at], having[at].key))[:k]
    expect(near.keys == tuple(having[at].key for at in order), "the order is that of the cosines")
    expect(near.cases == tuple(having[at].case for at in order), "each with its case")
    expect(np.allclose(near.similarities, cosines[order], atol=1e-5), "cosines are right")
    expect(near.similarities.dtype == np.float32, "cosines are float32")


CHECKS: tuple[Check, ...] = (
    nearest_are_those_of_numpy,
    ties_are_ordered_by_key,
    filters_never_shorten,
    own_patient_and_cases_are_left_out,
    queries_are_checked,
    words_alone_need_no_vectors,
    vectorless_entries_are_near_nothing,
)
