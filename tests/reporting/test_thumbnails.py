# SPDX-License-Identifier: Apache-2.0
"""Slices are shown as radiologists look, in true proportions, whatever grid they came on."""

from __future__ import annotations

import base64
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from vesalius.errors import UsageError
from vesalius.geometry import axis_codes, reorient
from vesalius.reporting.thumbnails import PREDICTION, TRUTH, slice_picture, telling_slice
from vesalius.volume import Volume


def pixels(uri):
    assert uri.startswith("data:image/jpeg;base64,")
    return np.array(Image.open(BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGB"), int)


def spot(uri):
    """Return which quarter of the picture is bright: (row half, column half)."""
    gray = pixels(uri).mean(2)
    row, column = np.unravel_index(np.argmax(gray), gray.shape)
    return int(row > gray.shape[0] / 2), int(column > gray.shape[1] / 2)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "RPS", "ARS", "PLI"])
def test_axial_shows_left_on_the_right_and_front_on_top(codes):
    data = np.zeros((1, 20, 20, 3), np.float32)
    data[0, 2:5, 15:18] = 100  # RAS: i small is left, j large is anterior
    volume = reorient(Volume(data, np.eye(4)), codes)
    assert axis_codes(volume.affine) == codes
    assert spot(slice_picture(volume, 1)) == (0, 1)


@pytest.mark.parametrize("codes", ["RSA", "LIP", "SRA"])
def test_coronal_shows_head_up(codes):
    data = np.zeros((1, 20, 3, 20), np.float32)
    data[0, 2:5, :, 15:18] = 100  # left, superior
    volume = reorient(Volume(data, np.eye(4)), codes)
    assert spot(slice_picture(volume, 1)) == (0, 1)


def test_sagittal_shows_front_on_the_left():
    data = np.zeros((1, 3, 20, 20), np.float32)
    data[0, :, 15:18, 15:18] = 100  # anterior, superior
    volume = reorient(Volume(data, np.eye(4)), "PIR")
    assert spot(slice_picture(volume, 1)) == (0, 0)


def test_true_proportions_and_size():
    volume = Volume(np.random.default_rng(0).random((1, 40, 40, 1)), np.diag([-1.0, -2.0, 1, 1]))
    height, width, _ = pixels(slice_picture(volume, 0)).shape
    assert (height, width) == (340, 170)


@pytest.mark.parametrize(
    "values", [np.nan, np.inf, 0.0, 7.0, np.array([np.nan, 1, 2, np.inf]).repeat(16)]
)
def test_constant_and_non_finite_slices_are_shown(values):
    data = np.broadcast_to(np.resize(values, (8, 8)), (1, 8, 8))[..., None].astype(np.float32)
    assert pixels(slice_picture(Volume(data, np.eye(4)), 0)).shape == (340, 340, 3)


def test_color_images_keep_their_color():
    data = np.zeros((3, 8, 8, 1), np.uint8)
    data[0] = 200
    shown = pixels(slice_picture(Volume(data, np.eye(4)), 0)).mean((0, 1))
    assert shown[0] > 190
    assert shown[1:].max() < 15


def test_contours_of_both_are_seen():
    volume = Volume(np.zeros((1, 40, 40, 2), np.float32), np.eye(4))
    truth, guess = np.zeros((40, 40, 2), np.uint8), np.zeros((40, 40, 2), np.uint8)
    truth[5:20, 5:20, 1], guess[10:30, 10:30, 1] = 1, 2

    def near(uri, color):
        return (np.abs(pixels(uri) - color).max(2) < 60).sum()

    both = slice_picture(volume, 1, truth=truth, prediction=guess)
    assert near(both, TRUTH) > 200
    assert near(both, PREDICTION) > 200
    assert near(slice_picture(volume, 0, truth=truth, prediction=guess), TRUTH) == 0
    perfect = slice_picture(volume, 1, truth=truth, prediction=truth)
    assert near(perfect, TRUTH) > 100  # the wide line stays visible under the narrow one
    assert near(perfect, PREDICTION) > 50


def test_the_slice_that_tells_most():
    truth, guess = np.zeros((6, 6, 4), np.uint8), np.zeros((6, 6, 4), np.uint8)
    truth[:, :, 1] = guess[:, :, 1] = 1
    guess[:3, 0, 3] = 1
    assert telling_slice(truth, guess) == 3
    assert telling_slice(truth) == 1
    assert telling_slice(np.zeros_like(truth), np.zeros_like(truth)) == 2


def test_refuses_a_slice_that_is_not_there():
    with pytest.raises(UsageError, match="0 to 0"):
        slice_picture(Volume(np.zeros((1, 4, 4, 1)), np.eye(4)), 1)


def test_the_busiest_picture_is_drawn() -> None:
    rng = np.random.default_rng(0)
    noise = Volume(rng.normal(size=(1, 340, 340, 1)).astype(np.float32), np.eye(4))
    labels = rng.integers(0, 3, (340, 340, 1)).astype(np.uint8)
    uri = slice_picture(noise, 0, truth=labels, prediction=labels[::-1])
    assert len(uri) > 100_000  # more than an optimizing encoder reserves for it
