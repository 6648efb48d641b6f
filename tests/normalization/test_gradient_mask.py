# SPDX-License-Identifier: Apache-2.0
"""Low-gradient mask: the gradient of a ramp in millimeters, half of the mask, edges left out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.errors import NormalizationRefused, UsageError
from vesalius.normalization.spatial.gradient_mask import gradient, low_gradient

SPACING = (1.0, 2.0, 4.0)


def test_a_ramp_has_its_own_slope_per_millimeter() -> None:
    i, j, k = np.indices((24, 20, 16))
    ramp = 3.0 * i * SPACING[0] + 4.0 * j * SPACING[1] + 12.0 * k * SPACING[2]
    inner = gradient(ramp, spacing=SPACING)[8:-8, 6:-6, 5:-5]
    np.testing.assert_allclose(inner, 13.0, rtol=1e-3)  # sqrt(9 + 16 + 144)


def test_the_boundary_of_two_tissues_is_left_out() -> None:
    rng = np.random.default_rng(0)
    values = np.where(np.arange(32)[:, None, None] < 16, 100.0, 200.0) + rng.normal(0, 1, (32,) * 3)
    mask = np.ones(values.shape, bool)
    mask[:, :2] = False
    flat = low_gradient(values, mask, spacing=(1, 1, 1))
    assert not flat[15:17].any()
    assert not flat[~mask].any()
    assert flat.sum() == pytest.approx(mask.sum() / 2, abs=1)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 99), st.sampled_from([0.25, 2.0, 1024.0]))
def test_scale_does_not_matter(seed: int, a: float) -> None:
    values = np.random.default_rng(seed).gamma(2, 100, (12, 11, 10))
    mask = values > 50
    one = low_gradient(values, mask, spacing=SPACING)
    assert (low_gradient(a * values, mask, spacing=SPACING) == one).all()


def test_a_single_slice_is_served() -> None:
    values = np.tile(np.r_[np.zeros(10), np.ones(10)][:, None, None], (1, 20, 1))
    flat = low_gradient(values, np.ones(values.shape, bool), spacing=(1, 1, 5))
    assert flat[:5].all()
    assert not flat[10].any()


def test_hopeless_input_is_refused() -> None:
    ones = np.ones((4, 4, 4))
    with pytest.raises(NormalizationRefused) as refused:
        low_gradient(ones, ones > 0, spacing=(1, 1, 1))
    assert refused.value.reason == "constant"
    with pytest.raises(UsageError, match="fwhm_mm"):
        gradient(ones, spacing=(1, 1, 1), fwhm_mm=0)
