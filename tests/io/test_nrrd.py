# SPDX-License-Identifier: Apache-2.0
"""NRRD and MetaImage against ITK; encodings, spaces, Slicer's segments, refusals."""

from __future__ import annotations

import bz2
import gzip
import zlib

import numpy as np
import pytest
import SimpleITK

from vesalius import io
from vesalius.errors import CorruptFile, GeometryError, UnsupportedFormat, UsageError
from vesalius.geometry import LPS_TO_RAS
from vesalius.volume import LabelMap, Volume

DIRECTIONS = "(1.8,0.6,0) (-0.6,1.8,0.1) (0,-0.1,3)"
ARRAY = np.arange(60, dtype=np.int16).reshape(5, 4, 3)  # (k, j, i)


def header(**fields):
    made = {
        "type": "short", "dimension": "3", "space": "left-posterior-superior", "sizes": "3 4 5",
        "space directions": DIRECTIONS, "endian": "little", "encoding": "raw",
        "space origin": "(10,-20,30)",
    } | {key.replace("_", " "): value for key, value in fields.items()}  # fmt: skip
    lines = [f"{key}: {value}" for key, value in made.items() if value is not None]
    return ("NRRD0005\n# comment\n" + "\n".join(lines) + "\n").encode()


def itk(path):
    image = SimpleITK.ReadImage(str(path))
    values = SimpleITK.GetArrayFromImage(image)
    values = values if image.GetNumberOfComponentsPerPixel() > 1 else values[..., None]
    rank = image.GetDimension()
    affine = np.eye(4)
    affine[:rank, :rank] = np.reshape(image.GetDirection(), (rank, rank)) * image.GetSpacing()
    affine[:rank, 3] = image.GetOrigin()
    values = values if rank == 3 else values[None]
    return values.transpose(3, 2, 1, 0), LPS_TO_RAS @ affine


def assert_equals_itk(path):
    ours = io.read(path)
    data, affine = itk(path)
    np.testing.assert_array_equal(ours.data, data)
    np.testing.assert_allclose(ours.affine, affine, atol=1e-5)
    return ours


@pytest.mark.parametrize(
    "space", ["left-posterior-superior", "RAS", "left-anterior-superior", "LPS"]
)
def test_spaces(tmp_path, space):
    path = tmp_path / "a.nrrd"
    path.write_bytes(header(space=space) + b"\n" + ARRAY.tobytes())
    ours = assert_equals_itk(path)
    np.testing.assert_array_equal(ours.data[0].T, ARRAY)


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("raw", bytes), ("gzip", gzip.compress), ("bz2", bz2.compress)],
)
@pytest.mark.parametrize("endian", ["little", "big"])
@pytest.mark.parametrize("detached", [False, True])
def test_encodings(tmp_path, encoding, pack, endian, detached):
    voxels = pack(ARRAY.astype("<i2" if endian == "little" else ">i2").tobytes())
    path = tmp_path / ("a.nhdr" if detached else "a.nrrd")
    if detached:
        (tmp_path / "a.raw").write_bytes(voxels)
        path.write_bytes(header(encoding=encoding, endian=endian, data_file="a.raw"))
    else:
        path.write_bytes(header(encoding=encoding, endian=endian) + b"\n" + voxels)
    found = io.read(path)
    np.testing.assert_array_equal(found.data[0].T, ARRAY)
    assert len(found.source.files) == 1 + detached
    if encoding != "bz2":  # ITK is built without bzip2
        assert_equals_itk(path)


def test_text_encoding(tmp_path):
    path = tmp_path / "a.nrrd"
    text = " ".join(str(v) for v in ARRAY.ravel())
    path.write_bytes(header(encoding="ascii") + b"\n" + text.encode())
    np.testing.assert_array_equal(io.read(path).data[0].T, ARRAY)
    path.write_bytes(header(encoding="ascii") + b"\n" + text.encode()[:-9])
    with pytest.raises(CorruptFile, match="values"):
        io.read(path)


def test_byte_skip_from_the_end(tmp_path):
    (tmp_path / "a.raw").write_bytes(b"unknown header" + ARRAY.tobytes())
    path = tmp_path / "a.nhdr"
    for skip in ("-1", "14"):
        path.write_bytes(header(data_file="a.raw", byte_skip=skip))
        np.testing.assert_array_equal(io.read(path).data[0].T, ARRAY)


@pytest.mark.parametrize("first", [True, False])
def test_axes_without_direction_become_channels(tmp_path, first):
    both = np.stack([ARRAY, ARRAY + 100])
    stored = np.moveaxis(both, 0, 3) if first else both
    path = tmp_path / "a.nrrd"
    path.write_bytes(
        header(
            dimension=4,
            sizes="2 3 4 5" if first else "3 4 5 2",
            space_directions=f"none {DIRECTIONS}" if first else f"{DIRECTIONS} none",
            kinds="list domain domain domain" if first else "domain domain domain list",
        )
        + b"\n"
        + stored.tobytes()
    )
    found = io.read(path)
    np.testing.assert_array_equal(found.data.transpose(0, 3, 2, 1), both)


