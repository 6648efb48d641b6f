# SPDX-License-Identifier: Apache-2.0
"""Operating points: hand-known thresholds, the promise on fresh rows, refusal on few rows."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import binomtest

from vesalius.errors import DataError, UsageError
from vesalius.tasks.classify.thresholds import (
    OperatingPoint,
    binomial_interval,
    choose_threshold,
    rows_to_give_up,
    rows_to_show,
)


def draw(n: int, seed: int = 0, slope: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities that are calibrated for a slope of 1, and the truth."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-0.5, 2, n)
    return expit(slope * logits), rng.random(n) < expit(logits)


def test_known_sample_sizes() -> None:
    assert [rows_to_show(s, 0.95) for s in (0.9, 0.95, 0.99)] == [29, 59, 299]  # Wilks 1941
    assert rows_to_give_up(58, 0.95, 0.95) is None
    assert [rows_to_give_up(n, 0.95, 0.95) for n in (59, 92, 93, 124)] == [0, 0, 1, 2]


def test_a_hand_known_point() -> None:
    probabilities = np.array([0.9] * 28 + [0.6] + [0.5, 0.4, 0.2, 0.1])
    positive = np.array([True] * 29 + [False] * 4)
    point = choose_threshold(probabilities, positive, sensitivity=0.9)
    assert point.threshold == pytest.approx(0.55)  # 29 positives: none may be lost
    assert (point.sensitivity, point.specificity) == (1.0, 1.0)
    assert (point.n_positive, point.n_negative) == (29, 4)
    assert point.asked == "sensitivity 0.9"
    even = choose_threshold(probabilities, positive, sensitivity=0.9, confidence=0.5)
    assert even.threshold == pytest.approx(0.75)
    assert even.sensitivity == pytest.approx(28 / 29)
    np.testing.assert_array_equal(point.apply(probabilities), positive)


@pytest.mark.parametrize("request_", ["sensitivity", "specificity"])
def test_the_rate_is_reached_on_fresh_rows_as_often_as_promised(request_) -> None:
    rng = np.random.default_rng(0)
    reached = []
    for _ in range(300):
        truth = np.repeat([True, False], [80, 80])
        scores = np.where(truth, rng.beta(3, 1, 160), rng.beta(1, 3, 160))
        point = choose_threshold(scores, truth, **{request_: 0.9})
        share = 1 - point.threshold**3  # of beta(3, 1) above; of beta(1, 3) below by symmetry
        if request_ == "specificity":
            share = 1 - (1 - point.threshold) ** 3
        reached.append(share >= 0.9)
    assert np.mean(reached) > 0.92  # promised 0.95, with a standard error of 0.013
    assert np.mean(reached) < 1


def test_too_few_positives_are_refused_with_the_way_out() -> None:
    probabilities, positive = np.linspace(0, 1, 50), np.arange(50) >= 29
    with pytest.raises(DataError) as caught:
        choose_threshold(probabilities, positive, sensitivity=0.95)
    assert "21 positive rows cannot show a sensitivity of 0.95" in str(caught.value)
    assert "which takes 59" in str(caught.value)
    assert "at most 0.867" in str(caught.value)
    choose_threshold(probabilities, positive, sensitivity=0.867)
    with pytest.raises(DataError, match="29 negative rows cannot show a specificity"):
        choose_threshold(probabilities, positive, specificity=0.95)
    with pytest.raises(DataError, match="0 positive rows"):
        choose_threshold(probabilities, np.zeros(50, bool), sensitivity=0.5)
    with pytest.raises(DataError, match="one side only"):
        choose_threshold(probabilities, np.zeros(50, bool), cost=(1, 1))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=40, max_size=120),
    st.sampled_from([0.5, 0.7, 0.8]),
)
def test_sensitivity_and_specificity_mirror_each_other(rows, share) -> None:
    probabilities = np.array([value for value, _ in rows]) / 8
    positive = np.array([side for _, side in rows])
    try:
        point = choose_threshold(probabilities, positive, sensitivity=share)
    except DataError:
        assert share ** positive.sum() > 0.05 - 1e-9
        return
    mirror = choose_threshold(1 - probabilities, ~positive, specificity=share)
    assert point.sensitivity >= share
    assert (mirror.specificity, mirror.sensitivity) == (point.sensitivity, point.specificity)
    lower = choose_threshold(probabilities, positive, sensitivity=share / 2)
    assert lower.threshold >= point.threshold


def test_cost_takes_the_ideal_threshold_of_calibrated_probabilities() -> None:
    probabilities, positive = draw(5000)
    assert choose_threshold(probabilities, positive, cost=(4, 1)).threshold == 0.2
    bent, positive = draw(5000, slope=0.2)
    point = choose_threshold(bent, positive, cost=(4, 1))

    def spent(threshold: float) -> float:
        called = bent >= threshold
        return 4 * (positive & ~called).sum() + (~positive & called).sum()

    assert spent(point.threshold) == min(spent(t) for t in [*np.unique(bent), 2.0])
    assert spent(point.threshold) < spent(0.2)
    assert "mean cost" in point.note


def test_cost_may_call_none_or_all() -> None:
    flat = np.full(200, 0.3)
    rare = np.arange(200) < 2
    never = choose_threshold(flat, rare, cost=(1, 1))
    assert not never.apply(flat).any()
    sure = choose_threshold(np.full(200, 1.0), rare, cost=(1, 1))
    assert not sure.apply(np.ones(3)).any()
    always = choose_threshold(flat * 0, ~rare, cost=(1, 1))
    assert always.apply(flat * 0).all()


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (5, 5), (3, 20), (190, 200)])
def test_intervals_are_clopper_pearson(hits, n) -> None:
    theirs = binomtest(hits, n).proportion_ci(method="exact")
    np.testing.assert_allclose(binomial_interval(hits, n), (theirs.low, theirs.high), atol=1e-9)
    assert binomial_interval(0, 0) == (0.0, 1.0)


def test_json_and_bad_arguments() -> None:
    probabilities, positive = draw(300)
    point = choose_threshold(probabilities, positive, specificity=0.8)
    again = OperatingPoint.from_json(json.loads(json.dumps(point.to_json(), allow_nan=False)))
    assert again == point
    for request in ({}, {"sensitivity": 0.9, "cost": (1, 1)}):
        with pytest.raises(UsageError, match="give one of sensitivity, specificity and cost"):
            choose_threshold(probabilities, positive, **request)
    with pytest.raises(UsageError, match="sensitivity must be above 0 and below 1, got 95"):
        choose_threshold(probabilities, positive, sensitivity=95)
    with pytest.raises(UsageError, match="cost must be two numbers above 0"):
        choose_threshold(probabilities, positive, cost=(1, 0))
    with pytest.raises(UsageError, match="confidence"):
        choose_threshold(probabilities, positive, sensitivity=0.9, confidence=1)
    with pytest.raises(UsageError, match="within 0 to 1"):
        choose_threshold(probabilities * np.nan, positive, sensitivity=0.9)
    with pytest.raises(UsageError, match=r"\(n,\)"):
        choose_threshold(probabilities, positive[:5], sensitivity=0.9)
