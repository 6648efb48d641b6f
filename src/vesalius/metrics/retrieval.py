# SPDX-License-Identifier: Apache-2.0
"""Scores of rankings that a search gave: precision, recall, average precision, nDCG, MRR.

What may not be found (the query's own images, those of its patient) takes no rank and counts as
neither found nor missed. For a query with `R` relevant items among `N` that may be found:

- `precision@k`: relevant ones among the first k, over `min(k, N)`;
- `recall@k`: relevant ones among the first k, over `R`;
- `map@k`: the mean of the precisions at the ranks of relevant ones among the first k, over
  `min(R, k)` (Manning et al., Introduction to Information Retrieval, 2008, 8.4, cut at k);
- `ndcg@k`: gains discounted by the logarithm of the rank, over those of the best ranking (Jarvelin
  & Kekalainen, TOIS 2002);
- `mrr`: one over the rank of the first relevant one, wherever it stands (Voorhees, TREC-8, 1999).

A query with nothing relevant has no score, and is counted. Chance is the expectation of each score
over all orders of the same items, exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vesalius.errors import UsageError
from vesalius.metrics.bootstrap import DRAWS, Statistics, estimates, joined, mean_of_defined
from vesalius.results import Estimate
from vesalius.types import Array


@dataclass(frozen=True, slots=True)
class Rankings:
    """What stands at the first ranks, for Q queries.

    Attributes:
        gains: `(Q, k)`: what the item at each rank is worth, 0 where it is not relevant or where
            nothing stands; above 0 is relevant.
        ideal: `(Q, k)`: the same of the best ranking.
        first: `(Q,)`: rank of the first relevant item, from 1; 0 where there is none.
        relevant: `(Q,)`: relevant items that may be found.
        allowed: `(Q,)`: items that may be found.
        mean_gain: `(Q,)`: over the items that may be found.
    """

    gains: Array
    ideal: Array
    first: Array
    relevant: Array
    allowed: Array
    mean_gain: Array


def rank(similarity: Array, gain: Array, *, excluded: Array | None = None, k: int) -> Rankings:
    """Return the first `k` ranks of each query; equal similarities rank by the items' order.

    Args:
        similarity: `(Q, N)` of each query with each item; NaN ranks last.
        gain: `(Q, N)`, what each item is worth for each query, 0 for nothing; Boolean serves.
        excluded: `(Q, N)`, items that may not be found: the query's own, its patient's.
        k: ranks to look at.

    Raises:
        UsageError: shapes differ, a negative gain, or k below 1.
    """
    if similarity.shape != gain.shape or (excluded is not None and excluded.shape != gain.shape):
        raise UsageError(
            f"similarity, gain and excluded must share a shape (queries, items), got "
            f"{similarity.shape}, {gain.shape}{'' if excluded is None else f', {excluded.shape}'}"
        )
    worth = np.asarray(gain, np.float64)
    if k < 1 or worth.min(initial=0.0) < 0:
        raise UsageError(f"k must be 1 or more and no gain negative, got k = {k}")
    out = np.zeros(worth.shape, bool) if excluded is None else np.asarray(excluded, bool)
    worth = np.where(out, 0.0, worth)
    value = np.where(np.isnan(similarity), -np.inf, similarity.astype(np.float64))
    order = np.lexsort((np.broadcast_to(np.arange(value.shape[1]), value.shape), -value, out))
    sorted_gains = np.take_along_axis(worth, order, axis=1)
    found = sorted_gains > 0
    allowed = (~out).sum(1)
    width = min(k, value.shape[1])
    pad = ((0, 0), (0, k - width))
    return Rankings(
        np.pad(sorted_gains[:, :width], pad),
        np.pad(-np.sort(-worth, axis=1)[:, :width], pad),
        np.where(found.any(1), found.argmax(1) + 1, 0) if value.shape[1] else np.zeros(len(value)),
        found.sum(1),
        allowed,
        worth.sum(1) / np.maximum(allowed, 1),
    )


def names_at(k: int) -> tuple[str, ...]:
    """Return the names of the scores, in the order of `per_query`."""
    return (f"precision@{k}", f"recall@{k}", f"map@{k}", f"ndcg@{k}", "mrr")


def per_query(rankings: Rankings) -> Array:
    """Return `(Q, 5)` scores of each query; NaN where nothing is relevant."""
    found = rankings.gains > 0
    k = found.shape[1]
    ranks = np.arange(1, k + 1)
    hits = found.sum(1)
    precisions = np.cumsum(found, axis=1) / ranks
    with np.errstate(invalid="ignore", divide="ignore"):
        table = np.column_stack([
            hits / np.minimum(k, rankings.allowed),
            hits / rankings.relevant,
            (precisions * found).sum(1) / np.minimum(k, rankings.relevant),
            _discounted(rankings.gains) / _discounted(rankings.ideal),
            np.where(rankings.first > 0, 1 / rankings.first, 0.0),
        ])  # fmt: skip
    table[rankings.relevant == 0] = np.nan
    return np.asarray(table)


def chance(rankings: Rankings) -> Array:
    """Return `(Q, 5)`: what each score is expected to be when items are ranked by lot."""
    found, allowed = rankings.relevant.astype(float), rankings.allowed.astype(float)
    k = rankings.gains.shape[1]
    ranks = np.arange(1, k + 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = found / allowed
        within = np.minimum(k, allowed)
        others = np.where(allowed > 1, (found - 1) / (allowed - 1), 0.0)
        precisions = (1 + (ranks - 1) * others[:, None]) / ranks  # given a relevant one there
        precisions = np.where(ranks <= within[:, None], precisions, 0.0).sum(1)
        discounts = np.where(ranks <= within[:, None], 1 / np.log2(ranks + 1), 0.0).sum(1)
        table = np.column_stack([
            share,
            within / allowed,
            share * precisions / np.minimum(k, found),
            rankings.mean_gain * discounts / _discounted(rankings.ideal),
            [_expected_reciprocal(int(r), int(n)) for r, n in zip(found, allowed, strict=True)],
        ])  # fmt: skip
    table[rankings.relevant == 0] = np.nan
    return np.asarray(table)


def retrieval_statistics(
    scores: Array, names: Sequence[str], classes: Sequence[str] | None = None
) -> Statistics:
    """Return means over queries, and over classes of the means within each where there are some.

    Args:
        scores: `(Q, len(names))` of `per_query`; NaN where undefined.
        names: of the columns.
        classes: of each query; its macro means bear the label `macro`.
    """
    columns = tuple((name, "") for name in names)
    plain = Statistics(columns, lambda weights: _means(weights, scores), len(scores))
    if classes is None:
        return plain
    known = np.unique(np.asarray(classes))
    members = [np.asarray(classes) == name for name in known]

    def macro(weights: Array) -> Array:
        table = np.stack([_means(weights * one, scores) for one in members], axis=2)
        flat = mean_of_defined(table.reshape(-1, len(known)))
        return flat.reshape(len(weights), scores.shape[1])

    return joined(plain, Statistics(tuple((n, "macro") for n in names), macro, len(scores)))


def retrieval_scores(
    rankings: Rankings,
    patients: Sequence[Any] | Array,
    *,
    classes: Sequence[str] | None = None,
    failed: Array | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Estimate]:
    """Return each score with its interval, clustered by the queries' patients, and chance.

    Args:
        rankings: of `rank`.
        patients: `(Q,)` pseudonyms.
        classes: `(Q,)`, for macro means.
        failed: `(Q,)`: queries that could not be asked; each of their scores is 0.
        draws, seed: of the bootstrap.
    """
    names = names_at(rankings.gains.shape[1])
    scores = per_query(rankings)
    if failed is not None:
        scores = np.where(failed[:, None] & ~np.isnan(scores), 0.0, scores)
    statistics = retrieval_statistics(scores, names, classes)
    by_lot = retrieval_statistics(chance(rankings), names, classes).values()
    base = dict(zip(statistics.names, by_lot, strict=True))
    lost = int((rankings.relevant == 0).sum())
    note = f"{lost} queries with nothing relevant have no score" if lost else ""

    def describe(name: str, label: str, _value: float) -> dict[str, Any]:
        return {"baseline": float(base[name, label]), "baseline_name": "chance", "note": note}

    return estimates(statistics, patients, describe, draws=draws, seed=seed)


def same(values: Sequence[Any] | Array, others: Sequence[Any] | Array) -> Array:
    """Return `(Q, N)`: where a query's value is an item's; the unknown (None, empty) is nobody's.

    The plainest relevance; any function of a query and an item serves, see `relevance`.
    """
    one, two = np.asarray(values, object), np.asarray(others, object)
    known = np.array([value not in (None, "") for value in one], bool)
    return np.asarray((one[:, None] == two[None]) & known[:, None])


def relevance(
    queries: Sequence[Any], items: Sequence[Any], of: Callable[[Any, Any], float]
) -> Array:
    """Return `(Q, N)` gains by a function of a query and an item."""
    return np.array([[float(of(query, item)) for item in items] for query in queries]).reshape(
        len(queries), len(items)
    )


def _means(weights: Array, scores: Array) -> Array:
    """Return `(draws, columns)` weighted means over the queries where a score is defined."""
    defined = np.isfinite(scores)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((weights @ np.where(defined, scores, 0.0)) / (weights @ defined))


def _discounted(gains: Array) -> Array:
    return np.asarray(gains @ (1 / np.log2(np.arange(2, gains.shape[1] + 2))))


def _expected_reciprocal(relevant: int, allowed: int) -> float:
    """Return the expectation of one over the rank of the first relevant item of a random order."""
    if not relevant:
        return np.nan
    none_before, total = 1.0, 0.0
    for place in range(1, allowed - relevant + 2):
        left = allowed - place + 1
        total += none_before * relevant / left / place
        none_before *= (left - relevant) / left
    return total
