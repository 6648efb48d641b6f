# SPDX-License-Identifier: Apache-2.0
"""Scores of numbers equal scikit-learn's and scipy's; failures and missed intervals hurt."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from vesalius.errors import UsageError
from vesalius.metrics import regression_scores, regression_statistics, regression_summary


def cases(n, seed=0, digits=1):
    generator = np.random.default_rng(seed)
    truth = generator.normal(60, 12, n).round(digits)
    truth[:2] = 50, 70
    predicted = (truth + generator.normal(2, 8, n)).round(digits)  # rounding makes ties
    return truth, predicted


def by_name(scores):
    return {score.name: score for score in scores}


@settings(max_examples=25, deadline=None)
@given(n=st.integers(5, 60), seed=st.integers(0, 10_000), digits=st.integers(-1, 3))
def test_draws_equal_references_on_the_repeated_cases(n, seed, digits):
    truth, predicted = cases(n, seed, digits)
    predicted[:2] = 40, 80
    times = np.random.default_rng(seed).integers(0, 4, n)
    times[:2] = 1
    low, high = predicted - 10, predicted + 12
    found = regression_statistics(truth, predicted, low=low, high=high).of(
        times[None].astype(float)
    )
    many, guess = np.repeat(truth, times), np.repeat(predicted, times)
    inside = (np.repeat(low, times) <= many) & (many <= np.repeat(high, times))
    assert found[0] == pytest.approx(
        [
            sk.mean_absolute_error(many, guess),
            sk.root_mean_squared_error(many, guess),
            sk.r2_score(many, guess),
            stats.spearmanr(many, guess).statistic,
            inside.mean(),
            22,
        ]
    )


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), lost=st.integers(1, 12))
def test_failures_never_help_and_are_no_better_than_a_constant(seed, lost):
    truth, predicted = cases(30, seed)
    failed = np.zeros(30, bool)
    failed[np.random.default_rng(seed).permutation(30)[:lost]] = True
    bounds = {"low": predicted - 9, "high": predicted + 9}
    before = by_name(regression_scores(truth, predicted, range(30), **bounds, draws=2))
    after = by_name(
        regression_scores(truth, predicted, range(30), **bounds, failed=failed, draws=2)
    )
    assert after["mae"].value >= before["mae"].value
    assert after["rmse"].value >= before["rmse"].value
    assert after["r2"].value <= before["r2"].value
    assert after["interval_coverage"].value <= before["interval_coverage"].value
    assert after["interval_width"].value >= before["interval_width"].value
    all_lost = by_name(
        regression_scores(truth, np.full(30, np.nan), range(30), draws=2)  # not finite: failed
    )
    assert all_lost["mae"].value >= all_lost["mae"].baseline
    assert all_lost["mae"].n == 30


def test_a_failure_by_hand():
    """Truths 0, 4, 10: the failed 4 is answered with 10, the farther end."""
    found = by_name(regression_scores([0, 4, 10], [0, 99, 10], "abc", failed=[0, 1, 0], draws=20))
    assert found["mae"].value == pytest.approx(2)
    assert found["rmse"].value == pytest.approx(np.sqrt(12))


def test_baselines():
    truth, predicted = cases(50)
    found = by_name(
        regression_scores(
            truth, predicted, range(50), low=predicted - 10, high=predicted + 10, coverage=0.8,
            constant=55.0, unit="years", draws=50,
        )
    )  # fmt: skip
    assert found["mae"].baseline == pytest.approx(np.abs(truth - 55).mean())
    assert found["mae"].baseline_name == "training mean (55)"
    assert found["mae"].unit == "years"
    assert found["r2"].baseline < 0
    assert found["spearman"].baseline == 0
    assert found["interval_coverage"].baseline == 0.8
    inner = np.quantile(truth, [0.1, 0.9])
    assert found["interval_width"].baseline == pytest.approx(inner[1] - inner[0])
    for score in found.values():
        if score.name != "interval_width":
            assert score.low < score.value < score.high


def test_undefined_says_why():
    found = by_name(regression_scores([1, 1, 1], [1, 2, 3], "abc", draws=20))
    assert found["r2"].value is None
    assert found["spearman"].value is None
    assert "differ" in found["spearman"].note
    endless = by_name(
        regression_scores(
            [1, 2, 3], [1, 2, 4], "abc", low=[-np.inf] * 3, high=[np.inf] * 3, draws=20
        )
    )
    assert endless["interval_coverage"].value == 1
    assert endless["interval_width"].value is None
    assert "without end" in endless["interval_width"].note


def test_summary_is_strict_json():
    truth, predicted = cases(40)
    summary = regression_summary(
        truth, predicted, np.arange(40) // 2, groups={"sex": ["f", "m"] * 20},
        failed=[True] + [False] * 39, draws=30,
    )  # fmt: skip
    json.dumps(summary, allow_nan=False)
    assert (summary["n_cases"], summary["n_patients"], summary["n_failed"]) == (40, 20, 1)
    female = next(entry for entry in summary["by"] if entry["value"] == "f")
    assert [s["name"] for s in female["scores"]] == ["mae", "rmse"]
    assert female["scores"][0]["n"] == 20
    assert summary["baseline"]["mae"] == pytest.approx(np.abs(truth - truth.mean()).mean())


def test_refuses_by_name():
    with pytest.raises(UsageError, match="finite"):
        regression_scores([1, np.nan], [1, 2], "ab")
    with pytest.raises(UsageError, match="together"):
        regression_scores([1, 2], [1, 2], "ab", low=[0, 0])
    with pytest.raises(UsageError, match="low must"):
        regression_scores([1, 2], [1, 2], "ab", low=[2, 2], high=[1, 3])
    with pytest.raises(UsageError, match="predicted must have 2"):
        regression_scores([1, 2], [1, 2, 3], "ab")
