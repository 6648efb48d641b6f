# SPDX-License-Identifier: Apache-2.0
"""MINC 1 and 2 against nibabel: real values, per-slice scaling, geometry; MINC 2 written."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
from scipy.io import netcdf_file

from vesalius import io
from vesalius.errors import CorruptFile, GeometryError, UnsupportedFormat, UsageError
from vesalius.geometry import reorient
from vesalius.volume import Volume

COSINES = {
    "xspace": [0.8, 0.6, 0.0], "yspace": [-0.6, 0.8, 0.0], "zspace": [0.0, 0.0, 1.0],
}  # fmt: skip


def classic(path, stored, low, high, *, valid=None, sign="signed__", order="zyx", **dimension):
    with netcdf_file(path, "w") as file:
        names = [f"{letter}space" for letter in order]
        for name, length in zip(names, stored.shape, strict=True):
            file.createDimension(name, length)
            one = file.createVariable(name, "i", ())
            one.spacing, one.start, one.step = b"regular__", -7.5, 2.5
            one.direction_cosines = np.array(COSINES[name])
            for key, value in dimension.items():
                setattr(one, key, value)
        image = file.createVariable("image", stored.dtype.char, tuple(names))
        image.signtype = sign.encode()
        if valid is not None:
            image.valid_range = np.array(valid, float)
        image[:] = stored
        for name, values in (("image-min", low), ("image-max", high)):
            end = file.createVariable(name, "d", tuple(names[: np.ndim(values)]))
            end[...] = values
    return path


def assert_equals_nibabel(path: Path) -> None:
    other = nibabel.load(path)
    theirs = reorient(Volume(other.get_fdata()[None], other.affine))
    ours = reorient(io.read(path))
    scale = np.abs(theirs.data).max()
    np.testing.assert_allclose(ours.data, theirs.data, rtol=1e-6, atol=1e-7 * scale)
    np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-5)


@pytest.mark.parametrize("order", ["zyx", "xyz", "yxz"])
def test_minc_1_with_scaling_per_slice(tmp_path, rng, order):
    stored = rng.integers(0, 4096, (3, 4, 5)).astype(np.int16)
    low, high = rng.normal(0, 1, 3), rng.normal(100, 9, 3)
    path = classic(tmp_path / "a.mnc", stored, low, high, valid=(0, 4095), order=order)
    assert_equals_nibabel(path)
    packed = tmp_path / "b.mnc.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    np.testing.assert_array_equal(io.read(packed).data, io.read(path).data)


def test_values_outside_the_valid_range_are_clipped_as_nibabel_does(tmp_path):
    stored = np.array([[[0, 50, 4000]]], np.int16)
    path = classic(tmp_path / "a.mnc", stored, 0.0, 1.0, valid=(10, 110))
    np.testing.assert_allclose(io.read(path).data.ravel(), [0, 0.4, 1])
    assert_equals_nibabel(path)


def test_unsigned_bytes_with_identity_scaling_stay_integers(tmp_path):
    stored = np.arange(24, dtype=np.int8).reshape(2, 3, 4)
    path = classic(tmp_path / "a.mnc", stored, 0.0, 255.0, valid=(0, 255), sign="unsigned")
    found = io.read(path)
    assert found.data.dtype == np.uint8
    np.testing.assert_array_equal(found.data[0], stored.T)
    assert found.shape == (4, 3, 2)  # the file's fastest axis is i


def test_irregular_spacing_is_refused(tmp_path):
    path = classic(
        tmp_path / "a.mnc", np.zeros((2, 2, 2), np.int16), 0.0, 1.0, spacing=b"irregular"
    )
    with pytest.raises(GeometryError, match="irregular"):
        io.read(path)


def test_truncated_minc_1_is_corrupt(tmp_path):
    path = classic(tmp_path / "a.mnc", np.ones((9, 9, 9), np.int16), 0.0, 1.0)
    whole = path.read_bytes()
    for count in (20, 200, len(whole) - 900):
        path.write_bytes(whole[:count])
        with pytest.raises(CorruptFile):
            io.read(path)


def test_truncated_and_foreign_hdf5_are_corrupt(tmp_path):
    volume = Volume(np.arange(4096, dtype=np.int16).reshape(1, 16, 16, 16), np.eye(4))
    whole = io.write(volume, tmp_path / "a.mnc").read_bytes()
    (tmp_path / "cut.mnc").write_bytes(whole[: len(whole) // 2])
    with h5py.File(tmp_path / "other.mnc", "w") as file:
        file["voxels"] = np.zeros(3)
    for name in ("cut.mnc", "other.mnc"):
        with pytest.raises(CorruptFile) as raised:
            io.read(tmp_path / name)
        assert raised.value.path == str(tmp_path / name)


def test_voxels_in_other_files_are_refused(tmp_path):
    """HDF5 can point anywhere on the machine: neither links nor external storage are followed."""
    volume = Volume(np.ones((1, 4, 4, 4), np.int16), np.eye(4))
    io.write(volume, tmp_path / "secret.mnc")
    with h5py.File(io.write(volume, tmp_path / "link.mnc"), "a") as file:
        del file["minc-2.0/image/0/image"]
        file["minc-2.0/image/0/image"] = h5py.ExternalLink(
            str(tmp_path / "secret.mnc"), "minc-2.0/image/0/image"
        )
    with h5py.File(io.write(volume, tmp_path / "stored.mnc"), "a") as file:
        del file["minc-2.0/image/0/image"]
        file.create_dataset(
            "minc-2.0/image/0/image", (4, 4, 4), np.int16,
            external=[(str(tmp_path / "secret.mnc"), 0, 128)],
        )  # fmt: skip
    for name in ("link.mnc", "stored.mnc"):
        with pytest.raises(UnsupportedFormat, match="refused"):
            io.read(tmp_path / name)


@pytest.mark.parametrize(
    "options",
    [
        {"chunks": (2, 3, 4), "compression": "gzip"},
        {"chunks": (2, 3, 4), "compression": "gzip", "shuffle": True, "fletcher32": True},
        {"chunks": (5, 5, 5)},
        {},
    ],
)
def test_chunks_and_filters_of_hdf5(tmp_path, rng, options):
    stored = rng.integers(-900, 900, (5, 6, 7)).astype(np.int16)
    with h5py.File(io.write(Volume(stored[None], np.eye(4)), tmp_path / "a.mnc"), "a") as file:
        group = file["minc-2.0/image/0"]
        attributes = dict(group["image"].attrs)
        values = group["image"][()]
        del group["image"]
        image = group.create_dataset("image", data=values, **options)
        for name, value in attributes.items():
            image.attrs[name] = value
    np.testing.assert_array_equal(io.read(tmp_path / "a.mnc").data[0], stored)


def test_what_minc_cannot_hold_is_refused(tmp_path):
    with pytest.raises(UsageError, match="32 bits"):
        io.write(Volume(np.full((1, 2, 2, 2), 2**40), np.eye(4)), tmp_path / "a.mnc")
    with pytest.raises(UsageError, match=r"\.mnc"):
        io.write(Volume(np.zeros((1, 2, 2, 2)), np.eye(4)), tmp_path / "a.mnc.gz")


def test_constant_and_non_finite_floats_survive(tmp_path):
    for values in ([3.5, 3.5, 3.5, 3.5], [np.nan, 1, -np.inf, 2], [np.nan] * 4):
        data = np.array(values, np.float32).reshape(1, 4, 1, 1)
        found = io.read(io.write(Volume(data, np.eye(4)), tmp_path / "a.mnc"))
        np.testing.assert_array_equal(found.data, data)


def test_real_files_equal_nibabel(data):
    root = data("minc")
    files = [*root.glob("minc2/*.mnc"), *root.glob("n3/testing/*.mnc.gz")]
    assert len(files) >= 8
    for path in files:
        assert_equals_nibabel(path)


@pytest.mark.skipif(not shutil.which("voxeltoworld"), reason="minc-tools are not installed")
def test_minc_tools_read_what_is_written(tmp_path, rng):
    """The format's own library: a voxel's world position and value, and the whole range."""
    affine = np.eye(4)
    affine[:3, :3] = [[0.8, 1.2, 0], [-0.6, 1.6, 0], [0, 0, -3]]
    affine[:3, 3] = -40, 50, 60
    for dtype in (np.int16, np.float32):
        data = (rng.normal(0, 300, (1, 12, 10, 8))).astype(dtype)
        path = str(io.write(Volume(data, affine), tmp_path / "a.mnc"))

        def run(*command):
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            return np.array(done.stdout.split(), dtype=float)

        world = run("voxeltoworld", path, "1", "2", "3")
        np.testing.assert_allclose(world, (affine @ [3, 2, 1, 1])[:3], atol=1e-4)
        value = run("mincextract", "-start", "1,2,3", "-count", "1,1,1", path)
        np.testing.assert_allclose(value, data[0, 3, 2, 1], rtol=1e-6)
        ends = run("mincstats", "-quiet", "-min", "-max", path)
        np.testing.assert_allclose(ends, [data.min(), data.max()], rtol=1e-6)
