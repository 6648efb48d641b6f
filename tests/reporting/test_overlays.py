# SPDX-License-Identifier: Apache-2.0
"""Overlay pictures: sides as radiologists see them, a checkerboard of both, edges of the moved."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from vesalius.errors import UsageError
from vesalius.geometry import reorient
from vesalius.reporting.overlays import EDGE, SIDE, overlay_picture, write_overlay
from vesalius.volume import Volume

AFFINE = np.diag([2.0, 2, 2, 1])  # RAS


def ball(x: float, size: int = 40) -> Volume:
    """Return a bright ball of 12 mm radius at `x` mm right of the first voxel, in the middle."""
    place = np.indices((size,) * 3).reshape(3, -1).T * 2.0
    inside = np.linalg.norm(place - [x, size, size], axis=1) < 12
    return Volume((100.0 * inside).reshape(1, size, size, size), AFFINE, modality="MR")


def panels(fixed: Volume, moved: Volume) -> list[np.ndarray]:
    """Return the four panels of the axial row, `(rows, columns, 3)`."""
    sheet = np.array(Image.open(BytesIO(overlay_picture(fixed, moved))))
    return [sheet[14 : 14 + SIDE, n * (SIDE + 4) : n * (SIDE + 4) + SIDE] for n in range(4)]


def test_right_lies_on_the_left_whatever_the_axes_of_the_file() -> None:
    right = ball(60.0)
    for codes in ("RAS", "LPS", "AIR"):
        first = panels(*[reorient(right, codes)] * 2)[0][..., 0].astype(float)
        center = (first.sum(axis=0) @ np.arange(SIDE)) / first.sum()
        assert center == pytest.approx(SIDE * (1 - 61 / 80), abs=3)


def test_the_checkerboard_of_one_image_is_that_image_and_a_shift_shows() -> None:
    one, other = ball(40.0), ball(52.0)
    first, second, both, edges = panels(one, one)
    assert (first == second).all()
    assert (both == first).all()
    first, second, both, edges = panels(one, other)
    mixed = (both != first).any(axis=2), (both != second).any(axis=2)
    assert mixed[0].any()
    assert mixed[1].any()
    drawn = np.argwhere((edges == EDGE).all(axis=2))
    # The edge is a circle about the moved ball: 12 mm of 80 mm radius, at 53 mm from the right.
    middle = np.array([(1 - 41 / 80) * SIDE, (1 - 53 / 80) * SIDE])
    radius = np.linalg.norm(drawn - middle, axis=1)
    assert np.median(radius) == pytest.approx(12 / 80 * SIDE, abs=3)


def test_three_planes_in_true_proportion_and_a_file(tmp_path) -> None:
    flat = Volume(np.random.default_rng(0).gamma(2, 9, (1, 40, 30, 10)), np.diag([1.0, 1, 5, 1]))
    path = write_overlay(flat, flat, tmp_path / "overlay.png")
    with Image.open(path) as picture:
        width, height = picture.size
    scale = SIDE / 50  # the longest side is k: 10 slices of 5 mm
    assert width == pytest.approx(4 * (40 * scale + 4), abs=4)
    assert height == pytest.approx(14 + (30 + 50 + 50) * scale + 12, abs=4)


def test_other_grids_and_constant_images() -> None:
    one = ball(40.0)
    with pytest.raises(UsageError, match="one grid"):
        overlay_picture(one, ball(40.0, 20))
    blank = one.with_data(np.zeros_like(one.data))
    assert overlay_picture(blank, blank).startswith(b"\x89PNG")
