# SPDX-License-Identifier: Apache-2.0
"""Fused ranks: the paper's formula by hand, and laws."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.errors import UsageError
from vesalius.tasks.retrieve.fusion import ranks, reciprocal_ranks

SCORES = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(-5, 5).map(float))


def test_the_formula_by_hand() -> None:
    fused = reciprocal_ranks([{"a": 9.0, "b": 3.0}, {"b": 0.2, "c": 0.1}], [1.0, 1.0])
    assert fused["a"] == pytest.approx((1 / 61) / (2 / 61))
    assert fused["b"] == pytest.approx((1 / 62 + 1 / 61) / (2 / 61))
    assert fused["c"] == pytest.approx((1 / 62) / (2 / 61))


def test_equal_scores_share_the_better_rank() -> None:
    assert ranks({"a": 1.0, "b": 2.0, "c": 2.0, "d": 0.5}) == {"b": 1, "c": 1, "a": 3, "d": 4}


@settings(max_examples=100, deadline=None)
@given(SCORES, SCORES)
def test_only_order_counts(one: dict[str, float], other: dict[str, float]) -> None:
    scaled = {case: 7 * score + 100 for case, score in one.items()}
    assert reciprocal_ranks([one, other], [1, 2]) == reciprocal_ranks([scaled, other], [1, 2])


@settings(max_examples=100, deadline=None)
@given(SCORES)
def test_one_ranking_keeps_its_order_and_its_leader_gets_one(one: dict[str, float]) -> None:
    fused = reciprocal_ranks([one], [0.3])
    assert ranks(fused) == ranks(one)
    assert all(0 < score <= 1 for score in fused.values())
    if one:
        assert max(fused.values()) == pytest.approx(1)


@settings(max_examples=100, deadline=None)
@given(SCORES, SCORES)
def test_a_ranking_without_weight_changes_no_rank_of_the_other(
    one: dict[str, float], other: dict[str, float]
) -> None:
    fused = reciprocal_ranks([one, other], [1, 0])
    assert {case: fused[case] for case in one} == pytest.approx(reciprocal_ranks([one], [1]))


@pytest.mark.parametrize("weights", [[-1.0, 2.0], [0.0, 0.0]])
def test_weights_must_make_sense(weights: list[float]) -> None:
    with pytest.raises(UsageError, match="weights must be 0 or more"):
        reciprocal_ranks([{"a": 1.0}, {"b": 1.0}], weights)
