# SPDX-License-Identifier: Apache-2.0
"""Intervals cover the truth as often as they claim, and draw patients together."""

from __future__ import annotations

import time

import numpy as np
import pytest

from vesalius.errors import UsageError
from vesalius.metrics.bootstrap import estimate, patient_draws, patient_index


def mean_of(values):
    return lambda weights: (weights @ values / weights.sum(1))[:, None]


def test_coverage_of_the_95_percent_interval_with_clustered_cases():
    """The mean of 40 patients with 3 alike images each: covered in about 95 of 100 studies."""
    generator = np.random.default_rng(1)
    studies, covered, naive = 300, 0, 0
    patients = np.repeat(np.arange(40), 3)
    for study in range(studies):
        values = np.repeat(generator.normal(0.7, 0.1, 40), 3) + generator.normal(0, 0.01, 120)
        hits = []
        for grouping in (patients, np.arange(120)):
            samples = patient_draws(mean_of(values), grouping, draws=400, seed=study)[:, 0]
            result = estimate("mean", values.mean(), samples, n=120, n_patients=40)
            hits.append(result.low <= 0.7 <= result.high)
        covered += hits[0]
        naive += hits[1]
    assert 0.90 <= covered / studies <= 0.98
    assert naive / studies < 0.80  # drawing images as if they were independent claims too much


def test_seeded_and_independent_of_names():
    values = np.random.default_rng(0).random(50)
    letters = [f"p-{n // 2}" for n in range(50)]
    numbers = np.arange(50) // 2
    a = patient_draws(mean_of(values), letters, draws=100, seed=3)
    assert np.array_equal(a, patient_draws(mean_of(values), numbers, draws=100, seed=3))
    assert not np.array_equal(a, patient_draws(mean_of(values), numbers, draws=100, seed=4))


def test_one_draw_takes_all_images_of_a_patient():
    seen = []

    def remember(weights):
        seen.append(weights)
        return weights.sum(1, keepdims=True)

    patient_draws(remember, ["a", "a", "b", "b", "c"], draws=50)
    weights = np.concatenate(seen)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 2] == weights[:, 3]).all()
    assert (weights[:, [0, 2, 4]].sum(1) == 3).all()


def test_unknown_patients_stand_alone():
    index, count = patient_index(["a", None, "", "a", float("nan")], 5)
    assert count == 4
    assert index[0] == index[3]


def test_equal_draws_get_the_exact_bound_or_none():
    perfect = estimate("accuracy", 1.0, np.ones(100), n=30, n_patients=30)
    assert perfect.low == pytest.approx(0.025 ** (1 / 30))  # Clopper-Pearson, 30 of 30
    assert perfect.high == 1.0
    wrong = estimate("accuracy", 0.0, np.zeros(100), n=30, n_patients=30)
    assert wrong.high == pytest.approx(1 - 0.025 ** (1 / 30))
    distance = estimate("hd95", 0.0, np.zeros(100), n=30, n_patients=30, bounded=False, unit="mm")
    assert distance.low is None
    assert "no interval" in distance.note


def test_one_patient_has_no_interval_and_undefined_is_none():
    single = estimate("auc", 0.8, np.full(10, 0.8), n=5, n_patients=1)
    assert (single.value, single.low, single.high) == (0.8, None, None)
    undefined = estimate("auc", float("nan"), np.full(10, np.nan), n=5, n_patients=5)
    assert undefined.value is None
    assert undefined.note


def test_refuses_what_does_not_fit():
    with pytest.raises(UsageError, match="one patient per case"):
        patient_index(["a"], 2)
    with pytest.raises(UsageError, match="draws"):
        patient_draws(mean_of(np.ones(2)), ["a", "b"], draws=0)


def test_ten_thousand_cases_take_seconds():
    values = np.random.default_rng(0).random(10_000)
    start = time.perf_counter()
    patient_draws(mean_of(values), np.arange(10_000) // 3)
    assert time.perf_counter() - start < 5
