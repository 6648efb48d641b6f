# SPDX-License-Identifier: Apache-2.0
"""Paired differences: antisymmetric, null for equals, right as often as claimed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.errors import UsageError
from vesalius.metrics import (
    classification_scores,
    classification_statistics,
    multilabel_statistics,
    ordinal_statistics,
    paired_differences,
    regression_statistics,
)
from vesalius.metrics.bootstrap import Statistics


def means(*columns):
    """Return the means of per-case values as statistics, named dice, hd95, …."""
    matrix = np.column_stack(columns)
    names = tuple((name, "") for name in ("dice", "hd95")[: len(columns)])
    return Statistics(names, lambda w: w @ matrix / w.sum(1, keepdims=True), len(matrix))


def predictors(n=60, seed=0, count=2, skill=(0.3, 0.6)):
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, count, n)
    truth[:count] = np.arange(count)
    tables = []
    for extra in skill:
        table = generator.dirichlet(np.ones(count), n)
        table[np.arange(n), truth] += extra
        tables.append(table / table.sum(1, keepdims=True))
    return truth, tables


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(2, 3))
def test_exchanging_the_two_turns_the_sign(seed, count):
    truth, tables = predictors(40, seed, count)
    names = ["a", "b", "c"][:count]
    a, b = (classification_statistics(truth, table, names) for table in tables)
    patients = np.arange(40) // 2
    forth = paired_differences(a, b, patients, draws=100, seed=seed)
    back = paired_differences(b, a, patients, draws=100, seed=seed)
    turned = {"A better": "B better", "B better": "A better"}
    for one, other in zip(forth, back, strict=True):
        assert (one.a, one.b) == (other.b, other.a)
        if one.difference is None:
            continue
        assert one.difference == pytest.approx(-other.difference)
        assert one.low == pytest.approx(-other.high)
        assert one.p_better == pytest.approx(1 - other.p_better)
        assert one.verdict == turned.get(other.verdict, "not told apart")


def test_a_predictor_equals_itself():
    truth, (table, _) = predictors()
    same = classification_statistics(truth, table, ["a", "b"])
    for one in paired_differences(same, same, range(60), draws=50):
        assert (one.difference, one.low, one.high) == (0, 0, 0)
        assert one.p_better == 0.5
        assert one.verdict == "not told apart"


def test_values_are_those_of_the_scores_and_the_pairing_narrows_the_interval():
    truth, (table, _) = predictors(80, 3)
    nearly = table.copy()
    nearly[::8] = nearly[::8, ::-1]  # one case in eight turned around
    patients = np.arange(80)
    a, b = (classification_statistics(truth, t, ["a", "b"]) for t in (table, nearly))
    found = {d.name: d for d in paired_differences(a, b, patients, draws=400) if not d.label}
    alone = [
        {s.name: s for s in classification_scores(truth, t, ["a", "b"], patients, draws=400)}
        for t in (table, nearly)
    ]
    for name in ("accuracy", "auc", "brier", "mcc"):
        assert found[name].a == pytest.approx(alone[0][name].value)
        assert found[name].b == pytest.approx(alone[1][name].value)
    unpaired = np.hypot(*(s["auc"].high - s["auc"].low for s in alone))
    assert found["auc"].high - found["auc"].low < 0.8 * unpaired


def test_which_way_is_better():
    """B has the larger overlap and the larger distance: better at one, worse at the other."""
    generator = np.random.default_rng(0)
    dice, distance = generator.uniform(0.5, 0.9, 30), generator.uniform(2, 9, 30)
    a = means(dice, distance)
    b = means(dice + generator.uniform(0.01, 0.05, 30), distance + generator.uniform(1, 2, 30))
    overlap, away = paired_differences(a, b, range(30), draws=200)
    assert (overlap.better, overlap.verdict, overlap.p_better) == ("higher", "B better", 1)
    assert (away.better, away.verdict, away.p_better) == ("lower", "A better", 0)
    assert away.low > 1
    (ideal, _) = paired_differences(a, b, range(30), ideals={"dice": 0.0}, draws=200)
    assert (ideal.better, ideal.verdict) == ("nearer to 0", "A better")
    assert ideal.difference == overlap.difference


def test_draws_are_of_patients():
    generator = np.random.default_rng(1)
    a, b = generator.random(40), generator.random(40)
    (alone,) = paired_differences(means(a), means(b), range(40), draws=300)
    (tripled,) = paired_differences(
        means(np.repeat(a, 3)), means(np.repeat(b, 3)), np.repeat(range(40), 3), draws=300
    )
    assert tripled.n_patients == 40
    assert (tripled.low, tripled.high) == pytest.approx((alone.low, alone.high))


def test_equal_predictors_are_told_apart_in_about_five_of_a_hundred_studies():
    told = 0
    for seed in range(200):
        generator = np.random.default_rng(seed)
        hard = generator.normal(0.7, 0.2, 40)  # what both share
        a, b = (hard + generator.normal(0, 0.05, 40) for _ in range(2))
        (one,) = paired_differences(means(a), means(b), range(40), draws=200, seed=seed)
        told += one.verdict != "not told apart"
    assert 0.02 <= told / 200 <= 0.10


def test_each_kind_of_target():
    truth, tables = predictors(30, 2, 3)
    grades = [ordinal_statistics(truth, t, ["a", "b", "c"]) for t in tables]
    assert [d.better for d in paired_differences(*grades, range(30), draws=20)] == [
        "higher", "lower",
    ]  # fmt: skip
    labels = [multilabel_statistics(np.eye(3)[truth], t, ["a", "b", "c"]) for t in tables]
    found = {d.name: d for d in paired_differences(*labels, range(30), draws=100) if not d.label}
    assert found["auc"].p_better > 0.5
    assert (found["brier"].better, found["brier"].p_better > 0.5) == ("lower", True)
    numbers = [regression_statistics(truth, truth + error) for error in (0.5, 0.1)]
    errors = {d.name: d for d in paired_differences(*numbers, range(30), draws=100)}
    assert errors["mae"].verdict == "B better"
    assert errors["mae"].difference == pytest.approx(-0.4)


def test_undefined_and_single_patients_say_so():
    empty = Statistics((("dice", ""),), lambda w: np.full((len(w), 1), np.nan), 10)
    (one,) = paired_differences(means(np.ones(10)), empty, range(10), draws=10)
    assert (one.a, one.b, one.difference, one.p_better) == (1, None, None, None)
    assert one.note == "undefined for B"
    (one,) = paired_differences(means(np.ones(10)), means(np.zeros(10)), ["p"] * 10, draws=10)
    assert (one.difference, one.low, one.p_better) == (-1, None, None)
    assert "one patient" in one.note
    (one,) = paired_differences(means(np.ones(10)), means(np.zeros(10)), range(10), draws=10)
    assert "only 10 patients" in one.note


def test_refuses_what_cannot_be_paired():
    with pytest.raises(UsageError, match="same scores of the same cases"):
        paired_differences(means(np.ones(3)), means(np.ones(4)), range(3))
    with pytest.raises(UsageError, match="same scores"):
        paired_differences(means(np.ones(3)), means(np.ones(3), np.ones(3)), range(3))
