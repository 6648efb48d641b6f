# SPDX-License-Identifier: Apache-2.0
"""Calibration finds known distortions, keeps what it must, and stays finite on few rows."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression

from vesalius.errors import UsageError
from vesalius.tasks.classify.calibration import (
    COLDEST,
    HOTTEST,
    METHODS,
    Calibrator,
    fit_calibrator,
)


def draw(n: int, k: int, seed: int = 0, spread: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Return the true log-probabilities `(n, k)` and a truth drawn from them."""
    rng = np.random.default_rng(seed)
    logs = log_softmax(rng.normal(0, spread, (n, k)), axis=1)
    truth = (np.exp(logs).cumsum(1) < rng.random((n, 1))).sum(1).clip(0, k - 1)
    return logs, truth


def nll(probabilities: np.ndarray, truth: np.ndarray) -> float:
    return float(-np.log(probabilities[np.arange(len(truth)), truth]).mean())


@pytest.mark.parametrize("known", [0.4, 1.0, 3.0])
def test_a_known_temperature_is_found(known) -> None:
    logs, truth = draw(2000, 3)
    found = fit_calibrator(logs * known, truth, method="temperature")
    grid = np.geomspace(0.2, 5, 161)
    losses = [
        -log_softmax(logs * known / t, axis=1)[np.arange(len(truth)), truth].sum() for t in grid
    ]
    assert found.temperature == pytest.approx(grid[np.argmin(losses)], rel=0.03)
    assert found.temperature == pytest.approx(known, rel=0.1)
    np.testing.assert_allclose(
        found.apply(logs * known), softmax(logs * known / found.temperature, axis=1), rtol=1e-9
    )


def test_with_many_rows_dirichlet_is_multinomial_regression_on_the_log_probabilities() -> None:
    logs, truth = draw(10000, 3)
    mixed = logs @ np.array([[0.9, 0.2, 0.0], [0.0, 1.2, 0.1], [0.1, 0.0, 0.8]]) + [0.8, 0.0, -0.4]
    shown = log_softmax(mixed, axis=1)
    ours = fit_calibrator(shown, truth, method="dirichlet").apply(shown)
    theirs = LogisticRegression(C=1e6, max_iter=500).fit(shown, truth).predict_proba(shown)
    assert np.abs(ours - theirs).mean() < 0.005
    plain = fit_calibrator(shown, truth, method="temperature").apply(shown)
    assert nll(ours, truth) < nll(plain, truth) - 0.02


def test_with_many_rows_vector_of_two_classes_is_logistic_regression() -> None:
    logs, truth = draw(10000, 2)
    shown = log_softmax(2.0 * logs + [1.0, 0.0], axis=1)
    ours = fit_calibrator(shown, truth, method="vector").apply(shown)
    logit = (shown[:, 1] - shown[:, 0])[:, None]
    theirs = LogisticRegression(C=1e6).fit(logit, truth).predict_proba(logit)
    assert np.abs(ours - theirs).max() < 0.02


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(4, 40), st.floats(0.1, 10))
def test_temperature_keeps_the_top_class(seed, k, n, spread) -> None:
    logs, _ = draw(n, k, seed, spread)
    truth = np.random.default_rng(seed).integers(0, k, n)
    found = fit_calibrator(logs, truth, method="temperature")
    out = found.apply(logs)
    np.testing.assert_allclose(out.sum(axis=1), 1)
    assert COLDEST <= found.temperature <= HOTTEST
    assert (out[np.arange(n), logs.argmax(1)] == out.max(1)).all()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(METHODS), st.permutations(range(4)))
def test_renaming_classes_renames_the_answer(seed, method, order) -> None:
    logs, truth = draw(60, 4, seed)
    order = np.array(order)
    renamed = fit_calibrator(logs[:, order], np.argsort(order)[truth], method=method)
    plain = fit_calibrator(logs, truth, method=method)
    np.testing.assert_allclose(
        renamed.apply(logs[:, order]), plain.apply(logs)[:, order], atol=2e-3
    )


