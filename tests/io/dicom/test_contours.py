# SPDX-License-Identifier: Apache-2.0
"""Contours and masks: inverse of each other, and equal to matplotlib's point-in-polygon."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.path import Path as Polygon
from scipy import ndimage

from vesalius.errors import CorruptFile
from vesalius.io.dicom.contours import fill, outlines

masks = arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


@settings(max_examples=150, deadline=None)
@given(mask=masks)
def test_filling_the_outlines_gives_the_mask_back(mask: np.ndarray) -> None:
    assert np.array_equal(fill(outlines(mask), mask.shape), mask)


@settings(max_examples=50, deadline=None)
@given(mask=masks, shift=st.tuples(*[st.floats(-1e-5, 1e-5)] * 2))
def test_rounding_of_coordinates_changes_no_voxel(
    mask: np.ndarray, shift: tuple[float, float]
) -> None:
    moved = [np.round(points * 0.7, 6) / 0.7 + shift for points in outlines(mask)]
    assert np.array_equal(fill(moved, mask.shape), mask)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), corners=st.integers(3, 9))
def test_a_star_polygon_equals_matplotlib(seed: int, corners: int) -> None:
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radius = rng.uniform(2, 14, corners)
    points = np.stack([15 + radius * np.cos(angles), 12 + radius * np.sin(angles)], 1)
    x, y = np.meshgrid(np.arange(30), np.arange(25), indexing="ij")
    inside = Polygon(points).contains_points(np.stack([x.ravel(), y.ravel()], 1))
    assert np.array_equal(fill([points], (30, 25)).ravel(), inside)


def test_holes_are_cut_apart_or_by_keyhole() -> None:
    disk = np.hypot(*np.ogrid[-10:11, -10:11]) <= 9
    ring = disk & ~(np.hypot(*np.ogrid[-10:11, -10:11]) <= 4)
    assert len(outlines(ring)) == 1  # one contour with a keyhole
    apart = outlines(disk) + outlines(disk & ~ring)
    assert np.array_equal(fill(apart, ring.shape), ring)
    island = ring.copy()
    island[10, 10] = True
    assert len(outlines(island)) == 2
    assert np.array_equal(fill(outlines(island), ring.shape), island)


def test_blobs_with_many_holes() -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(128, 96)), 2)
    mask = noise > 0
    assert np.array_equal(fill(outlines(mask), mask.shape), mask)


def test_contours_outside_the_plane_draw_what_lies_inside() -> None:
    square = np.array([[-50, -50], [3.5, -50], [3.5, 2.5], [-50, 2.5]])
    wanted = np.zeros((8, 8), bool)
    wanted[:4, :3] = True
    assert np.array_equal(fill([square], (8, 8)), wanted)


def test_endless_scribbling_is_refused() -> None:
    zigzag = np.tile([[0.0, -1.0], [1.0, 1e6]], (50_000, 1))
    with pytest.raises(CorruptFile, match="rows"):
        fill([zigzag], (4, 60_000))
