# SPDX-License-Identifier: Apache-2.0
"""Rank scores equal scikit-learn's, weighted or not; ties count as they should."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from vesalius.metrics.ranking import SPECIFICITIES, rank_scores, ranking, roc


def cases(n, seed, digits=1):
    generator = np.random.default_rng(seed)
    positive = generator.random(n) < 0.4
    positive[:2] = True, False
    values = (generator.normal(0, 1, n) + positive).round(digits)  # rounding makes ties
    return positive, values


@settings(max_examples=30, deadline=None)
@given(n=st.integers(4, 60), seed=st.integers(0, 10_000), digits=st.integers(0, 6))
def test_weighted_scores_equal_scikit_learn_on_the_repeated_cases(n, seed, digits):
    positive, values = cases(n, seed, digits)
    times = np.random.default_rng(seed).integers(0, 4, n)
    times[:2] = 1
    many, by = np.repeat(positive, times), np.repeat(values, times)
    found = rank_scores(times[None].astype(float), ranking(values, positive))[0]
    fpr, tpr, _ = sk.roc_curve(many, by, drop_intermediate=False)
    expected = [sk.roc_auc_score(many, by), sk.average_precision_score(many, by)]
    expected += [tpr[fpr <= 1 - s + 1e-12].max() for s in SPECIFICITIES]
    assert found == pytest.approx(expected)


def test_sensitivity_by_hand():
    """Ten healthy cases: 90 % specificity allows one alarm, 95 % none."""
    values = np.array([0.95, 0.9, 0.8, 0.7, 0.6, *np.linspace(0, 0.5, 10)])
    positive = np.array([1, 0, 1, 1, 0, 1, *[0] * 8, 1], bool)  # 5 positive, 10 negative
    scores = rank_scores(np.ones((1, 15)), ranking(values, positive))[0]
    assert scores[2:] == pytest.approx([3 / 5, 1 / 5])


def test_undefined_without_either_side():
    both = np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    with np.errstate(invalid="ignore", divide="ignore"):
        found = rank_scores(both, ranking(np.array([0.9, 0.1]), np.array([True, False])))
    assert found[0].tolist() == [1, 1, 1, 1]
    assert np.isnan(found[1, [0, 2, 3]]).all()  # no negative
    assert found[1, 1] == 1
    assert np.isnan(found[2]).all()


def test_roc_equals_scikit_learn():
    positive, values = cases(500, 0, 3)
    curve = roc(positive, values, points=10_000)
    assert np.trapezoid(curve["tpr"], curve["fpr"]) == pytest.approx(
        sk.roc_auc_score(positive, values), abs=1e-4
    )
    short = roc(positive, values, points=20)
    assert len(short["fpr"]) <= 20
    assert (short["fpr"][0], short["tpr"][0]) == (0, 0)
    assert (short["fpr"][-1], short["tpr"][-1]) == (1, 1)
    assert roc(np.ones(3, bool), values[:3]) == {}
