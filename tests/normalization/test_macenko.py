# SPDX-License-Identifier: Apache-2.0
"""Macenko: planted stains found again, and a second computation of the paper's formula."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.errors import NormalizationRefused
from vesalius.normalization.stain import macenko


def planted(seed: int, n: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Return a tile with many pixels of either stain alone, and its vectors (3, 2)."""
    rng = np.random.default_rng(seed)
    vectors = np.array(macenko.REFERENCE).T + rng.normal(
        0, 0.015, (3, 2)
    )  # eosin keeps some red: beta
    vectors /= np.linalg.norm(vectors, axis=0)
    amounts = rng.uniform(1.0, 1.8, (2, n, n))
    which = rng.integers(0, 4, (n, n))
    amounts[0, which == 0] = 0
    amounts[1, which == 1] = 0
    amounts[:, which == 3] = 0
    return 240 * np.exp(-np.tensordot(vectors, amounts, 1)) - 1, vectors


def paper(image: np.ndarray, target: macenko.Macenko) -> np.ndarray:
    """Return the formula's result, pixel by row, in float64."""
    density = -np.log((image.reshape(3, -1).T + 1) / 240)
    tissue = density[(density >= 0.15).all(axis=1)]
    plane = np.linalg.svd(tissue - tissue.mean(0), full_matrices=False)[2][:2]
    plane[plane.sum(axis=1) < 0] *= -1
    angle = np.degrees(np.arctan2(tissue @ plane[1], tissue @ plane[0]))
    ends = [np.radians(np.percentile(angle, q)) for q in (1, 99)]
    vectors = [np.cos(end) * plane[0] + np.sin(end) * plane[1] for end in ends]
    vectors = np.array(sorted(vectors, key=lambda one: -one[0]))
    amounts = np.linalg.lstsq(vectors.T, density.T, rcond=None)[0]
    amounts *= (np.array(target.maxima) / np.percentile(amounts, 99, axis=1))[:, None]
    out = 240 * np.exp(-(np.array(target.stains).T @ amounts))
    return np.clip(out, 0, 255).reshape(image.shape)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 999))
def test_agrees_with_the_formula_written_out(seed: int) -> None:
    image, _ = planted(seed)
    target = macenko.Macenko()
    np.testing.assert_allclose(target.normalize(image)[0], paper(image, target), atol=0.02)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 999))
def test_planted_stains_are_found_hematoxylin_first(seed: int) -> None:
    image, vectors = planted(seed)
    found = macenko.Macenko.fit(image)
    assert max(macenko.degrees_between(np.array(found.stains).T, vectors)) < 0.5
    assert found.stains[0][0] > found.stains[1][0]
    np.testing.assert_allclose(np.linalg.norm(found.stains, axis=1), 1, rtol=1e-9)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 99))
def test_an_image_keeps_its_place_under_its_own_target(seed: int) -> None:
    image, _ = planted(seed)
    out, (record,) = macenko.Macenko.fit(image).normalize(image)
    np.testing.assert_allclose(out, np.clip(image + 1, 0, 255), atol=0.05)  # + 1 of the density
    np.testing.assert_allclose(record.found["degrees_from_target"], 0, atol=0.01)


def test_two_appearances_meet_in_one_target() -> None:
    rng = np.random.default_rng(0)
    amounts = rng.uniform(0, 1.2, (2, 64, 64)) * (rng.uniform(size=(2, 64, 64)) < 0.5)
    looks = []
    for seed, gain in ((1, 0.8), (2, 1.3)):
        _, vectors = planted(seed)
        looks.append(240 * np.exp(-np.tensordot(vectors, amounts * gain, 1)) - 1)
    before = np.abs(looks[0] - looks[1]).mean()
    after = np.subtract(*(macenko.Macenko().normalize(one)[0] for one in looks))
    assert np.abs(after).mean() < 0.05 * before


@pytest.mark.parametrize("noise", [0.0, 2.0])
def test_one_stain_is_refused_by_name(noise: float) -> None:
    rng = np.random.default_rng(0)
    density = np.outer([0.55, 0.72, 0.41], rng.uniform(0.3, 1.5, 4096))
    image = (240 * np.exp(-density) - 1).reshape(3, 64, 64)
    image += rng.normal(0, noise, image.shape)
    with pytest.raises(NormalizationRefused) as refused:
        macenko.Macenko().normalize(image)
    assert refused.value.reason == "one-stain"
