# SPDX-License-Identifier: Apache-2.0
"""Questions to an archive in PostgreSQL: near by the index or by comparing all, words by BM25."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vesalius.store import bm25, rows
from vesalius.store import postgres_tables as tables
from vesalius.store.postgres_connection import composed
from vesalius.store.protocol import Near, Worded
from vesalius.types import Array

GATHERED = 50_000  # entries that may answer: up to so many are all compared
_LOOKED = 400  # candidates that the index looks at


def has_index(cursor: Any) -> bool:
    """Return whether an index of vectors is there."""
    cursor.execute("SELECT to_regclass(%s)", [tables.NEAR])
    return cursor.fetchone()[0] is not None


def is_served(cursor: Any, rule: str, values: list[Any]) -> bool:
    """Return whether the index serves: it is there, and many entries fulfil a rule."""
    if not has_index(cursor):
        return False
    few = "SELECT count(*) FROM (SELECT 1 FROM entries WHERE {rule} LIMIT %s) AS few"
    cursor.execute(composed(few, rule=rule), [*values, GATHERED + 1])
    return bool(cursor.fetchone()[0] > GATHERED)


def near(
    cursor: Any, query: Array, k: int, rule: str, values: list[Any], *, by_index: bool
) -> Near:
    """Return up to `k` entries near a query among those that fulfil a rule."""
    found: list[tuple[str, str, float]] = []
    vector = written(query)
    if by_index:
        cursor.execute("SELECT set_config('hnsw.ef_search', %s, true)", [str(_LOOKED)])
        cursor.execute("SET LOCAL hnsw.iterative_scan = strict_order")
        ask = composed(tables.NEAREST_BY_INDEX, rule=rule)
        cursor.execute(ask, [vector, *values, vector, max(k, _LOOKED), k])
        found = cursor.fetchall()
    if len(found) < k:
        cursor.execute(composed(tables.NEAREST, rule=rule), [vector, *values, k])
        found = cursor.fetchall()
    similarities = np.array([cosine for _, _, cosine in found], np.float32)
    return Near(
        tuple(key for key, _, _ in found),
        tuple(case for _, case, _ in found),
        np.clip(similarities, -1, 1),
    )


def worded(
    cursor: Any,
    wanted: Sequence[str],
    k: int,
    version: int,
    alive: tuple[str, list[Any]],
    rule: tuple[str, list[Any]],
) -> list[Worded]:
    """Return up to `k` entries that bear terms and fulfil a rule, by BM25 over those alive."""
    cursor.execute("SELECT documents, terms FROM versions WHERE version = %s", [version])
    documents, length = cursor.fetchone()
    bearing = composed(tables.BEARING, alive=alive[0])
    cursor.execute(bearing, [rows.storable(wanted), *alive[1]])
    weights = {term: bm25.idf(documents, count) for term, count in cursor.fetchall()}
    if not weights:
        return []
    formula = [bm25.K1 + 1, bm25.K1, 1 - bm25.B, bm25.B, length / documents]
    cursor.execute(
        composed(tables.WORDED, rule=f"{alive[0]} AND {rule[0]}"),
        [*formula, list(weights), list(weights.values()), *alive[1], *rule[1], k],
    )
    return [
        Worded(key, case, score, tuple(term for term in wanted if term in borne))
        for key, case, score, borne in cursor.fetchall()
    ]


def written(vector: Array) -> str:
    """Return a vector as pgvector reads it, to the last bit."""
    return "[" + ",".join(map("{:.9g}".format, vector.tolist())) + "]"
