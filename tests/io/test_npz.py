# SPDX-License-Identifier: Apache-2.0
"""NPZ in MedMNIST form against numpy.load; streaming, refusals, damage."""

from __future__ import annotations

import struct
import zipfile

import numpy as np
import pytest

from vesalius import io
from vesalius.errors import CorruptFile, UnsupportedFormat, UsageError
from vesalius.io import npz


@pytest.fixture
def arrays(tmp_path, rng):
    made = {
        "train_images": rng.integers(0, 255, (6, 5, 4)).astype(np.uint8),
        "val_images": rng.integers(0, 255, (3, 5, 4, 3)).astype(np.uint8),
        "test_images": rng.normal(0, 1, (2, 7, 5, 6)).astype(">f4"),
        "train_labels": np.arange(6)[:, None],
    }
    np.savez_compressed(tmp_path / "a.npz", **made)
    return tmp_path / "a.npz", made


def test_members_are_listed_without_reading(arrays):
    path, made = arrays
    assert {m.name: m.shape for m in npz.members(path)} == {n: a.shape for n, a in made.items()}
    assert len(list(npz.image_members(path))) == 11


@pytest.mark.parametrize("kept", [True, False])
def test_each_image_equals_numpy(arrays, monkeypatch, kept):
    path, made = arrays
    if not kept:
        monkeypatch.setattr(npz, "_KEPT_BYTES", 0)
    for index in (0, 3, 1, 5):
        found = io.read(path, member=f"train_images[{index}]")
        np.testing.assert_array_equal(found.data[0, :, :, 0], made["train_images"][index].T)
        assert not found.calibrated
    color = io.read(path, member="val_images[2]")
    np.testing.assert_array_equal(color.data[..., 0], made["val_images"][2].transpose(2, 1, 0))
    solid = io.read(path, member="test_images[1]")
    assert solid.shape == (6, 5, 7)
    np.testing.assert_array_equal(solid.data[0], made["test_images"][1].transpose(2, 1, 0))
    assert solid.data.dtype.isnative


def test_changing_an_image_does_not_change_the_file_or_the_next_read(arrays):
    path, made = arrays
    io.read(path, member="train_images[0]").data[:] = 0
    found = io.read(path, member="train_images[0]")
    np.testing.assert_array_equal(found.data[0, :, :, 0], made["train_images"][0].T)


def test_a_file_that_changed_is_read_anew(arrays):
    path, made = arrays
    io.read(path, member="train_images[0]")
    np.savez(path, train_images=made["train_images"] // 2)
    found = io.read(path, member="train_images[0]")
    np.testing.assert_array_equal(found.data[0, :, :, 0], made["train_images"][0].T // 2)


def test_read_all_yields_every_image_once(arrays):
    path, _ = arrays
    found = list(io.read_all(path))
    assert len(found) == 11
    assert len({v.source.member for v in found}) == 11


def test_wrong_members_say_what_there_is(arrays):
    path, _ = arrays
    for member, words in (
        ("train_image[0]", "Did you mean 'train_images'"),
        ("train_images[6]", "0 to 5"),
        ("", "train_images"),
        ("train_images", "array\\[index\\]"),
    ):
        with pytest.raises(UsageError, match=words):
            io.read(path, member=member)
    with pytest.raises(UnsupportedFormat, match="no images"):
        io.read(path, member="train_labels[0]")


def test_objects_are_never_unpickled(tmp_path):
    array = np.empty((1, 2, 2), object)
    np.savez(tmp_path / "a.npz", train_images=array)
    with pytest.raises(UnsupportedFormat, match="unpickled"):
        io.read(tmp_path / "a.npz", member="train_images[0]")


def write_member(path, content, name="train_images.npy"):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)


def npy(text, body=b""):
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode() + body


@pytest.mark.parametrize(
    "content",
    [
        b"not an array",
        npy("{'descr': '|u1', 'fortran_order': False, 'shape': (2, -3, 4)}"),
        npy("{'descr': '|u1', 'shape': (2, 3, 4)}"),
        npy("__import__('os').system('true')"),
        npy("(" * 3000),
        npy("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3, 4)}", bytes(15)),
        b"\x93NUMPY\2\0" + struct.pack("<I", 2**31),
    ],
)
def test_damaged_arrays_are_corrupt(tmp_path, content):
    write_member(tmp_path / "a.npz", content)
    with pytest.raises(CorruptFile):
        io.read(tmp_path / "a.npz", member="train_images[1]")


def test_a_truncated_file_is_corrupt(arrays):
    path, _ = arrays
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CorruptFile, match="zip"):
        io.read(path, member="train_images[0]")


def test_real_sets_equal_numpy(data):
    for name in ("breastmnist", "retinamnist", "adrenalmnist3d"):
        path = data("medmnist") / f"{name}.npz"
        with np.load(path) as arrays:
            images = arrays["val_images"]
        for index in (0, len(images) - 1):
            found = io.read(path, member=f"val_images[{index}]").data
            expected = images[index]
            if expected.ndim == 3 and expected.shape[-1] == 3:
                np.testing.assert_array_equal(found[..., 0], expected.transpose(2, 1, 0))
            else:
                np.testing.assert_array_equal(np.squeeze(found), expected.T)
