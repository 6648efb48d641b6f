# SPDX-License-Identifier: Apache-2.0
"""Histogram distances: hand-known answers, laws, and SciPy's own KS."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from vesalius.errors import UsageError
from vesalius.normalization.distances import BINS, FLOOR, histogram_distances

seeds = st.integers(0, 2**32 - 1)


def test_two_bins_by_hand() -> None:
    a = np.array([0.0, 0.0, 0.0, 1.0])
    b = np.array([0.0, 1.0, 1.0, 1.0])
    found = histogram_distances(a, b, bins=2)
    assert found.ks == pytest.approx(0.5)
    by_hand = 0.75 * np.log(0.75 / 0.25) + 0.25 * np.log(0.25 / 0.75)
    assert found.kl == found.kl_reverse == pytest.approx(by_hand)
    assert found.kl_symmetric == pytest.approx(by_hand)


def test_disjoint_values_reach_the_stated_floor() -> None:
    found = histogram_distances(np.zeros(100), np.ones(100))
    assert found.ks == pytest.approx(1)
    assert found.kl == pytest.approx(-np.log(FLOOR), rel=1e-3)
    assert (found.low, found.high, found.bins, found.floor) == (0, 1, BINS, FLOOR)


@settings(max_examples=25, deadline=None)
@given(seeds, st.floats(1e-6, 1e6), st.floats(-1e3, 1e3))
def test_equal_sets_are_0_apart_and_scale_does_not_matter(seed: int, a: float, b: float) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.gamma(2, 1, 3000), rng.normal(2, 1, 2000)
    same = histogram_distances(x, x[::-1])
    assert (same.ks, same.kl, same.kl_reverse) == (0, 0, 0)
    one, two = histogram_distances(x, y), histogram_distances(a * (x + b), a * (y + b))
    assert one.ks == pytest.approx(two.ks, abs=2e-3)  # values on an edge may change the bin
    assert one.kl == pytest.approx(two.kl, rel=0.05, abs=1e-3)
    back = histogram_distances(y, x)
    assert (back.kl, back.kl_reverse, back.ks) == pytest.approx((one.kl_reverse, one.kl, one.ks))


@settings(max_examples=25, deadline=None)
@given(seeds, st.floats(-3, 3), st.floats(0.2, 5))
def test_ks_is_scipys_within_one_bin(seed: int, shift: float, scale: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(0, 1, 5000), rng.normal(shift, scale, 4000)
    exact = stats.ks_2samp(a, b, method="asymp").statistic
    found = histogram_distances(a, b).ks
    assert found <= exact + 1e-12  # bin edges are some of the places that the exact one looks at
    assert found >= exact - 0.05


def test_kl_of_two_gaussians_is_near_the_closed_form() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, 400_000), rng.normal(0.5, 1, 400_000)
    assert histogram_distances(a, b, bins=64).kl == pytest.approx(0.125, rel=0.05)


@pytest.mark.parametrize("bad", [np.array([]), np.array([1.0, np.nan])])
def test_what_cannot_be_compared_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(UsageError, match="must hold finite"):
        histogram_distances(bad, np.ones(3))
    with pytest.raises(UsageError, match="floor"):
        histogram_distances(np.ones(3), np.ones(3), floor=0)
