# SPDX-License-Identifier: Apache-2.0
"""NIfTI against nibabel: voxels, scaling, byte order, pairs, colors, which affine wins."""

from __future__ import annotations

import gzip

import nibabel
import numpy as np
import pytest

from vesalius import io
from vesalius.errors import CorruptFile, GeometryError, LimitExceeded, UnsupportedFormat
from vesalius.io.limits import Limits
from vesalius.volume import LabelMap

AFFINE = np.array([[-2.0, 0.1, 0, 40], [0.1, 2, 0.2, -30], [0, -0.2, 3, 5], [0, 0, 0, 1]])


def save(path, array, affine=AFFINE, kind=nibabel.Nifti1Image, **fields):
    made = kind(array, affine)
    for key, value in fields.items():
        made.header[key] = value
    nibabel.save(made, path)
    return path


def raw_file(path, array, *, order="<", slope=np.nan, inter=np.nan, sform=True, **fields):
    """A NIfTI-1 file written byte by byte, so that stored and scaled values are both known."""
    header = nibabel.Nifti1Header(endianness=order)
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape)
    if sform:
        header.set_sform(AFFINE, 1)
    header["magic"], header["vox_offset"] = b"n+1\0", 352
    header["scl_slope"], header["scl_inter"] = slope, inter
    for key, value in fields.items():
        header[key] = value
    voxels = array.astype(array.dtype.newbyteorder(order)).tobytes(order="F")
    path.write_bytes(header.binaryblock + bytes(4) + voxels)
    return path


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_stored_types_are_kept(tmp_path, rng, dtype, suffix):
    array = rng.integers(0, 100, (5, 4, 3)).astype(dtype)
    made = nibabel.Nifti1Image(array, AFFINE, dtype=array.dtype)
    nibabel.save(made, tmp_path / f"a{suffix}")
    found = io.read(tmp_path / f"a{suffix}")
    assert found.data.dtype == array.dtype
    np.testing.assert_array_equal(found.data[0], array)
    np.testing.assert_allclose(found.affine, AFFINE, atol=1e-6)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("slope", "inter"), [(2.5, -7), (0.1, 1000), (1, -1024), (1, 0), (0, 5)])
def test_scaling_and_byte_order_follow_nibabel(tmp_path, rng, order, slope, inter):
    array = rng.integers(-3000, 3000, (4, 5, 6)).astype(np.int16)
    path = raw_file(tmp_path / "a.nii", array, order=order, slope=slope, inter=inter)
    found = io.read(path).data[0]
    np.testing.assert_allclose(found, nibabel.load(path).get_fdata(), rtol=1e-6, atol=1e-4)
    assert found.dtype.isnative
    assert found.dtype == (np.int16 if slope == 0 or (slope, inter) == (1, 0) else np.float32)


def test_32_bit_integers_scale_in_double(tmp_path):
    array = np.array([[[2**31 - 1, 2**31 - 2]]], np.int32)
    path = raw_file(tmp_path / "a.nii", array, slope=0.5, inter=0)
    np.testing.assert_array_equal(io.read(path).data[0, 0, 0], [1073741823.5, 1073741823.0])


def test_sform_comes_before_qform_before_voxel_sizes(tmp_path):
    array = np.zeros((3, 3, 3), np.uint8)
    for sform, qform in ((2, 1), (0, 1), (0, 0), (1, 0)):
        made = nibabel.Nifti1Image(array, None)
        made.header.set_zooms((2, 3, 4))
        turned = np.array([[0, -3.0, 0, 9], [2, 0, 0, 8], [0, 0, 4, 7], [0, 0, 0, 1]])
        made.set_qform(turned, qform)
        made.set_sform(AFFINE, sform)
        nibabel.save(made, tmp_path / "a.nii")
        expected = nibabel.load(tmp_path / "a.nii").affine
        np.testing.assert_allclose(io.read(tmp_path / "a.nii").affine, expected, atol=1e-6)


def test_nifti_2_and_pairs(tmp_path, rng):
    array = rng.normal(size=(3, 4, 5)).astype(np.float32)
    save(tmp_path / "two.nii.gz", array, kind=nibabel.Nifti2Image)
    np.testing.assert_array_equal(io.read(tmp_path / "two.nii.gz").data[0], array)
    save(tmp_path / "pair.hdr", array, kind=nibabel.Nifti1Pair)
    for name in ("pair.hdr", "pair.img"):
        found = io.read(tmp_path / name)
        np.testing.assert_array_equal(found.data[0], array)
        assert len(found.source.files) == 2
    (tmp_path / "pair.img").unlink()
    with pytest.raises(CorruptFile, match=r"\.img"):
        io.read(tmp_path / "pair.hdr")


def test_further_axes_become_channels(tmp_path, rng):
    array = rng.integers(0, 9, (3, 4, 5, 2, 3)).astype(np.int16)
    found = io.read(save(tmp_path / "a.nii", array))
    assert found.data.shape == (6, 3, 4, 5)
    for t in range(2):
        for u in range(3):
            np.testing.assert_array_equal(found.data[u * 2 + t], array[..., t, u])


def test_one_and_two_axes_get_length_one(tmp_path, rng):
    array = rng.integers(0, 9, (3, 4)).astype(np.int16)
    found = io.read(save(tmp_path / "a.nii", array))
    assert found.is_2d
    np.testing.assert_array_equal(found.data[0, :, :, 0], array)


def test_rgb_voxels_become_three_channels(tmp_path, rng):
    colors = rng.integers(0, 255, (3, 4, 5, 3)).astype(np.uint8)
    array = colors.view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    found = io.read(save(tmp_path / "a.nii", array))
    assert found.channels == ("red", "green", "blue")
    np.testing.assert_array_equal(found.data, colors.transpose(3, 0, 1, 2))


