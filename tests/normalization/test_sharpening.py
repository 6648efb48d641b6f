# SPDX-License-Identifier: Apache-2.0
"""Histogram sharpening: blurred peaks come back, shifts commute, widths of any size are served."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.normalization.spatial.sharpening import sharpen

SIGMA = 0.15 / (2 * np.sqrt(2 * np.log(2)))


def blurred(seed: int, size: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    pure = rng.choice([0.0, 0.4, 1.0], size, p=[0.2, 0.5, 0.3])
    return pure, pure + rng.normal(0, SIGMA, size)


def test_values_move_to_the_peak_that_they_came_from() -> None:
    pure, values = blurred(0)
    sharp = sharpen(values, bins=200, fwhm=0.15, noise=0.01)
    assert np.abs(sharp - pure).mean() < 0.55 * np.abs(values - pure).mean()
    # Bayes' own answer, the density of three known peaks
    peaks, weights = np.array([0.0, 0.4, 1.0]), np.array([0.2, 0.5, 0.3])
    likely = weights * np.exp(-0.5 * ((values[:, None] - peaks) / SIGMA) ** 2)
    best = (likely @ peaks) / likely.sum(1)
    assert np.abs(sharp - best).mean() < 0.02


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99), st.floats(-20, 20))
def test_a_shift_of_log_values_shifts_the_answer(seed: int, b: float) -> None:
    values = blurred(seed, 2000)[1]
    options = {"bins": 200, "fwhm": 0.15, "noise": 0.01}
    # a value on a bin's edge may fall to the other side by rounding
    np.testing.assert_allclose(
        sharpen(values + b, **options), sharpen(values, **options) + b, atol=1e-6
    )


@pytest.mark.parametrize("width", [1e-6, 1e-2, 50.0])
def test_any_width_gives_finite_values_within_the_range(width: float) -> None:
    values = np.random.default_rng(0).uniform(3, 3 + width, 1000)
    sharp = sharpen(values, bins=200, fwhm=0.15, noise=0.01)
    assert np.isfinite(sharp).all()
    assert sharp.min() > 3 - 0.2
    assert sharp.max() < 3 + width + 0.2