def test_axis_mins_place_the_first_sample(tmp_path):
    path = tmp_path / "a.nrrd"
    fields = {"space": None, "space_directions": None, "space_origin": None, "spacings": "2 3 4"}
    for centers in (None, "cell cell cell", "node node node"):
        packed = header(**fields, axis_mins="10 20 30", centers=centers)
        path.write_bytes(packed + b"\n" + ARRAY.tobytes())
        assert_equals_itk(path)


def test_a_time_axis_and_an_axis_of_nan_become_channels(tmp_path):
    path = tmp_path / "a.nrrd"
    two = np.stack([ARRAY, ARRAY + 100])  # (time, k, j, i)
    fields = {"dimension": "4", "sizes": "3 4 5 2"}
    plain = header(
        **fields, space=None, space_directions=None, space_origin=None,
        kinds="space space space time", spacings="2 3 4 1",
    )  # fmt: skip
    path.write_bytes(plain + b"\n" + two.tobytes())
    ours = io.read(path)
    np.testing.assert_array_equal(ours.data.transpose(0, 3, 2, 1), two)
    assert ours.spacing == (2, 3, 4)
    path.write_bytes(
        header(**fields, space_directions=DIRECTIONS + " (nan,nan,nan)") + b"\n" + two.tobytes()
    )
    np.testing.assert_array_equal(io.read(path).data.transpose(0, 3, 2, 1), two)


def test_a_segment_without_a_number_is_corrupt(tmp_path):
    path = tmp_path / "a.seg.nrrd"
    for key in ("LabelValue", "Layer"):
        keys = f"Segment0_ID:=liver\nSegment0_{key}:=one\n".encode()
        path.write_bytes(header() + keys + b"\n" + ARRAY.tobytes())
        with pytest.raises(CorruptFile, match=f"Segment0_{key} must be a whole number"):
            io.read(path)


def test_flat_images_and_missing_geometry(tmp_path):
    path = tmp_path / "a.nrrd"
    path.write_bytes(
        header(dimension=2, sizes="12 5", space=None, space_directions=None, space_origin=None)
        + b"\n" + ARRAY.tobytes()
    )  # fmt: skip
    found = assert_equals_itk(path)
    assert found.is_2d
    assert not found.calibrated


def test_slicer_segments_name_the_labels_and_reused_values_are_renumbered(tmp_path):
    layers = np.zeros((2, 5, 4, 3), np.uint8)
    layers[0, 1], layers[1, 1:3], layers[0, 3] = 1, 1, 2
    keys = "".join(
        f"Segment{n}_ID:=S{n}\nSegment{n}_Name:={name}\nSegment{n}_LabelValue:={value}\n"
        f"Segment{n}_Layer:={layer}\n"
        for n, (name, value, layer) in enumerate(
            [("liver", 1, 0), ("tumor", 1, 1), ("spleen", 2, 0)]
        )
    )
    path = tmp_path / "a.seg.nrrd"
    path.write_bytes(
        header(
            type="uchar", dimension=4, sizes="2 3 4 5", space_directions=f"none {DIRECTIONS}"
        )
        + keys.encode() + b"\n" + np.moveaxis(layers, 0, 3).tobytes()
    )  # fmt: skip
    found = io.read_labels(path)
    assert isinstance(found, LabelMap)
    assert dict(found.names) == {1: "liver", 2: "tumor", 3: "spleen"}
    planes = found.data.transpose(0, 3, 2, 1)
    np.testing.assert_array_equal(planes[0], layers[0] + (layers[0] == 2))
    np.testing.assert_array_equal(planes[1], layers[1] * 2)


