# SPDX-License-Identifier: Apache-2.0
"""The six ratios of inormalize against their definitions, and their guards."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from vesalius.errors import NormalizationRefused, UsageError
from vesalius.normalization.intensity.ratios import RATIOS, factor

MODEL = np.array([2.0, 4.0, 8.0, 9.0])
VALUES = np.array([1.0, 1.0, 4.0, 9.0])  # ratios 2, 4, 2, 1


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        ("ratioOfMeans", 5.75 / 3.75),
        ("ratioOfMedians", 6 / 2.5),
        ("meanOfRatios", 2.25),
        ("meanOfLogRatios", 16 ** (1 / 4)),
        ("medianOfRatios", 2.0),
        ("rms", 119 / 99),  # 2 + 4 + 32 + 81 over 1 + 1 + 16 + 81
    ],
)
def test_by_hand(ratio: str, expected: float) -> None:
    assert factor(MODEL, VALUES, ratio) == pytest.approx(expected)


def test_rms_is_the_minimum_that_a_search_finds() -> None:
    rng = np.random.default_rng(0)
    x = rng.gamma(2, 1, 500)
    model = 3 * x + rng.normal(0, 0.3, 500)
    searched = optimize.minimize_scalar(lambda f: np.sum((model - f * x) ** 2)).x
    assert factor(model, x, "rms") == pytest.approx(searched, rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), st.sampled_from(RATIOS), st.floats(1e-3, 1e3))
def test_a_scaled_copy_gives_its_scale(seed: int, ratio: str, a: float) -> None:
    x = np.random.default_rng(seed).gamma(2, 1, 200)
    assert factor(a * x, x, ratio) == pytest.approx(a)


def test_constrained_keeps_ratios_near_1() -> None:
    model = np.array([1.0, 1.1, 1.2, 50.0, 0.01])
    assert factor(model, np.ones(5), "meanOfRatios", constrained=True) == pytest.approx(1.1)
    with pytest.raises(NormalizationRefused, match="at least 4"):
        factor(model, np.ones(5), "meanOfRatios", constrained=True, least=4)
    with pytest.raises(UsageError, match="constrained"):
        factor(model, np.ones(5), "rms", constrained=True)


@pytest.mark.parametrize("ratio", ["medianOfRatios", "meanOfRatios", "ratioOfMeans", "rms"])
def test_a_factor_that_would_invert_the_image_is_refused(ratio: str) -> None:
    with pytest.raises(NormalizationRefused, match="turn the image over") as refused:
        factor(MODEL, -VALUES, ratio)
    assert refused.value.reason == "reference"


def test_zeros_and_unknown_names() -> None:
    with pytest.raises(NormalizationRefused) as refused:
        factor(MODEL, np.zeros(4), "medianOfRatios")
    assert refused.value.reason == "too-few-voxels"
    with pytest.raises(NormalizationRefused, match="inf"):
        factor(MODEL, np.zeros(4), "ratioOfMedians")
    with pytest.raises(UsageError, match="ratio must be one of"):
        factor(MODEL, VALUES, "mode")
