# SPDX-License-Identifier: Apache-2.0
"""Common grid: every resampled voxel shows the place that it should."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.errors import UsageError
from vesalius.normalization.alignment.common_grid import Grid, onto
from vesalius.normalization.alignment.poses import pose
from vesalius.normalization.alignment.transform import Transform
from vesalius.volume import LabelMap, Volume

AFFINE = np.array([[-2.0, 0, 0, 30], [0, 1.5, 0, -10], [0, 0, 3, 5], [0, 0, 0, 1]])


def places(affine: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Return an image whose three channels are its voxels' world coordinates."""
    voxels = np.indices(shape).reshape(3, -1)
    return (affine[:3, :3] @ voxels + affine[:3, 3:]).reshape(3, *shape)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(list(permutations(range(3)))),
    st.sampled_from(list(product((False, True), repeat=3))),
)
def test_permuted_and_flipped_axes_copy_values_exactly(order, flips) -> None:
    data = np.random.default_rng(0).integers(0, 1000, (2, 4, 5, 6)).astype(np.int16)
    volume = Volume(data, AFFINE)
    expected, affine = data.transpose(0, *(n + 1 for n in order)), AFFINE[:, [*order, 3]].copy()
    for axis, flip in enumerate(flips):
        if flip:
            expected = np.flip(expected, axis + 1)
            affine[:, 3] += affine[:, axis] * (expected.shape[axis + 1] - 1)
            affine[:, axis] *= -1
    moved = onto(volume, Grid(affine, expected.shape[1:]))
    assert moved.data.dtype == np.int16
    assert (moved.data == expected).all()
    assert (moved.affine == affine).all()


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(*[st.floats(-20, 20)] * 3).map(np.array),
    st.tuples(*[st.floats(-5, 5)] * 3).map(np.array),
)
def test_each_voxel_shows_the_point_that_the_transform_names(turn, shift) -> None:
    moving = Volume(places(AFFINE, (30, 40, 20)), AFFINE)
    center = (AFFINE @ [15, 20, 10, 1])[:3]
    transform = Transform(pose(turn, shift, center), "rigid")
    grid = Grid(
        np.array([[1.1, 0, 0, -5], [0, 0, 1.2, 15], [0, 1, 0, 30], [0, 0, 0, 1]]), (5, 6, 4)
    )
    moved = onto(moving, grid, transform, outside=np.nan)
    wanted = transform.apply_to_points(places(grid.affine, grid.shape).reshape(3, -1).T)
    np.testing.assert_allclose(moved.data.reshape(3, -1).T, wanted, atol=1e-3)


def test_an_image_stays_as_it_is_on_its_own_grid() -> None:
    volume = Volume(np.random.default_rng(0).normal(size=(1, 4, 5, 6)), AFFINE)
    moved = onto(volume, Grid.of(volume))
    assert (moved.data == volume.data).all()


def test_outside_is_the_smallest_value_and_labels_stay_labels() -> None:
    ct = Volume(np.full((1, 4, 4, 4), 40.0) - np.indices((1, 4, 4, 4))[1] * 260, np.eye(4))
    labels = LabelMap(np.full((1, 4, 4, 4), 7, np.uint8), np.eye(4), names={7: "liver"})
    wide = np.eye(4)
    wide[:3, 3] = -3.25
    moved, mask = onto(ct, Grid(wide, (9, 9, 9))), onto(labels, Grid(wide, (9, 9, 9)))
    assert moved.data[0, 0, 0, 0] == ct.data.min() == -740
    assert mask.data.dtype == np.uint8
    assert set(np.unique(mask.data)) == {0, 7}
    assert mask.names == {7: "liver"}


def test_a_coarser_grid_averages_instead_of_picking() -> None:
    stripes = np.zeros((1, 32, 32, 32), np.float32)
    stripes[:, ::2] = 100
    volume = Volume(stripes, np.eye(4))
    grid = Grid.of(volume, 4.0)
    assert grid.shape == (8, 8, 8)
    assert grid.spacing == pytest.approx((4, 4, 4))
    inside = onto(volume, grid).data[0, 2:-2, 2:-2, 2:-2]
    np.testing.assert_allclose(inside, 50, atol=2)


def test_spacing_is_one_or_three_positive_millimeters() -> None:
    volume = Volume(np.zeros((1, 4, 4, 4)), np.eye(4))
    for bad in ((1.0, 2.0), 0.0, (1.0, -1.0, 1.0)):
        with pytest.raises(UsageError, match="spacing must be"):
            Grid.of(volume, bad)
