# SPDX-License-Identifier: Apache-2.0
"""Scores of grades equal scikit-learn's; a failure is the farthest grade."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from vesalius.metrics import (
    classification_summary,
    ordinal_scores,
    ordinal_statistics,
    ordinal_summary,
)

GRADES = ["none", "mild", "moderate", "severe", "worst"]


def cases(n, count, seed=0):
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, count, n)
    truth[:count] = np.arange(count)
    table = generator.dirichlet(np.ones(count), n)
    table[np.arange(n), truth] += 0.3
    return truth, table / table.sum(1, keepdims=True)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(6, 60), count=st.integers(2, 5), seed=st.integers(0, 10_000))
def test_draws_equal_scikit_learn_on_the_repeated_cases(n, count, seed):
    truth, table = cases(n, count, seed)
    times = np.random.default_rng(seed).integers(0, 4, n)
    times[:count] = 1
    many, guess = np.repeat(truth, times), np.repeat(table.argmax(1), times)
    statistics = ordinal_statistics(truth, table, GRADES[:count])
    assert statistics.of(times[None].astype(float))[0] == pytest.approx(
        [
            sk.cohen_kappa_score(many, guess, weights="quadratic"),
            sk.mean_absolute_error(many, guess),
        ]
    )


def test_failures_are_the_farthest_grade_and_never_help():
    truth = np.array([0, 1, 2, 3, 4])
    table = np.eye(5)[[0, 1, 2, 3, 3]]
    kappa, error = ordinal_scores(truth, table, GRADES, range(5), draws=50)
    assert error.value == pytest.approx(1 / 5)
    lost_kappa, lost = ordinal_scores(truth, table, GRADES, range(5), failed=[True] * 5, draws=50)
    assert lost.value == pytest.approx(np.mean([4, 3, 2, 3, 4]))
    assert (lost.unit, lost.n) == ("grades", 5)
    assert lost_kappa.value < 0 < kappa.value


def test_the_trivial_answer_is_the_median_grade():
    truth, table = cases(40, 5)
    kappa, error = ordinal_scores(
        truth, table, GRADES, range(40), frequencies=[0.1, 0.1, 0.2, 0.5, 0.1], draws=20
    )
    assert error.baseline == pytest.approx(np.abs(truth - 3).mean())
    assert error.baseline_name == "median grade (severe)"
    assert kappa.baseline == pytest.approx(0)
    assert error.low < error.value < error.high


def test_one_grade_alone_is_undefined():
    table = np.eye(3)[[1, 1, 1]]
    kappa, error = ordinal_scores([1, 1, 1], table, GRADES[:3], range(3), draws=20)
    assert kappa.value is None
    assert "one same grade" in kappa.note
    assert error.value == 0


def test_summary_adds_to_that_of_classes():
    truth, table = cases(30, 5)
    groups = {"scanner": ["A", "B"] * 15}
    plain = classification_summary(truth, table, GRADES, range(30), groups=groups, draws=20)
    summary = ordinal_summary(truth, table, GRADES, range(30), groups=groups, draws=20)
    json.dumps(summary, allow_nan=False)
    assert summary["scores"][:-2] == plain["scores"]
    assert [s["name"] for s in summary["scores"][-2:]] == ["quadratic_weighted_kappa", "grade_mae"]
    own = sk.mean_absolute_error(truth[1::2], table[1::2].argmax(1))
    (entry,) = [e for e in summary["by"] if e["value"] == "B"]
    assert entry["scores"][-1]["value"] == pytest.approx(own)
    assert summary.keys() == plain.keys()
