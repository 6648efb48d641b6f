# SPDX-License-Identifier: Apache-2.0
"""Scores of rankings: by hand, against scikit-learn, against random orders, and their laws."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import average_precision_score, ndcg_score

from vesalius.errors import UsageError
from vesalius.metrics.retrieval import (
    chance,
    names_at,
    per_query,
    rank,
    relevance,
    retrieval_scores,
    same,
)


def test_by_hand() -> None:
    similarity = np.array([[0.9, 0.8, 0.7, 0.6, 0.5, 0.4]])
    wanted = np.array([[0, 1, 0, 1, 0, 1]])  # at ranks 2, 4 and 6
    found = dict(zip(names_at(4), per_query(rank(similarity, wanted, k=4))[0], strict=True))
    assert found["precision@4"] == pytest.approx(2 / 4)
    assert found["recall@4"] == pytest.approx(2 / 3)
    assert found["map@4"] == pytest.approx((1 / 2 + 2 / 4) / 3)  # over min(R, k) = 3
    ideal = 1 + 1 / np.log2(3) + 1 / np.log2(4)
    assert found["ndcg@4"] == pytest.approx((1 / np.log2(3) + 1 / np.log2(5)) / ideal)
    assert found["mrr"] == pytest.approx(1 / 2)


def test_own_images_take_no_rank() -> None:
    similarity = np.array([[1.0, 0.9, 0.8, 0.7]])
    wanted = np.array([[1, 1, 0, 1]], bool)
    own = np.array([[1, 1, 0, 0]], bool)
    rankings = rank(similarity, wanted, excluded=own, k=3)
    assert rankings.relevant.tolist() == [1]
    assert rankings.allowed.tolist() == [2]
    scores = per_query(rankings)[0]
    np.testing.assert_allclose(scores[[0, 1, 2, 4]], [1 / 2, 1, 1 / 2, 1 / 2])
    assert np.isnan(per_query(rank(similarity, own, excluded=own, k=3))).all()


random_case = st.tuples(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(1, 12))


@given(random_case)
@settings(max_examples=60, deadline=None)
def test_against_scikit_learn(drawn: tuple[int, int, int]) -> None:
    seed, items, k = drawn
    rng = np.random.default_rng(seed)
    similarity = rng.permutation(items).astype(float)[None]
    gains = rng.integers(0, 3, items).astype(float)[None]
    gains[0, rng.integers(items)] = 2
    scores = per_query(rank(similarity, gains, k=k))[0]
    assert scores[3] == pytest.approx(ndcg_score(gains, similarity, k=k))
    whole = per_query(rank(similarity, gains, k=items))[0]
    assert whole[2] == pytest.approx(average_precision_score(gains[0] > 0, similarity[0]))


@pytest.mark.parametrize(("items", "own", "k"), [(5, 0, 3), (5, 1, 2), (4, 0, 6)])
def test_chance_is_the_mean_over_all_orders(items: int, own: int, k: int) -> None:
    gains = np.array([[2.0, 1.0, 0.0, 0.0, 0.0][:items]])
    excluded = np.arange(items)[None] >= items - own
    orders = np.array(list(permutations(range(items))), float)
    tables = per_query(
        rank(orders, np.repeat(gains, len(orders), 0),
             excluded=np.repeat(excluded, len(orders), 0), k=k)
    )  # fmt: skip
    expected = chance(rank(gains, gains, excluded=excluded, k=k))[0]
    np.testing.assert_allclose(tables.mean(0), expected, atol=1e-12)


@given(hnp.arrays(float, (3, 12), elements=st.integers(-9, 9)), st.integers(0, 2**16))
@settings(max_examples=40, deadline=None)
def test_only_the_order_counts(similarity: np.ndarray, seed: int) -> None:
    wanted = np.random.default_rng(seed).random((3, 12)) < 0.3
    plain = per_query(rank(similarity, wanted, k=5))
    np.testing.assert_array_equal(per_query(rank(similarity * 2 + 7, wanted, k=5)), plain)
    best = per_query(rank(wanted.astype(float), wanted, k=12))
    defined = wanted.any(1)
    np.testing.assert_allclose(best[defined][:, 1:], 1)
    assert np.isnan(best[~defined]).all()


def test_failures_count_as_nothing_found_and_classes_weigh_alike() -> None:
    similarity = np.tile([3.0, 2.0, 1.0], (5, 1))
    wanted = np.array([[1, 0, 0]] * 3 + [[0, 1, 0], [0, 0, 0]], bool)
    rankings = rank(similarity, wanted, k=1)
    failed = np.array([True, False, False, False, False])
    scores = retrieval_scores(
        rankings, list("abcde"), classes=["x", "x", "x", "y", "y"], failed=failed, draws=50
    )
    by_name = {(s.name, s.label): s for s in scores}
    plain, macro = by_name["precision@1", ""], by_name["precision@1", "macro"]
    assert plain.value == pytest.approx(2 / 4)
    assert macro.value == pytest.approx((2 / 3 + 0) / 2)
    assert plain.baseline == pytest.approx(1 / 3)
    assert plain.baseline_name == "chance"
    assert "1 queries with nothing relevant" in plain.note
    assert plain.low is not None
    assert plain.low < plain.value < plain.high


def test_relevance_of_values_and_by_a_function() -> None:
    np.testing.assert_array_equal(
        same(["a", "", None], ["a", "", None, "b"]), [[1, 0, 0, 0], [0] * 4, [0] * 4]
    )
    np.testing.assert_array_equal(relevance([1, 2], [1, 5], lambda q, i: q * i), [[1, 5], [2, 10]])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="share a shape"):
        rank(np.zeros((2, 3)), np.zeros((3, 2)), k=1)
    with pytest.raises(UsageError, match="k must be 1"):
        rank(np.zeros((2, 3)), np.zeros((2, 3)), k=0)
