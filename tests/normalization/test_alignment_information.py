# SPDX-License-Identifier: Apache-2.0
"""Mutual information: its laws, scikit-learn's value, and that leaving the image does not pay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.normalization.alignment.mutual_information import compare, mutual_information
from vesalius.normalization.alignment.pyramid import BINS, Level, to_bins


def bins(seed: int, n: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 12, n)
    return a, np.clip(a + rng.integers(-3, 4, n), 0, 11)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999))
def test_symmetric_and_blind_to_names_of_bins(seed: int) -> None:
    a, b = bins(seed)
    renamed = np.random.default_rng(seed + 1).permutation(BINS)[a]
    value = mutual_information(a, b)
    assert mutual_information(b, a) == pytest.approx(value, abs=1e-12)
    assert mutual_information(renamed, b) == pytest.approx(value, abs=1e-12)


def test_equals_scikit_learn_less_the_bias() -> None:
    from sklearn.metrics import mutual_info_score

    a, b = bins(3, 50_000)
    cells = len({*zip(a.tolist(), b.tolist(), strict=True)})
    bias = (cells - 12 - 12 + 1) / (2 * len(a))
    assert mutual_information(a, b) == pytest.approx(mutual_info_score(a, b) - bias, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999))
def test_independent_values_tell_nothing_however_few(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, BINS, (2, 3000))
    freedom = (BINS - 1) ** 2  # 2n times the plain estimate is about chi-squared: its mean, its SD
    assert freedom / 6000 > 0.08  # what it would be uncorrected
    assert abs(mutual_information(a, b)) < 6 * (2 * freedom) ** 0.5 / 6000


def test_leaving_the_image_does_not_pay() -> None:
    rng = np.random.default_rng(0)
    values = rng.uniform(0, BINS - 1, (12, 12, 12)).astype(np.float32)
    level = Level(values, np.ones(values.shape, bool), np.eye(4))
    comparison = compare(level, level, 10_000)
    half, out = np.eye(4), np.eye(4)
    half[0, 3], out[0, 3] = 6, 99
    whole = comparison.information(np.eye(4))
    assert whole == pytest.approx(np.log(BINS), abs=0.3)
    assert comparison.information(half) < 0.2 * whole
    assert comparison.information(out) == 0
    assert [comparison.overlap(m) for m in (np.eye(4), half, out)] == [1, 0.5, 0]
    assert comparison.distance_mm(np.eye(4), half) == pytest.approx(6)


def test_bins_rise_with_the_values_and_one_implant_does_not_take_them() -> None:
    values = np.random.default_rng(0).normal(100, 10, 5000)
    values[0] = 1e5
    put = to_bins(values, np.ones(values.shape, bool))
    order = np.argsort(values)
    assert (np.diff(put[order]) >= 0).all()
    assert (put.min(), put.max()) == pytest.approx((0, BINS - 1))
    assert np.quantile(put, 0.75) - np.quantile(put, 0.25) > 4
