# SPDX-License-Identifier: Apache-2.0
"""Heat pictures: views above, heat below, colors where the heat is, orientation kept."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from vesalius.reporting.heatmaps import MOST, SIDE, heat_picture


def decoded(content: bytes) -> np.ndarray:
    image = Image.open(BytesIO(content))
    assert image.format == "JPEG"
    return np.asarray(image.convert("RGB"), float)


def views(n: int, *shape: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, channels, *shape)).astype(np.float16)


@pytest.mark.parametrize(
    ("n", "shape", "channels", "size"),
    [
        (1, (20, 20), 1, (SIDE, SIDE)),
        (3, (20, 10), 1, (3 * SIDE, SIDE // 2)),  # i is the columns of the picture
        (9, (20, 20), 3, (MOST * SIDE, SIDE)),
        (1, (12, 12, 12), 1, (SIDE, SIDE)),
    ],
)
def test_views_stand_side_by_side_above_their_heat(n, shape, channels, size) -> None:
    picture = decoded(heat_picture(views(n, *shape, channels=channels), np.zeros((n, *shape))))
    assert picture.shape == (2 * size[1], size[0], 3)


def test_without_heat_the_lower_half_is_the_upper_one_and_gray() -> None:
    picture = decoded(heat_picture(views(1, 16, 16), np.zeros((1, 16, 16))))
    np.testing.assert_allclose(picture[:SIDE], picture[SIDE:], atol=12)
    assert np.ptp(picture, axis=2).max() < 12


def test_color_lies_where_the_heat_is() -> None:
    view = np.full((1, 1, 32, 32), 0.5, np.float16)
    view[0, 0, ::2] = 1.0
    heat = np.zeros((1, 32, 32))
    heat[0, 24:, :8] = 1  # far along i, near along j: right, top
    picture = decoded(heat_picture(view, heat))
    below = picture[SIDE:]
    color = np.ptp(below, axis=2)
    quarter = SIDE // 4
    assert color[10 : quarter - 10, -quarter + 10 :].min() > 30
    assert color[quarter + 20 :, :].max() < 25
    assert color[:, : -quarter - 20].max() < 25
    assert np.ptp(picture[:SIDE], axis=2).max() < 25  # the upper half has none


def test_more_heat_is_brighter_and_yellower() -> None:
    view = views(1, 16, 16) * 0 + np.linspace(0, 1, 16).astype(np.float16)  # along j
    means = []
    for heat in (0.25, 0.5, 1.0):
        picture = decoded(heat_picture(view, np.full((1, 16, 16), heat)))
        means.append(picture[SIDE:].mean(axis=(0, 1)))
    greens = [mean[1] - mean[2] for mean in means]  # green over blue: from violet to yellow
    assert greens == sorted(greens)
    assert greens[-1] - greens[0] > 30


def test_of_a_volume_the_hottest_slice_is_shown() -> None:
    volume = np.zeros((1, 1, 8, 8, 8), np.float16)
    volume[..., 5][0, 0, :4] = 1.0
    heat = np.zeros((1, 8, 8, 8))
    heat[0, 2, 2, 5] = 1
    picture = decoded(heat_picture(volume, heat))
    assert np.ptp(picture[:SIDE]) > 200  # the other slices are constant
    assert np.ptp(picture[:SIDE, : SIDE // 2 - 20]) < 30
    assert picture[100, 20].mean() > 220  # i < 4 is the left half


def test_color_images_keep_their_colors() -> None:
    red = np.zeros((1, 3, 16, 16), np.float16)
    red[0, 0] = 1
    red[0, :, 8:] = 0
    upper = decoded(heat_picture(red, np.zeros((1, 16, 16))))[:SIDE]
    left = upper[:, : SIDE // 2 - 20].mean(axis=(0, 1))
    assert left[0] > 200
    assert left[1:].max() < 30


def test_a_constant_view_is_no_obstacle() -> None:
    picture = decoded(heat_picture(np.ones((1, 1, 8, 8), np.float16), np.ones((1, 8, 8))))
    assert np.isfinite(picture).all()
