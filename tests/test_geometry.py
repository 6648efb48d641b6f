# SPDX-License-Identifier: Apache-2.0
"""Volumes and grids: laws, and resampling against ITK."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from vesalius.errors import UsageError
from vesalius.geometry import (
    LPS_TO_RAS,
    axis_codes,
    flat_affine,
    grid_with_spacing,
    is_oblique,
    reorient,
    resample,
    same_grid,
)
from vesalius.volume import LabelMap, Volume


def turned(angles=(10, -20, 30), spacing=(1, 2, 3), origin=(-40, 5, 60), flips=(1, 1, 1)):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    affine[:3, :3] *= np.array(spacing) * flips
    affine[:3, 3] = origin
    return affine


def volume(affine=None, shape=(7, 6, 5), channels=2, dtype=np.float32):
    values = np.random.default_rng(1).normal(0, 100, (channels, *shape)).astype(dtype)
    return Volume(values, turned() if affine is None else affine)


def itk(affine, values=None, shape=None):
    affine = LPS_TO_RAS @ affine
    if values is None:
        image = SimpleITK.Image([int(n) for n in shape], SimpleITK.sitkFloat32)
    else:
        image = SimpleITK.GetImageFromArray(np.ascontiguousarray(values.T))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    return image


angles = st.tuples(*[st.floats(-180, 180)] * 3)
flips = st.tuples(*[st.sampled_from([1, -1])] * 3)


@settings(max_examples=60, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-25, 25)] * 3),  # closest axes are beyond doubt
    flips=flips,
    order=st.permutations([0, 1, 2]),
)
def test_axis_codes_equal_nibabels(angles, flips, order):
    affine = turned(angles, flips=flips)[:, [*order, 3]]
    assert axis_codes(affine) == "".join(nibabel.aff2axcodes(affine))


@settings(max_examples=60, deadline=None)
@given(
    angles=angles,
    flips=flips,
    order=st.permutations([0, 1, 2]),
    letters=st.tuples(st.sampled_from("LR"), st.sampled_from("PA"), st.sampled_from("IS")),
)
def test_reorient_moves_no_voxel_in_the_world(angles, flips, order, letters):
    first = volume(turned(angles, flips=flips))
    codes = "".join(letters[n] for n in order)
    second = reorient(first, codes)
    assert axis_codes(second.affine) == codes
    at = {
        tuple(np.round(second.affine @ [*index, 1], 6)[:3]): second.data[(slice(None), *index)]
        for index in np.ndindex(second.shape)
    }
    for index in np.ndindex(first.shape):
        place = tuple(np.round(first.affine @ [*index, 1], 6)[:3])
        np.testing.assert_array_equal(at[place], first.data[(slice(None), *index)])
    back = reorient(second, axis_codes(first.affine))
    np.testing.assert_array_equal(back.data, first.data)
    np.testing.assert_allclose(back.affine, first.affine, atol=1e-9)


@pytest.mark.parametrize("codes", ["RRS", "RA", "XYZ", "ras", "RASS"])
def test_reorient_refuses_codes_that_are_none(codes):
    with pytest.raises(UsageError, match="RAS"):
        reorient(volume(), codes)


@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.uint8])
@pytest.mark.parametrize("shape", [(9, 8, 7), (9, 8, 1)])
def test_linear_resampling_equals_itk(dtype, shape):
    source = volume(shape=shape, channels=1, dtype=np.float32)
    source = source.with_data((np.abs(source.data) % 250).astype(dtype))
    center = source.affine @ [*(np.array(shape) / 2), 1]
    target = turned((13, -18, 27), (0.9, 1.7, 1.1), (0, 0, 0))
    target[:3, 3] = center[:3] - target[:3, :3] @ [6, 5, 4]
    ours = resample(source, target, (13, 11, 9), outside=-7)
    reference = itk(target, shape=(13, 11, 9))
    theirs = SimpleITK.Resample(
        itk(source.affine, source.data[0].astype(np.float32)), reference,
        SimpleITK.Transform(), SimpleITK.sitkLinear, -7.0,
    )  # fmt: skip
    theirs = SimpleITK.GetArrayFromImage(theirs).T
    assert ours.data.dtype == np.float32
    assert 0.02 < (theirs != -7).mean() < 0.99
    np.testing.assert_allclose(ours.data[0], theirs, atol=0.02)


def test_nearest_resampling_equals_itk_and_keeps_the_type():
    labels = LabelMap(
        np.random.default_rng(2).integers(0, 5, (1, 9, 8, 7)).astype(np.uint8), turned()
    )
    target = turned((13, -18, 27), (0.9, 1.7, 1.1), (-40, 4, 58))
    ours = resample(labels, target, (13, 11, 9), order=3)
    theirs = SimpleITK.Resample(
        itk(labels.affine, labels.data[0]), itk(target, shape=(13, 11, 9)),
        SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor, 0,
    )  # fmt: skip
    assert isinstance(ours, LabelMap)
    assert ours.data.dtype == np.uint8
    assert ours.data.any()
    same = ours.data[0] == SimpleITK.GetArrayFromImage(theirs).T
    assert same.mean() > 0.998  # centers half way between voxels may round either way


def test_interpolated_integers_keep_their_fractions():
    ramp = Volume(np.arange(5, dtype=np.int16).reshape(1, 5, 1, 1), np.eye(4))
    shifted = np.eye(4)
    shifted[0, 3] = 0.25
    np.testing.assert_allclose(
        resample(ramp, shifted, (4, 1, 1)).data[0, :, 0, 0], [0.25, 1.25, 2.25, 3.25]
    )


def test_a_single_slice_holds_across_half_its_thickness():
    flat = Volume(np.full((1, 4, 4, 1), 9, np.float32), np.diag([1, 1, 6.0, 1]))
    target = np.eye(4)
    target[2, 3] = -5
    for order in (0, 1, 3):
        column = resample(flat, target, (4, 4, 11), order=order, outside=-1).data[0, 0, 0]
        np.testing.assert_allclose(column[3:8], 9)
        np.testing.assert_allclose(column[[0, 1, 9, 10]], -1)


def test_resampling_onto_the_same_grid_returns_the_same():
    source = volume()
    assert resample(source, source.affine.copy(), source.shape) is source
    with pytest.raises(UsageError, match="order"):
        resample(source, np.eye(4), (2, 2, 2), order=7)


@settings(max_examples=60, deadline=None)
@given(
    angles=angles,
    shape=st.tuples(*[st.integers(1, 40)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 9)] * 3),
)
def test_a_new_spacing_keeps_the_box(angles, shape, spacing):
    source = Volume(np.zeros((1, *shape), np.uint8), turned(angles))
    affine, new = grid_with_spacing(source, spacing)
    for corner in np.ndindex(2, 2, 2):
        old_corner = source.affine @ [*(np.array(corner) * shape - 0.5), 1]
        new_corner = affine @ [*(np.array(corner) * new - 0.5), 1]
        np.testing.assert_allclose(new_corner, old_corner, atol=1e-6)
    extent = np.array(shape) * source.spacing
    wanted = np.maximum(1, extent / spacing)
    assert (np.abs(np.array(new) - wanted) <= 0.5 + 1e-9).all()


@pytest.mark.parametrize("spacing", [(1, 1, 0), (1, -1, 1), (1, 1), (1, 1, np.nan)])
def test_impossible_spacings_are_refused(spacing):
    with pytest.raises(UsageError, match="spacing"):
        grid_with_spacing(volume(), spacing)


def test_same_grid_measures_in_millimeters():
    affine = turned()
    near, far = affine.copy(), affine.copy()
    near[0, 3] += 0.005
    far[:3, :3] = turned((10.1, -20, 30))[:3, :3]
    assert same_grid(affine, (300, 300, 90), near, (300, 300, 90))
    assert not same_grid(affine, (300, 300, 90), far, (300, 300, 90))
    assert same_grid(affine, (1, 1, 1), far, (1, 1, 1))
    assert not same_grid(affine, (3, 3, 3), affine, (3, 3, 4))


def test_oblique_and_flat():
    assert is_oblique(turned((1, 0, 0)))
    assert not is_oblique(turned((0.1, 0, 0), flips=(-1, 1, -1)))
    assert axis_codes(flat_affine((0.5, 0.5, 1))) == "LPS"


def test_volumes_refuse_what_they_cannot_be():
    data = np.zeros((2, 3, 4, 5), np.float32)
    for arguments, words in (
        ((data[0], np.eye(4)), "axes"),
        ((data, np.eye(3)), "affine"),
        ((data, np.zeros((4, 4))), "invertible"),
        ((data, np.full((4, 4), np.nan)), "finite"),
    ):
        with pytest.raises(UsageError, match=words):
            Volume(*arguments)
    with pytest.raises(UsageError, match="names"):
        Volume(data, np.eye(4), channels=("a",))
    with pytest.raises(UsageError, match="integers"):
        LabelMap(data, np.eye(4))


def test_volume_properties():
    one = Volume(np.zeros((2, 3, 4, 1)), turned(spacing=(1, 2, 3)), modality="CT", unit="HU")
    assert one.shape == (3, 4, 1)
    np.testing.assert_allclose(one.spacing, (1, 2, 3))
    assert one.is_2d
    assert repr(one) == "Volume(2 channel(s), 3x4x1, 1x2x3 mm, float64, CT, HU)"
    named = Volume(one.data, one.affine, channels=("a", "b"))
    assert named.with_data(one.data[:1]).channels == ()
    with pytest.raises(UsageError, match="grid"):
        one.with_data(np.zeros((2, 3, 4, 2)))