def test_complex_voxels_are_refused_by_name(tmp_path):
    path = save(tmp_path / "a.nii", np.zeros((2, 2, 2), np.complex64))
    with pytest.raises(UnsupportedFormat, match="complex64"):
        io.read(path)


def test_units_other_than_millimeters_are_converted(tmp_path):
    path = raw_file(tmp_path / "a.nii", np.zeros((2, 2, 2), np.uint8), xyzt_units=3)
    np.testing.assert_allclose(io.read(path).affine[:3], AFFINE[:3] / 1000, atol=1e-9)


def test_label_intent_gives_a_label_map(tmp_path):
    path = save(tmp_path / "a.nii", np.ones((2, 2, 2), np.uint8), intent_code=1002)
    assert isinstance(io.read(path), LabelMap)


def test_voxel_sizes_of_old_writers_are_read_as_the_standard_says(tmp_path):
    path = tmp_path / "a.nii"
    for code in (0, 1):
        image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), None)
        image.header.set_zooms((2, 3, 4))
        image.set_sform(None, 0)
        image.set_qform(np.diag([2, 3, 4, 1.0]), code)
        nibabel.save(image, path)
        proper = io.read(path).affine
        raw = bytearray(path.read_bytes())
        for pixdim in ((0, 2, 3, 4), (1, -2, 3, 4), (1, -2, -3, -4)):
            raw[76:92] = np.array(pixdim, "<f4").tobytes()
            path.write_bytes(raw)
            np.testing.assert_allclose(io.read(path).affine, proper)


def test_voxels_inside_the_header_are_corrupt(tmp_path):
    path = tmp_path / "a.nii"
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.eye(4)), path)
    raw = bytearray(path.read_bytes())
    raw[108:112] = np.array(100, "<f4").tobytes()
    path.write_bytes(raw)
    with pytest.raises(CorruptFile, match="vox_offset 100 lies within the header"):
        io.read(path)


def test_a_singular_sform_is_refused(tmp_path):
    path = raw_file(tmp_path / "a.nii", np.zeros((2, 2, 2), np.uint8), srow_x=0)
    with pytest.raises(GeometryError, match="sform"):
        io.read(path)


@pytest.mark.parametrize("packed", [False, True])
def test_truncated_voxels_say_how_many_are_missing(tmp_path, packed):
    whole = save(tmp_path / "a.nii", np.zeros((10, 10, 10), np.int16)).read_bytes()
    path = tmp_path / ("b.nii.gz" if packed else "b.nii")
    path.write_bytes(gzip.compress(whole[:-500]) if packed else whole[:-500])
    with pytest.raises(CorruptFile, match="1,500 of 2,000 bytes") as raised:
        io.read(path)
    assert raised.value.path == str(path)
    assert raised.value.evidence == {"got": 1500, "expected": 2000}


def test_damaged_gzip_and_headers_are_corrupt(tmp_path, rng):
    noise = rng.integers(0, 30000, (16, 16, 16)).astype(np.int16)
    whole = save(tmp_path / "a.nii.gz", noise).read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "flip.nii.gz").write_bytes(whole[:500] + b"\xff" * 40 + whole[540:])
    (tmp_path / "short.nii").write_bytes(b"\x5c\1\0\0" + bytes(100))
    (tmp_path / "noise.nii").write_bytes(bytes(range(256)) * 4)
    raw_file(tmp_path / "dim.nii", np.zeros((2, 2, 2), np.uint8), dim=[3, -5, 2, 2, 1, 1, 1, 1])
    raw_file(tmp_path / "type.nii", np.zeros((2, 2, 2), np.uint8), datatype=77)
    raw_file(tmp_path / "offset.nii", np.zeros((2, 2, 2), np.uint8), vox_offset=-8)
    for name in ("cut.nii.gz", "flip.nii.gz", "short.nii", "noise.nii", "dim.nii", "type.nii",
                 "offset.nii"):  # fmt: skip
        with pytest.raises(CorruptFile) as raised:
            io.read(tmp_path / name)
        assert raised.value.path == str(tmp_path / name)


def test_limits_can_be_raised(tmp_path):
    path = save(tmp_path / "a.nii.gz", np.zeros((200, 200, 200), np.float64))
    with pytest.raises(LimitExceeded, match="max-image-memory"):
        io.read(path, limits=Limits(floor=1 << 20, ratio=1))
    assert io.read(path, limits=Limits(floor=128 << 20)).shape == (200, 200, 200)


def test_structure_names_of_the_real_label_map(data):
    labels = io.read_labels(data("ct_abdomen") / "example_seg.nii.gz")
    assert labels.names[1] == "spleen"
    assert labels.names[5] == "liver"
    assert 5 in np.unique(labels.data)


def test_real_files_equal_nibabel(data):
    root = data("ct_abdomen").parent
    names = ["ct_abdomen/example_ct.nii.gz", "ct_abdomen/example_mr_sm.nii.gz",
             "dicom/enhanced/Ref/Philips_WIP_B0_NS_801_e2_fieldmaphz.nii",
             "dicom/enhanced/Ref/Siemens_REST1_w_SMS_PF7-8_6.nii"]  # fmt: skip
    for name in names:
        found, other = io.read(root / name), nibabel.load(root / name)
        values = np.atleast_3d(other.get_fdata())
        values = np.moveaxis(values, 3, 0) if values.ndim == 4 else values[None]
        np.testing.assert_allclose(found.data, values, rtol=1e-6, atol=1e-4)
        np.testing.assert_allclose(found.affine, other.affine, atol=1e-5)
