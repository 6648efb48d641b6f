# SPDX-License-Identifier: Apache-2.0
"""Bins by hand; slope and intercept equal scikit-learn's and scipy's; intervals cover the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from sklearn.linear_model import LogisticRegression

from vesalius.metrics import classification_scores
from vesalius.metrics.calibration import calibration, intercept, slope


def drawn(n, count, seed, spread=1.5):
    """Return truths drawn from probabilities that therefore are calibrated."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, spread, (n, count))
    table = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = (table.cumsum(1)[:, :-1] < generator.random((n, 1))).sum(1)
    return truth, table


def sharpened(table, power):
    return table**power / (table**power).sum(1, keepdims=True)


def test_expected_calibration_error_by_hand():
    """Four cases at confidence 0.8, three right: |0.75 - 0.8|."""
    table = np.array([[0.2, 0.8]] * 4)
    truth = np.array([1, 1, 1, 0])
    scores = classification_scores(truth, table, ["no", "yes"], "abcd")
    assert next(s for s in scores if s.name == "ece").value == pytest.approx(0.05)
    assert calibration(truth, table) == [
        {"confidence": pytest.approx(0.8), "accuracy": 0.75, "n": 4}
    ]


def test_two_classes_equal_logistic_regression():
    truth, table = drawn(300, 2, 1)
    logit = np.log(table[:, 1] / table[:, 0])
    model = LogisticRegression(C=1e9, tol=1e-10, max_iter=1000).fit(logit[:, None], truth)
    assert slope(truth, table)[0] == pytest.approx(model.coef_[0, 0], rel=1e-3)
    offset = optimize.brentq(lambda a: (truth - 1 / (1 + np.exp(-logit - a))).sum(), -5, 5)
    assert intercept(truth == 1, table[:, 1])[0] == pytest.approx(offset, rel=1e-3)


def test_several_classes_equal_the_maximum_of_the_likelihood():
    truth, table = drawn(400, 4, 2)

    def loss(at):
        logits = at[0] * np.log(table) + np.append(0, at[1:])
        return -(logits[np.arange(400), truth] - np.log(np.exp(logits).sum(1))).sum()

    best = optimize.minimize(loss, np.array([1.0, 0, 0, 0]), method="Nelder-Mead",
                             options={"xatol": 1e-7, "fatol": 1e-9, "maxiter": 5000})  # fmt: skip
    assert best.success
    assert slope(truth, table)[0] == pytest.approx(best.x[0], rel=1e-3)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(2, 4), power=st.floats(0.4, 3))
def test_too_sharp_by_a_power_is_a_slope_of_its_inverse(seed, count, power):
    truth, table = drawn(120, count, seed)
    straight, _ = slope(truth, table)
    turned, _ = slope(truth, sharpened(table, power))
    assert turned == pytest.approx(straight / power, rel=0.02)
    order = np.roll(np.arange(count), 1)  # the classes' order is of no account
    renamed, _ = slope(np.argsort(order)[truth], table[:, order])
    assert renamed == pytest.approx(straight, rel=1e-3)


def test_intercept_is_the_shift_of_the_prevalence():
    truth, table = drawn(5000, 2, 3)
    logit = np.log(table[:, 1] / table[:, 0])
    low = 1 / (1 + np.exp(-logit + 1))  # one logit too low
    value, influence = intercept(truth == 1, low)
    assert value == pytest.approx(1, abs=4 * np.sqrt((influence**2).sum()))
    assert slope(truth, np.column_stack([1 - low, low]))[0] == pytest.approx(
        slope(truth, table)[0], rel=1e-3
    )


def test_influences_give_the_draw_to_first_order():
    """Refits of drawn cases differ from the linear draws by a small part of their spread."""
    truth, table = drawn(1500, 3, 4)
    value, influence = slope(truth, table)
    generator = np.random.default_rng(0)
    picks = [generator.integers(0, 1500, 1500) for _ in range(40)]
    refits = np.array([slope(truth[rows], table[rows])[0] for rows in picks])
    linear = np.array([value + influence[rows].sum() for rows in picks])
    assert np.abs(refits - linear).mean() < 0.1 * refits.std()
    assert refits.std() == pytest.approx(np.sqrt((influence**2).sum()), rel=0.35)


@pytest.mark.parametrize(("n", "count"), [(60, 2), (150, 2), (100, 4)])
def test_intervals_of_calibrated_predictions_hold_one(n, count):
    """In about 95 of 100 studies; refits of each draw hold it in 91 of 100 at 60 cases."""
    generator = np.random.default_rng(n)
    held = np.zeros(2)
    for seed in range(200):
        truth, table = drawn(n, count, seed)
        times = generator.multinomial(n, np.full(n, 1 / n), size=200)
        for k, (value, influence) in enumerate(
            (slope(truth, table), intercept(truth == 1, table[:, 1]))
        ):
            low, high = np.percentile(value + times @ influence, [2.5, 97.5])
            held[k] += low <= 1 - k <= high
    assert (held / 200 > 0.9).all()
    assert (held / 200 < 0.985).all()


def test_undefined_where_no_slope_is_the_best():
    truth = np.array([0, 0, 1, 1])
    parted = np.array([[0.9, 0.1], [0.6, 0.4], [0.4, 0.6], [0.2, 0.8]])
    assert np.isnan(slope(truth, parted)[0])
    assert np.isnan(slope(1 - truth, parted)[0])  # parted the wrong way
    assert np.isnan(slope(truth, np.full((4, 2), 0.5))[0])
    assert np.isnan(slope(np.zeros(4, int), parted)[0])
    assert np.isnan(intercept(np.ones(4, bool), parted[:, 1])[0])
    scores = classification_scores(truth, parted, ["a", "b"], range(4), draws=50)
    found = {score.name: score for score in scores}
    assert found["calibration_slope"].value is None
    assert "separated" in found["calibration_slope"].note
    assert found["calibration_intercept"].value is not None


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_probabilities_give_a_number_or_none(data):
    n, count = data.draw(st.integers(2, 25)), data.draw(st.integers(2, 5))
    table = data.draw(
        st.lists(
            st.lists(st.sampled_from([0.0, 1e-300, 1e-9, 0.1, 0.5, 1.0]), min_size=count,
                     max_size=count), min_size=n, max_size=n,
        )
    )  # fmt: skip
    table = np.array(table) + np.where(np.sum(table, axis=1, keepdims=True) == 0, 1.0, 0)
    table /= table.sum(1, keepdims=True)
    truth = np.array(data.draw(st.lists(st.integers(0, count - 1), min_size=n, max_size=n)))
    for value, influence in (slope(truth, table), intercept(truth == 1, table[:, 1])):
        assert not np.isinf(value)
        assert np.isfinite(influence).all()
        assert abs(influence.sum()) < 1e-6 * max(1, np.abs(influence).sum())