def test_a_batch_equals_its_rows_and_a_constant_per_row_changes_nothing() -> None:
    logs, truth = draw(200, 4)
    found = fit_calibrator(logs, truth, method="dirichlet")
    together = found.apply(logs)
    np.testing.assert_allclose(np.concatenate([found.apply(r[None]) for r in logs]), together)
    shift = np.random.default_rng(1).normal(0, 5, (200, 1))
    np.testing.assert_allclose(found.apply(logs + shift), together)
    assert found.apply(logs[:0]).shape == (0, 4)


@pytest.mark.parametrize("method", METHODS)
def test_separated_rows_absent_classes_and_certainty_stay_finite(method) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 20)
    logs = np.full((20, 3), -np.inf)
    logs[np.arange(20), truth] = 0.0
    out = fit_calibrator(logs, truth, method=method).apply(logs)  # all right, class 2 never seen
    assert np.isfinite(out).all()
    assert (out.argmax(1) == truth).all()
    wrong = fit_calibrator(logs, 1 - truth, method=method)  # all wrong, with certainty
    assert np.isfinite(wrong.apply(logs)).all()
    if method == "temperature":
        assert wrong.temperature > 5


def test_auto_repairs_what_is_broken_and_records_the_numbers() -> None:
    logs, truth = draw(400, 3)
    fresh, fresh_truth = draw(4000, 3, seed=1)
    bold = fit_calibrator(3 * logs, truth)
    assert bold.method == "temperature"
    assert set(bold.nll) == set(METHODS)
    assert bold.nll["temperature"] < bold.nll["identity"]
    assert nll(bold.apply(3 * fresh), fresh_truth) < nll(softmax(3 * fresh, 1), fresh_truth) - 0.1
    shift = np.array([2.0, 0.0, -1.0])
    shifted = fit_calibrator(logs + shift, truth)
    assert shifted.method in ("vector", "dirichlet")
    good = nll(np.exp(fresh), fresh_truth)
    assert nll(shifted.apply(fresh + shift), fresh_truth) < good + 0.03


def test_auto_does_little_harm_to_what_is_calibrated() -> None:
    harm = []
    for seed in range(12):
        logs, truth = draw(60, 3, seed)
        fresh, fresh_truth = draw(1000, 3, seed + 1000)
        out = fit_calibrator(logs, truth).apply(fresh)
        harm.append(nll(out, fresh_truth) - nll(np.exp(fresh), fresh_truth))
    assert np.mean(harm) < 0.01


def test_auto_tries_only_what_rows_suffice_for() -> None:
    logs, truth = draw(200, 3)
    few = np.where(truth == 2, 0, truth)
    absent = fit_calibrator(3 * logs, few)
    assert absent.method == "temperature"
    assert "the rarest has 0" in absent.note
    one = fit_calibrator(logs, np.zeros(200, int))
    assert (one.method, list(one.nll)) == ("identity", ["identity"])
    assert "one class" in one.note
    patient = fit_calibrator(logs, truth, patients=["p"] * 200)
    assert patient.method == "identity"
    assert "one patient" in patient.note


@pytest.mark.parametrize("method", [*METHODS, "auto"])
def test_json_keeps_every_bit(method) -> None:
    logs, truth = draw(90, 3)
    found = fit_calibrator(logs, truth, method=method)
    again = Calibrator.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False)))
    assert again == found
    assert (again.apply(logs) == found.apply(logs)).all()


def test_bad_arguments_are_named() -> None:
    logs, truth = draw(30, 3)
    found = fit_calibrator(logs, truth)
    with pytest.raises(UsageError, match="method must be one of auto, identity"):
        fit_calibrator(logs, truth, method="isotonic")
    with pytest.raises(UsageError, match="class indices of 0 to 2"):
        fit_calibrator(logs, truth + 1)
    with pytest.raises(UsageError, match="class indices"):
        fit_calibrator(logs, truth.astype(float))
    with pytest.raises(UsageError, match="at least one row"):
        fit_calibrator(logs[:0], truth[:0])
    with pytest.raises(UsageError, match="NaN"):
        found.apply(np.full((1, 3), np.nan))
    with pytest.raises(UsageError, match="3 columns, got 2"):
        found.apply(logs[:, :2])
    with pytest.raises(UsageError, match="one patient per case"):
        fit_calibrator(logs, truth, patients=["p"])
