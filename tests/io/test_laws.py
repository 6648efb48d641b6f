# SPDX-License-Identifier: Apache-2.0
"""Law 1: read, write, read keeps voxels and their world positions, in every written format."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import SimpleITK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from vesalius import io
from vesalius.errors import UsageError
from vesalius.geometry import LPS_TO_RAS, reorient
from vesalius.volume import LabelMap, Volume

SUFFIXES = [".nii", ".nii.gz", ".nrrd", ".mnc", ".mha"]
DTYPES = ["u1", "i1", "i2", "u2", "i4", "f4", "f8", "?"]


@st.composite
def grids(draw):
    """An affine with any turn, flip and anisotropy, and a shape that may be a single slice."""
    turn = Rotation.from_euler(
        "xyz", [draw(st.floats(-180, 180)) for _ in range(3)], degrees=True
    ).as_matrix()
    turn = turn[:, draw(st.permutations([0, 1, 2]))]
    flips = [draw(st.sampled_from([1, -1])) for _ in range(3)]
    spacing = [draw(st.floats(0.2, 6)) for _ in range(3)]
    affine = np.eye(4)
    affine[:3, :3] = turn * flips * spacing
    affine[:3, 3] = [draw(st.floats(-600, 600)) for _ in range(3)]
    shape = tuple(draw(st.integers(1, 6)) for _ in range(3))
    return affine, shape


def image(affine, shape, dtype, channels=1, seed=0):
    random = np.random.default_rng(seed)
    values = random.integers(0, 2 if dtype == "?" else 120, (channels, *shape))
    if dtype in ("f4", "f8"):
        values = random.normal(0, 1e4, (channels, *shape))
    return Volume(values.astype(dtype), affine)


def positions(volume):
    corners = np.indices((2, 2, 2)).reshape(3, -1) * (np.array(volume.shape)[:, None] - 1)
    return volume.affine[:3, :3] @ corners + volume.affine[:3, 3:]


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(grid=grids(), dtype=st.sampled_from(DTYPES), channels=st.integers(1, 3))
def test_voxels_and_positions_survive(tmp_path, suffix, grid, dtype, channels):
    first = image(*grid, dtype, channels)
    path = io.write(first, tmp_path / f"image{suffix}")
    second = io.read(path)
    assert second.data.shape == first.data.shape
    np.testing.assert_array_equal(second.data, first.data)
    assert np.abs(positions(second) - positions(first)).max() < 1e-3
    third = io.read(io.write(second, tmp_path / f"again{suffix}"))
    np.testing.assert_array_equal(third.data, first.data)
    assert np.abs(positions(third) - positions(first)).max() < 1e-3


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mnc", ".mha"])
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(grid=grids(), dtype=st.sampled_from(["u1", "i2", "f4"]))
def test_independent_readers_agree_with_what_is_written(tmp_path, suffix, grid, dtype):
    ours = image(*grid, dtype)
    path = str(io.write(ours, tmp_path / f"image{suffix}"))
    if suffix in (".nii.gz", ".mnc"):
        theirs = nibabel.load(path)
        other = Volume(np.asarray(theirs.dataobj)[None], theirs.affine)
    else:
        theirs = SimpleITK.ReadImage(path)
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(theirs.GetDirection(), (3, 3)) * theirs.GetSpacing()
        affine[:3, 3] = theirs.GetOrigin()
        other = Volume(SimpleITK.GetArrayFromImage(theirs).T[None], LPS_TO_RAS @ affine)
    ours, other = reorient(ours), reorient(other)
    np.testing.assert_allclose(other.data, ours.data, rtol=1e-6)
    assert np.abs(positions(other) - positions(ours)).max() < 1e-3


@pytest.mark.parametrize("suffix", SUFFIXES[:4])
def test_label_maps_keep_their_names(tmp_path, suffix):
    data = np.zeros((1, 4, 3, 2), np.uint8)
    data[0, 1], data[0, 2, 1] = 1, 5
    names = {1: "spleen", 5: "liver, left lobe"}
    labels = LabelMap(data, np.diag([-1.0, 2, 3, 1]), names=names)
    path = io.write(labels, tmp_path / f"labels{suffix}")
    found = io.read_labels(path)
    assert dict(found.names) == names
    np.testing.assert_array_equal(found.data, data)
    assert isinstance(io.read(path), LabelMap)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "image.nii"
    io.write(image(np.eye(4), (2, 2, 2), "u1"), path)
    before = path.read_bytes()
    with pytest.raises(UsageError, match="complex"):
        io.write(Volume(np.zeros((1, 2, 2, 2), np.complex64), np.eye(4)), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["image.nii"]


def test_written_files_do_not_depend_on_the_clock(tmp_path):
    volume = image(np.eye(4), (5, 4, 3), "i2")
    for suffix in (".nii.gz", ".nrrd", ".mha"):
        one = io.write(volume, tmp_path / f"a{suffix}").read_bytes()
        assert io.write(volume, tmp_path / f"b{suffix}").read_bytes() == one
