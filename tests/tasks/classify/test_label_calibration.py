# SPDX-License-Identifier: Apache-2.0
"""Platt scaling per label finds known slopes, shares one where labels are rare, skips unknowns."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from vesalius.errors import UsageError
from vesalius.tasks.classify.calibration import Calibrator
from vesalius.tasks.classify.label_calibration import LABEL_METHODS, fit_label_calibrator


def draw(n: int, centers: list[float], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return true logits `(n, labels)` around the centers and a truth drawn from them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(centers, 2, (n, len(centers)))
    return logits, (rng.random(logits.shape) < expit(logits)).astype(float)


def loss(probabilities: np.ndarray, truth: np.ndarray) -> float:
    return float(-np.log(np.where(truth == 1, probabilities, 1 - probabilities)).mean())


def test_with_many_rows_it_is_logistic_regression_per_label() -> None:
    logits, truth = draw(8000, [0.0, -2.0])
    shown = logits * [3.0, 0.5] + [1.0, 2.0]
    found = fit_label_calibrator(shown, truth, method="platt")
    for label in range(2):
        model = LogisticRegression(C=1e6).fit(shown[:, [label]], truth[:, label])
        assert found.weights[label][label] == pytest.approx(model.coef_[0, 0], rel=0.02)
        assert found.bias[label] == pytest.approx(model.intercept_[0], abs=0.05)
    assert fit_label_calibrator(shown, truth).method == "platt"


def test_a_rare_label_takes_the_shared_slope_and_its_own_intercept() -> None:
    logits, truth = draw(400, [0.0, 0.0, -6.0])
    assert truth[:, 2].sum() < 20
    shown = 4 * logits + [0.0, 0.0, 8.0]
    found = fit_label_calibrator(shown, truth, method="platt")
    shared = fit_label_calibrator(shown, truth, method="shared")
    assert found.weights[2][2] == shared.weights[2][2] == shared.weights[0][0]
    assert found.weights[0][0] != shared.weights[0][0]
    assert shared.weights[0][0] == pytest.approx(1 / 4, rel=0.2)
    fresh, fresh_truth = draw(4000, [0.0, 0.0, -6.0], seed=1)
    out = found.apply(4 * fresh + [0.0, 0.0, 8.0])
    assert loss(out[:, 2], fresh_truth[:, 2]) < loss(expit(fresh[:, 2]), fresh_truth[:, 2]) + 0.02
    assert found.temperature is None


def test_unknown_entries_do_not_count() -> None:
    logits, truth = draw(300, [0.0, 1.0])
    hole = np.random.default_rng(1).random(truth.shape) < 0.4
    gaps = np.where(hole, np.nan, truth)
    found = fit_label_calibrator(logits, gaps, method="platt")
    changed = fit_label_calibrator(np.where(hole, 9.0, logits), gaps, method="platt")
    assert found.weights == changed.weights
    assert found.bias == changed.bias
    empty = fit_label_calibrator(logits, np.full_like(truth, np.nan))
    assert (empty.method, empty.note[:14]) == ("identity", "no known label")


def test_few_separated_or_one_sided_rows_stay_finite() -> None:
    truth = np.array([[1.0, 0.0, np.nan]] * 10 + [[0.0, 0.0, np.nan]] * 10)
    logits = np.where(truth == 1, 40.0, -40.0)
    for method in LABEL_METHODS:
        out = fit_label_calibrator(logits, truth, method=method).apply(logits)
        assert np.isfinite(out).all()
        assert ((out[:, 0] > 0.5) == (truth[:, 0] == 1)).all()


def test_auto_leaves_what_is_calibrated_and_repairs_what_is_not() -> None:
    harm = []
    for seed in range(10):
        logits, truth = draw(60, [0.0, -1.0], seed)
        fresh, fresh_truth = draw(1000, [0.0, -1.0], seed + 1000)
        out = fit_label_calibrator(logits, truth).apply(fresh)
        harm.append(loss(out, fresh_truth) - loss(expit(fresh), fresh_truth))
    assert np.mean(harm) < 0.01
    logits, truth = draw(300, [0.0, -1.0])
    found = fit_label_calibrator(4 * logits, truth, patients=np.arange(300) // 2)
    assert found.method in ("shared", "platt")
    assert found.nll[found.method] < found.nll["identity"] - 0.1


def test_json_and_bad_arguments() -> None:
    logits, truth = draw(50, [0.0, -1.0])
    found = fit_label_calibrator(logits, truth)
    again = Calibrator.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False)))
    assert again == found
    assert (again.apply(logits) == found.apply(logits)).all()
    with pytest.raises(UsageError, match="auto, identity, shared, platt, got 'vector'"):
        fit_label_calibrator(logits, truth, method="vector")
    with pytest.raises(UsageError, match="0, 1 or NaN"):
        fit_label_calibrator(logits, truth + 1)
    with pytest.raises(UsageError, match="a row at least"):
        fit_label_calibrator(logits[:0], truth[:0])
