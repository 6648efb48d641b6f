# SPDX-License-Identifier: Apache-2.0
"""Clusters on a histogram against the same formulas on every voxel, and against a minimizer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from vesalius.normalization.intensity.fuzzy_c_means import cluster, tissue_means


def voxels(seed: int, n: int = 4000) -> np.ndarray:
    rng = np.random.default_rng(seed)
    levels = np.array([250.0, 600.0, 1000.0])[rng.choice(3, n, p=(0.2, 0.5, 0.3))]
    return levels + rng.normal(0, 60, n)


def on_voxels(x: np.ndarray, start: np.ndarray, iterations: int) -> np.ndarray:
    """Return the membership-weighted means, each voxel for itself, exponents spelled out."""
    m, centers = 2.0, start
    for _ in range(iterations):
        d = np.abs(x[None] - centers[:, None])
        u = 1 / ((d[:, None] / d[None]) ** (2 / (m - 1))).sum(axis=1)
        centers = (u**m * x).sum(axis=1) / (u**m).sum(axis=1)
    d = np.abs(x[None] - centers[:, None])
    u = 1 / ((d[:, None] / d[None]) ** (2 / (m - 1))).sum(axis=1)
    return (u * x).sum(axis=1) / u.sum(axis=1)


def test_means_are_those_of_every_voxel_for_itself() -> None:
    x = voxels(0)
    expected = on_voxels(x, np.array([100.0, 500.0, 1200.0]), 200)
    np.testing.assert_allclose(tissue_means(x, "t1", 200), expected, rtol=1e-4)


def test_centers_minimize_the_objective() -> None:
    x = voxels(1)

    def objective(centers: np.ndarray) -> float:  # with the best memberships for these centers
        return float((1 / (1 / (x[:, None] - centers) ** 2).sum(axis=1)).mean())

    best = minimize(objective, [200.0, 500.0, 1100.0], method="Nelder-Mead").x
    centers, _ = cluster(np.sort(x), np.ones(x.size), 500)
    np.testing.assert_allclose(np.sort(centers), np.sort(best), rtol=2e-3)


def test_a_far_outlier_leaves_the_levels_fine_enough() -> None:
    x = np.append(voxels(2), 50_000.0)
    expected = on_voxels(x, np.array([250.1, 600.1, 1000.1]), 50)
    np.testing.assert_allclose(tissue_means(x, "t1", 50), np.sort(expected), rtol=2e-3)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 12), min_size=3, max_size=12, unique=True),
    st.lists(st.integers(1, 10**6), min_size=12, max_size=12),
)
def test_memberships_sum_to_1_and_centers_differ_on_any_levels(levels, counts) -> None:
    levels = np.sort(np.array(levels, float))
    centers, member = cluster(levels, np.array(counts[: levels.size], float), 50)
    np.testing.assert_allclose(member.sum(axis=0), 1)
    rounding = 1e-12 * np.abs(levels).max()
    assert levels[0] - rounding <= centers.min()
    assert centers.max() <= levels[-1] + rounding
    assert (np.diff(np.sort(centers)) > 0).all()


def test_contrast_names_the_tissues() -> None:
    dark, middle, bright = tissue_means(voxels(3), "t1", 50)
    assert dark < middle < bright
    assert tissue_means(voxels(3), "t2", 50) == pytest.approx((bright, middle, dark))
    assert tissue_means(voxels(3), "flair", 50) == pytest.approx((dark, bright, middle))
