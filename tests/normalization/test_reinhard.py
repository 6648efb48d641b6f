# SPDX-License-Identifier: Apache-2.0
"""Reinhard: colors against scikit-image, and the moments that it promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.normalization.stain import reinhard


def soft(seed: int) -> np.ndarray:
    """Return an image far from the edges of sRGB, (3, 40, 40), float64."""
    rng = np.random.default_rng(seed)
    return np.clip(rng.normal([[[130]], [[110]], [[140]]], 8, (3, 40, 40)), 60, 200)


TARGET = reinhard.Reinhard((60.0, 8.0, -6.0), (5.0, 3.0, 3.0))


def test_colors_agree_with_scikit_image() -> None:
    color = pytest.importorskip("skimage.color")
    image = np.random.default_rng(0).integers(0, 256, (3, 50, 40)).astype(np.uint8)
    lab = reinhard.rgb_to_lab(image)
    other = color.rgb2lab(np.moveaxis(image, 0, -1))
    np.testing.assert_allclose(np.moveaxis(lab, 0, -1), other, atol=2e-2)
    np.testing.assert_allclose(reinhard.rgb_to_lab(image.astype(np.float64)), lab, atol=1e-4)
    np.testing.assert_allclose(reinhard.lab_to_rgb(lab), image, atol=0.02)


def test_white_black_and_gray_by_hand() -> None:
    grays = np.repeat(np.array([255.0, 0.0, 119.0])[None], 3, axis=0)[:, :, None]
    lab = reinhard.rgb_to_lab(grays)
    np.testing.assert_allclose(lab[0, :, 0], [100, 0, 50.03], atol=0.05)
    np.testing.assert_allclose(lab[1:], 0, atol=0.01)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999))
def test_result_has_the_targets_moments_and_is_idempotent(seed: int) -> None:
    once, _ = TARGET.normalize(soft(seed))
    lab = reinhard.rgb_to_lab(once).reshape(3, -1)
    np.testing.assert_allclose(lab.mean(axis=1), TARGET.means, atol=0.02)
    np.testing.assert_allclose(lab.std(axis=1), TARGET.sds, atol=0.02)
    np.testing.assert_allclose(TARGET.normalize(once)[0], once, atol=0.05)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 999))
def test_an_image_keeps_its_place_under_its_own_target(seed: int) -> None:
    image = soft(seed)
    np.testing.assert_allclose(reinhard.Reinhard.fit(image).normalize(image)[0], image, atol=0.05)


def test_mask_gives_the_moments_within_it() -> None:
    image = soft(0)
    image[:, :, 20:] = 225
    mask = np.zeros((40, 40), bool)
    mask[:, :20] = True
    out, _ = TARGET.normalize(image, mask)
    inside = reinhard.rgb_to_lab(out)[:, mask]
    np.testing.assert_allclose(inside.mean(axis=1), TARGET.means, atol=0.02)
    np.testing.assert_allclose(inside.std(axis=1), TARGET.sds, atol=0.02)


def test_a_gray_image_is_moved_and_not_stretched_to_color_noise() -> None:
    gray = np.repeat(np.random.default_rng(0).uniform(60, 180, (1, 40, 40)), 3, axis=0)
    out, _ = TARGET.normalize(gray)
    lab = reinhard.rgb_to_lab(out)
    np.testing.assert_allclose(lab[1:].mean(axis=(1, 2)), TARGET.means[1:], atol=0.1)
    assert lab[1:].std(axis=(1, 2)).max() < 0.1
