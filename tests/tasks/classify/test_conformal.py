# SPDX-License-Identifier: Apache-2.0
"""Label sets keep their promise on exchangeable draws, and obey their laws whatever the table."""

from __future__ import annotations

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import betabinom

from vesalius.errors import UsageError
from vesalius.tasks.classify.conformal import (
    SET_METHODS,
    LabelSets,
    conformal_threshold,
    expected_coverage,
    rows_needed,
)

KINDS = [(method, ordinal) for method in SET_METHODS for ordinal in (False, True)]


def draw(n: int, k: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities `(n, k)` of a poor, overconfident classifier, and the truth."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1, (n, k))
    true = softmax(logits, axis=1)
    truth = (true.cumsum(1) < rng.random((n, 1))).sum(1).clip(0, k - 1)
    return softmax(1.5 * logits + rng.normal(0, 0.3, (n, k)), axis=1), truth


@pytest.mark.parametrize(("method", "ordinal"), KINDS)
def test_coverage_lies_within_its_beta_binomial_interval(method, ordinal) -> None:
    table, truth = draw(40_000)
    shares, inside = [], 0
    for start in range(0, 40_000, 400):
        part, rest = slice(start, start + 100), slice(start + 100, start + 400)
        fitted = LabelSets.fit(table[part], truth[part], method=method, ordinal=ordinal)
        report = fitted.report(table[rest], truth[rest])
        low, high = report["expected"]
        assert 0.8 < low < 0.9 < high < 1
        inside += low <= report["coverage"] <= high
        shares.append(report["coverage"])
    assert inside >= 88  # of 100 at 95 %: P(fewer) is about 0.001
    assert np.mean(shares) == pytest.approx(91 / 101, abs=0.012)  # standard error 0.0035


def test_the_threshold_is_exact_for_every_small_n() -> None:
    for n in range(1, 130):
        for percent in (50, 80, 90, 95, 99):
            rank = -((-(n + 1) * Fraction(percent, 100)) // 1)
            found = conformal_threshold(np.arange(n, 0, -1.0), percent / 100)
            assert found == (None if rank > n else float(rank)), (n, percent)
    assert [rows_needed(c) for c in (0.5, 0.8, 0.9, 0.95, 0.99)] == [1, 4, 9, 19, 99]


def test_expected_coverage_is_what_a_simulation_finds() -> None:
    rng = np.random.default_rng(0)
    limits = np.sort(rng.random((20_000, 50)), axis=1)[:, 45]  # the 46th of 50: ceil(51 * 0.9)
    shares = rng.binomial(80, limits) / 80
    low, high = expected_coverage(0.9, 50, 80)
    np.testing.assert_allclose([low, high], np.quantile(shares, [0.025, 0.975]), atol=0.0126)
    for n, n_new in ((9, 1), (20, 7), (200, 1000), (3000, 10_000)):
        rank = math.ceil((n + 1) * 0.9)
        theirs = betabinom.ppf([0.025, 0.975], n_new, rank, n + 1 - rank) / n_new
        assert expected_coverage(0.9, n, n_new) == tuple(theirs)
    assert expected_coverage(0.9, 8, 80) == (1.0, 1.0)


def test_hand_known_sets() -> None:
    table = np.array([[0.9, 0.1, 0.0]] * 5 + [[0.5, 0.3, 0.2]] * 4)
    truth = np.array([0, 0, 0, 0, 0, 0, 0, 1, 2])  # scores 1 - p: .1 (5), .5 (2), .7, .8
    fitted = LabelSets.fit(table, truth, coverage=0.8)
    assert fitted.thresholds[0] == pytest.approx(0.7)  # the 8th of 9
    sets = fitted.apply(np.array([[0.6, 0.35, 0.05], [0.2, 0.3, 0.5], [0.29, 0.2901, 0.4199]]))
    assert sets.tolist() == [[True, True, False], [False, True, True], [False, False, True]]


def test_aps_and_raps_agree_with_a_loop_over_classes() -> None:
    table, truth = draw(300, 4)
    for method, penalty in (("aps", 0.0), ("raps", 0.05)):
        fitted = LabelSets.fit(table, truth, method=method)
        limit = fitted.thresholds[0]
        out = fitted.apply(table)
        for row, chosen in zip(table, out, strict=True):
            mass, members = 0.0, set()
            order = sorted(range(4), key=lambda c: -row[c])
            least, most = set(order[:1]), set(order[:1])
            for rank, label in enumerate(order):
                extra = penalty * max(rank, 0)
                least |= {label} if mass + row[label] + extra <= limit else set()  # draw 0
                most |= {label} if mass + extra < limit else set()  # draw 1
                mass += row[label]
            members = set(np.flatnonzero(chosen).tolist())
            assert least <= members <= most


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(1, 60), st.sampled_from(KINDS))
def test_laws(seed, k, n, kind) -> None:
    method, ordinal = kind
    table, truth = draw(n + 20, k, seed)
    (table, fresh), truth = (table[:n], table[n:]), truth[:n]
    options = {"method": method, "ordinal": ordinal, "seed": seed}
    previous = np.zeros((20, k), bool)
    for coverage in (0.3, 0.6, 0.8, 0.9, 0.99):
        fitted = LabelSets.fit(table, truth, coverage=coverage, **options)
        sets = fitted.apply(fresh)
        assert (previous <= sets).all()  # nested in coverage
        assert sets[np.arange(20), fresh.argmax(1)].all()  # never empty
        if ordinal:
            assert (
                np.abs(np.diff(np.pad(sets, ((0, 0), (1, 1))).astype(int), axis=1)).sum(1) == 2
            ).all()
        previous = sets
    order = np.random.default_rng(seed).permutation(n)
    again = LabelSets.fit(table[order], truth[order], coverage=0.99, **options)
    assert again == fitted  # permuting rows
    np.testing.assert_array_equal(np.concatenate([fitted.apply(row[None]) for row in fresh]), sets)
    assert fitted == LabelSets.from_json(json.loads(json.dumps(fitted.to_json(), allow_nan=False)))


@pytest.mark.parametrize("method", SET_METHODS)
def test_class_conditional_sets_keep_the_rate_in_each_class(method) -> None:
    rng = np.random.default_rng(0)
    truth = rng.choice(3, 12_000, p=[0.7, 0.27, 0.03])
    logits = rng.normal(0, 1, (12_000, 3)) + 1.5 * np.eye(3)[truth] + [1.5, 0.0, -1.5]
    table = softmax(logits, axis=1)
    fit, new = slice(0, 3000), slice(3000, None)
    plain = LabelSets.fit(table[fit], truth[fit], method=method).report(table[new], truth[new])
    assert plain["by_class"][2] < 0.8
    own = LabelSets.fit(table[fit], truth[fit], method=method, class_conditional=True)
    report = own.report(table[new], truth[new])
    assert min(report["by_class"]) > 0.84  # 90 rows of class 2: 0.9 with a deviation of 0.03
    assert own.note == ""


def test_classes_with_few_rows_share_a_threshold_and_the_note_says_so() -> None:
    table, truth = draw(200, 5)
    truth = np.where(truth > 2, np.where(np.arange(200) % 9 == 0, truth, 0), truth)
    assert np.bincount(truth)[3:].max() < 20
    fitted = LabelSets.fit(table, truth, class_conditional=True)
    assert fitted.thresholds[3] == fitted.thresholds[4]
    assert "classes [3, 4] have fewer than 20" in fitted.note
    rare = np.where(np.isin(truth, [3, 4]), 0, truth)
    absent = LabelSets.fit(table, rare, class_conditional=True)
    assert absent.thresholds[3:] == (None, None)
    assert absent.apply(table)[:, 3:].all()
    assert "those classes are in every set" in absent.note


def test_too_few_rows_give_the_whole_label_set_and_say_so() -> None:
    table, truth = draw(8, 3)
    fitted = LabelSets.fit(table, truth)
    assert fitted.apply(table).all()
    assert "8 calibration rows are too few for 90%, which needs 9" in fitted.note


def test_report_counts_sizes() -> None:
    table, truth = draw(600, 4)
    fitted = LabelSets.fit(table[:200], truth[:200], method="raps")
    report = fitted.report(table[200:], truth[200:])
    sizes = np.array(report["sizes"])
    assert sizes.sum() == report["n"] == 400
    assert sizes[0] == 0
    assert report["mean_size"] == pytest.approx((sizes * np.arange(5)).sum() / 400)
    assert report["top_class"] == pytest.approx((table[200:].argmax(1) == truth[200:]).mean())
    json.dumps(report, allow_nan=False)


def test_bad_arguments_are_named() -> None:
    table, truth = draw(30, 3)
    with pytest.raises(UsageError, match="method must be one of lac, aps, raps, got 'top'"):
        LabelSets.fit(table, truth, method="top")
    with pytest.raises(UsageError, match="coverage must be above 0 and below 1, got 90"):
        LabelSets.fit(table, truth, coverage=90)
    with pytest.raises(UsageError, match="class indices of 0 to 2"):
        LabelSets.fit(table, truth + 1)
    with pytest.raises(UsageError, match="sum to 1"):
        LabelSets.fit(np.log(table), truth)
    with pytest.raises(UsageError, match="sum to 1"):
        LabelSets.fit(table, truth).apply(np.full((1, 3), np.nan))
    with pytest.raises(UsageError, match="3 classes, got 2"):
        LabelSets.fit(table, truth).apply(np.full((1, 2), 0.5))
