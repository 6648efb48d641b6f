# SPDX-License-Identifier: Apache-2.0
"""Vahadane: the closed form against SciPy, the descent, planted stains."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from vesalius.errors import NormalizationRefused
from vesalius.normalization.stain import macenko, vahadane


def planted(seed: int, n: int = 64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a tile of sparse stains, its vectors (3, 2) and amounts (2, n, n)."""
    rng = np.random.default_rng(seed)
    vectors = np.array(macenko.REFERENCE).T + rng.normal(0, 0.04, (3, 2))
    vectors /= np.linalg.norm(vectors, axis=0)
    amounts = rng.uniform(0.4, 1.5, (2, n, n))
    which = rng.integers(0, 4, (n, n))
    amounts[0, which == 0] = 0
    amounts[1, which == 1] = 0
    amounts[:, which == 3] = 0
    return 240 * np.exp(-np.tensordot(vectors, amounts, 1)) - 1, vectors, amounts


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999), st.sampled_from([0.0, 0.1, 0.5]))
def test_closed_form_is_the_optimum_that_scipy_finds(seed: int, sparsity: float) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.uniform(0, 1, (3, 2))
    vectors /= np.linalg.norm(vectors, axis=0)
    density = rng.uniform(0, 1.5, (3, 20))
    found = vahadane.concentrations(vectors, density.astype(np.float32), sparsity)
    for pixel, amounts in zip(density.T, found.T, strict=True):
        # |v - W h|^2 / 2 + s sum(h) is |v' - W h|^2 / 2 with W^T v' = W^T v - s, up to a constant
        shifted = pixel - np.linalg.pinv(vectors.T) @ np.full(2, sparsity)
        np.testing.assert_allclose(amounts, nnls(vectors, shifted)[0], atol=2e-3)


def objective(vectors: np.ndarray, density: np.ndarray, sparsity: float) -> float:
    amounts = vahadane.concentrations(vectors, density, sparsity)
    rest = density - vectors @ amounts
    return float((rest**2).sum(axis=0).mean() / 2 + sparsity * amounts.sum(axis=0).mean())


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 999))
def test_descent_ends_no_higher_than_its_start_the_truth_or_any_neighbor(seed: int) -> None:
    image, truth, _ = planted(seed)
    density = np.maximum(-np.log((image.reshape(3, -1) + 1) / 240), 0).astype(np.float32)
    found = vahadane.factorize(density, 0.1)
    lowest = objective(found, density, 0.1)
    start = np.array(macenko.REFERENCE).T / np.linalg.norm(macenko.REFERENCE, axis=1)
    assert lowest <= objective(start, density, 0.1) + 1e-6
    assert lowest <= objective(truth, density, 0.1) + 1e-6
    rng = np.random.default_rng(seed)
    for _ in range(5):
        near = np.maximum(found + rng.normal(0, 0.02, (3, 2)), 0)
        near /= np.linalg.norm(near, axis=0)
        assert lowest <= objective(near, density, 0.1) + 1e-5


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 999))
def test_planted_stains_are_found_hematoxylin_first(seed: int) -> None:
    image, vectors, _ = planted(seed)
    found = vahadane.Vahadane.fit(image)
    assert max(macenko.degrees_between(np.array(found.stains).T, vectors)) < 2.5
    assert found.stains[0][0] > found.stains[1][0]
    assert np.min(found.stains) >= 0


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 99))
def test_an_image_of_two_stains_comes_back_from_its_own_target(seed: int) -> None:
    image, _, _ = planted(seed)
    out, _ = vahadane.Vahadane.fit(image).normalize(image)
    assert np.abs(out - image).mean() < 1.5  # the price of sparsity


def test_brighter_than_the_lamp_stays_so() -> None:
    image, _, _ = planted(0)
    image[:, :4, :4] = 255.0
    image[:, 4:8, :4] = 239.0
    out, _ = vahadane.Vahadane().normalize(image)
    np.testing.assert_allclose(out[:, :4, :4], 255, atol=0.01)
    np.testing.assert_allclose(out[:, 4:8, :4], 239, atol=0.01)


@pytest.mark.parametrize("noise", [0.0, 2.0])
def test_one_stain_is_refused_by_name(noise: float) -> None:
    rng = np.random.default_rng(0)
    density = np.outer([0.55, 0.72, 0.41], rng.uniform(0.3, 1.5, 4096))
    image = (240 * np.exp(-density) - 1).reshape(3, 64, 64)
    image += rng.normal(0, noise, image.shape)
    with pytest.raises(NormalizationRefused) as refused:
        vahadane.Vahadane().normalize(image)
    assert refused.value.reason == "one-stain"