def test_data_files_outside_the_folder_are_refused(tmp_path):
    (tmp_path / "secret.raw").write_bytes(ARRAY.tobytes())
    folder = tmp_path / "inside"
    folder.mkdir()
    path = folder / "a.nhdr"
    for name in ("../secret.raw", str(tmp_path / "secret.raw")):
        path.write_bytes(header(data_file=name))
        with pytest.raises(CorruptFile, match="outside"):
            io.read(path)
    (folder / "link.raw").symlink_to(tmp_path / "secret.raw")
    path.write_bytes(header(data_file="link.raw"))
    with pytest.raises(CorruptFile, match="outside"):
        io.read(path)
    path.write_bytes(header(data_file="absent.raw"))
    with pytest.raises(CorruptFile, match=r"absent\.raw"):
        io.read(path)
    path.write_bytes(header(data_file="LIST"))
    with pytest.raises(UnsupportedFormat, match="several files"):
        io.read(path)
    mhd = folder / "a.mhd"
    mhd.write_text(META.format(data="../secret.raw"))
    with pytest.raises(CorruptFile, match="outside"):
        io.read(mhd)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"type": "block"}, UnsupportedFormat),
        ({"encoding": "hex"}, UnsupportedFormat),
        ({"space": "3D-left-handed"}, GeometryError),
        ({"space_directions": "(1,0,0) (1,0,0) (0,0,1)"}, GeometryError),
        ({"space_directions": "(1,0,0) (a,0,0) (0,0,1)"}, CorruptFile),
        ({"space_directions": "(1,0,0)"}, CorruptFile),
        ({"sizes": "3 4 -5"}, CorruptFile),
        ({"sizes": "3 4"}, CorruptFile),
        ({"sizes": "3 4 six"}, CorruptFile),
        ({"sizes": "3 4 6"}, CorruptFile),
        ({"byte_skip": "two"}, CorruptFile),
        ({"line_skip": "1.5"}, CorruptFile),
        ({"space": None, "space_directions": None, "spacings": "a b c"}, CorruptFile),
        ({"data_file": "LIST\na.raw\nb.raw"}, UnsupportedFormat),
    ],
)
def test_damaged_headers_are_named(tmp_path, fields, error):
    path = tmp_path / "a.nrrd"
    path.write_bytes(header(**fields) + b"\n" + ARRAY.tobytes())
    with pytest.raises(error) as raised:
        io.read(path)
    assert raised.value.path == str(path)


META = (
    "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
    "TransformMatrix = 0.8 0.6 0 -0.6 0.8 0 0 0 1\nOffset = 10 -20 30\n"
    "ElementSpacing = 2 3 4\nDimSize = 3 4 5\nElementType = MET_SHORT\nElementDataFile = {data}\n"
)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("local", [False, True])
def test_metaimage_equals_itk(tmp_path, packed, local):
    voxels = zlib.compress(ARRAY.tobytes()) if packed else ARRAY.tobytes()
    text = META.format(data="LOCAL" if local else "a.raw")
    if packed:
        line = f"CompressedData = True\nCompressedDataSize = {len(voxels)}\n"
        text = text.replace("DimSize", line + "DimSize")
    path = tmp_path / ("a.mha" if local else "a.mhd")
    path.write_bytes(text.encode() + (voxels if local else b""))
    if not local:
        (tmp_path / "a.raw").write_bytes(voxels)
    ours = assert_equals_itk(path)
    np.testing.assert_array_equal(ours.data[0].T, ARRAY)


@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd", ".nhdr"])
@pytest.mark.parametrize("components", [1, 3])
@pytest.mark.parametrize("packed", [False, True])
def test_files_that_itk_writes(tmp_path, rng, suffix, components, packed):
    values = rng.integers(0, 200, (5, 4, 3, components)).astype(np.uint8)
    image = SimpleITK.GetImageFromArray(
        values if components > 1 else values[..., 0], isVector=components > 1
    )
    image.SetSpacing((1.5, 2, 3))
    image.SetOrigin((4, -5, 6))
    image.SetDirection((0, -1, 0, 0.6, 0, -0.8, 0.8, 0, 0.6))
    SimpleITK.WriteImage(image, str(tmp_path / f"a{suffix}"), packed)
    assert_equals_itk(tmp_path / f"a{suffix}")


def test_metaimage_refusals(tmp_path):
    path = tmp_path / "a.mha"
    text = META.format(data="LOCAL")
    for old, new, error in (
        ("MET_SHORT", "MET_ASCII", UnsupportedFormat),
        ("BinaryData = True", "BinaryData = False", UnsupportedFormat),
        ("DimSize = 3 4 5", "DimSize = 3 4", CorruptFile),
        ("DimSize = 3 4 5", "DimSize = 3 4 0", CorruptFile),
        ("DimSize", "ElementNumberOfChannels = x\nDimSize", CorruptFile),
        ("DimSize", "ElementNumberOfChannels = inf\nDimSize", CorruptFile),
        ("DimSize", "HeaderSize = all\nDimSize", CorruptFile),
        ("ElementSpacing = 2 3 4", "ElementSpacing = 2 0 4", GeometryError),
        ("DimSize = 3 4 5", "DimSize = 3 4 7", CorruptFile),
    ):
        path.write_bytes(text.replace(old, new).encode() + ARRAY.tobytes())
        with pytest.raises(error) as raised:
            io.read(path)
        assert raised.value.path == str(path)


def test_wrong_suffixes_and_types_are_refused(tmp_path):
    volume = Volume(np.zeros((1, 2, 2, 2), np.complex64), np.eye(4))
    for name in ("a.nrrd", "a.mha"):
        with pytest.raises(UsageError, match="complex64"):
            io.write(volume, tmp_path / name)
    good = volume.with_data(np.zeros((1, 2, 2, 2), np.uint8))
    for name, format_name in (("a.nhdr", "nrrd"), ("a.mhd", "metaimage"), ("a.hdr", "nifti")):
        with pytest.raises(UsageError):
            io.write(good, tmp_path / name, format=format_name)
