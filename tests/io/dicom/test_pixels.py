# SPDX-License-Identifier: Apache-2.0
"""Pixel decoding against pydicom, GDCM and the arrays that were written."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import generate_uid

from vesalius.errors import CorruptFile, LimitExceeded, UnsupportedFormat, UsageError
from vesalius.io.dicom.header import read_header
from vesalius.io.dicom.pixels import decode, embedded_overlay

IMPLICIT, EXPLICIT, BIG = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
)
DEFLATED = "1.2.840.10008.1.2.1.99"
RLE, BASELINE = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.50"
JPEG_LS, J2K = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"


def dataset(values: np.ndarray, *, stored: int | None = None, high: int | None = None,
            photometric: str | None = None, planar: int = 0) -> pydicom.Dataset:  # fmt: skip
    """Return a data set of `values` (frames, rows, columns, samples), little endian, native."""
    frames, rows, columns, samples = values.shape
    ds = pydicom.Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = EXPLICIT
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.Modality = "OT"
    ds.SamplesPerPixel = samples
    ds.PhotometricInterpretation = photometric or ("RGB" if samples == 3 else "MONOCHROME2")
    if samples > 1:
        ds.PlanarConfiguration = planar
    ds.NumberOfFrames = frames
    ds.Rows, ds.Columns = rows, columns
    ds.BitsAllocated = 8 * values.dtype.itemsize
    ds.BitsStored = stored or ds.BitsAllocated
    ds.HighBit = ds.BitsStored - 1 if high is None else high
    ds.PixelRepresentation = int(values.dtype.kind == "i")
    ordered = np.moveaxis(values, -1, 1) if planar else values
    ds.PixelData = np.ascontiguousarray(ordered).tobytes()
    if len(ds.PixelData) % 2:
        ds.PixelData += b"\0"
    ds["PixelData"].VR = "OB" if ds.BitsAllocated == 8 else "OW"
    return ds


def save(ds: pydicom.Dataset, path: Path, syntax: str = EXPLICIT) -> Path:
    if syntax == J2K:
        import openjpeg

        options = {
            "rows": ds.Rows,
            "columns": ds.Columns,
            "samples_per_pixel": ds.SamplesPerPixel,
            "bits_stored": ds.BitsStored,
            "pixel_representation": ds.PixelRepresentation,
            "photometric_interpretation": ds.PhotometricInterpretation,
        }
        frame = ds.Rows * ds.Columns * ds.SamplesPerPixel * ds.BitsAllocated // 8
        frames = [ds.PixelData[n * frame :][:frame] for n in range(int(ds.NumberOfFrames))]
        ds.PixelData = encapsulate([openjpeg.encode_pixel_data(raw, **options) for raw in frames])
    elif syntax in (RLE, JPEG_LS):
        # GDCM, which pydicom would take first, aborts the process on some of these images.
        plugin = "pydicom" if syntax == RLE else "pyjpegls"
        ds.compress(syntax, encoding_plugin=plugin, generate_instance_uid=False)
    elif syntax == BIG:
        data = np.frombuffer(ds.PixelData, f"<u{ds.BitsAllocated // 8}")
        ds.PixelData = data.byteswap().tobytes()
    ds.file_meta.TransferSyntaxUID = syntax
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom on writing what a test breaks on purpose
        pydicom.dcmwrite(
            path,
            ds,
            implicit_vr=syntax == IMPLICIT,
            little_endian=syntax != BIG,
            enforce_file_format=True,
        )
    return path


def read(path: Path, **options: object) -> np.ndarray:
    return decode(path, read_header(path), **options)  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(
    syntax=st.sampled_from([IMPLICIT, EXPLICIT, BIG, DEFLATED, RLE, JPEG_LS, J2K]),
    form=st.sampled_from([("u1", 8, 1), ("u1", 8, 3), ("u2", 12, 1), ("u2", 16, 1), ("i2", 16, 1),
                          ("i2", 12, 1)]),
    shape=st.tuples(st.integers(1, 3), st.integers(2, 17), st.integers(2, 17)),
    planar=st.booleans(),
    seed=st.integers(0, 2**31),
)  # fmt: skip
def test_lossless_syntaxes_give_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory,
    syntax: str,
    form: tuple[str, int, int],
    shape: tuple[int, int, int],
    planar: bool,
    seed: int,
) -> None:
    kind, stored, samples = form
    if syntax in (JPEG_LS, J2K):  # what their encoders need at least
        shape = (shape[0], shape[1] + 31, shape[2] + 31)
    low, high = (-(1 << stored - 1), 1 << stored - 1) if kind[0] == "i" else (0, 1 << stored)
    values = np.random.default_rng(seed).integers(low, high, (*shape, samples)).astype(kind)
    ds = dataset(values, stored=stored, planar=int(planar and samples > 1 and syntax == EXPLICIT))
    path = save(ds, tmp_path_factory.mktemp("dicom") / "a.dcm", syntax)
    found = read(path)
    assert found.dtype == values.dtype
    assert np.array_equal(found, values)
    last = shape[0] - 1
    assert np.array_equal(read(path, frames=[last, 0]), values[[last, 0]])
    assert np.array_equal(decode(path.read_bytes(), read_header(path)), values)


@settings(max_examples=20, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 99),
)
def test_bits_are_unpacked_across_frames(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, int, int], seed: int
) -> None:
    bits = np.random.default_rng(seed).integers(0, 2, shape).astype(np.uint8)
    ds = dataset(bits[..., None])
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 1, 1, 0
    packed = np.packbits(bits.ravel(), bitorder="little").tobytes()
    ds.PixelData = packed + b"\0" * (len(packed) % 2)
    path = save(ds, tmp_path_factory.mktemp("dicom") / "a.dcm")
    assert np.array_equal(read(path)[..., 0], bits)
    for n in range(shape[0]):
        assert np.array_equal(read(path, frames=[n])[0, ..., 0], bits[n])


def test_bits_above_the_stored_ones_are_an_overlay_and_not_a_value(tmp_path: Path) -> None:
    values = np.array([[-2048, -1], [0, 2047]], np.int16)[None, ..., None]
    raw = (values.view(np.uint16) & 0x0FFF) | np.array([[0x8000, 0], [0x8000, 0]], np.uint16)[
        None, ..., None
    ]
    ds = dataset(values, stored=12)
    ds.PixelData = raw.tobytes()
    path = save(ds, tmp_path / "a.dcm")
    assert np.array_equal(read(path), values)
    header = read_header(path)
    header.bits_stored, header.high_bit = 16, 15
    mask = embedded_overlay(decode(path, header), 15)
    assert mask[0, ..., 0].tolist() == [[True, False], [True, False]]


def test_values_may_lie_above_the_lowest_bit(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.uint16).reshape(1, 2, 3, 1)
    ds = dataset(values, stored=12, high=15)
    ds.PixelData = (values << 4).tobytes()
    assert np.array_equal(read(save(ds, tmp_path / "a.dcm")), values)


def test_eight_bit_words_in_big_endian(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.uint8).reshape(1, 2, 3, 1)
    ds = dataset(values)
    ds["PixelData"].VR = "OW"
    ds.PixelData = np.frombuffer(ds.PixelData, "<u2").byteswap().tobytes()
    ds.file_meta.TransferSyntaxUID = BIG
    pydicom.dcmwrite(
        tmp_path / "a.dcm", ds, implicit_vr=False, little_endian=False, enforce_file_format=True
    )
    assert np.array_equal(read(tmp_path / "a.dcm"), values)


def test_eight_bit_words_in_big_endian_with_odd_frames(tmp_path: Path) -> None:
    values = np.arange(45, dtype=np.uint8).reshape(5, 3, 3, 1)
    ds = dataset(values)
    ds.PixelData = np.frombuffer(values.tobytes() + b"\0", "<u2").byteswap().tobytes()
    ds["PixelData"].VR = "OW"
    ds.file_meta.TransferSyntaxUID = BIG
    path = tmp_path / "a.dcm"
    pydicom.dcmwrite(path, ds, implicit_vr=False, little_endian=False, enforce_file_format=True)
    assert np.array_equal(read(path), values)
    some = decode(path, read_header(path), frames=[3, 0, 4])
    assert np.array_equal(some, values[[3, 0, 4]])


@pytest.mark.parametrize("subsampling", [0, 1])
@pytest.mark.parametrize("photometric", ["YBR_FULL", "YBR_FULL_422"])
def test_color_jpeg_is_within_two_levels_of_gdcm(
    tmp_path: Path, photometric: str, subsampling: int
) -> None:
    from PIL import Image

    x, y = np.meshgrid(np.linspace(0, 255, 48), np.linspace(0, 255, 32))
    rgb = np.stack([x, y, 255 - x], -1).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=95, subsampling=subsampling)
    ds = dataset(rgb[None], photometric=photometric)
    ds.PixelData = encapsulate([buffer.getvalue()])
    path = save(ds, tmp_path / "a.dcm", BASELINE)
    found = read(path)[0]
    independent = pydicom.pixels.pixel_array(path, decoding_plugin="gdcm")
    assert np.abs(found.astype(int) - independent.astype(int)).max() <= 2
    assert np.abs(found.astype(int) - rgb).mean() < 3


def test_rgb_jpeg_without_a_marker_is_not_transformed(tmp_path: Path) -> None:
    from PIL import Image

    planes = np.random.default_rng(0).integers(60, 200, (3, 4, 4)).astype(np.uint8)
    raw = np.kron(planes.transpose(1, 2, 0), np.ones((8, 8, 1), np.uint8))  # smooth blocks
    buffer = io.BytesIO()
    Image.fromarray(raw, "YCbCr").save(buffer, "JPEG", quality=98, subsampling=0)
    data = buffer.getvalue()
    assert data[2:4] == b"\xff\xe0"
    data = data[:2] + data[4 + int.from_bytes(data[4:6], "big") :]  # without JFIF
    ds = dataset(raw[None], photometric="RGB")
    ds.PixelData = encapsulate([data])
    found = read(save(ds, tmp_path / "a.dcm", BASELINE))[0]
    assert np.abs(found.astype(int) - raw).max() <= 3


_ROOT = "1.2.840.10008.1.2"
SYNTAXES = [
    _ROOT + end for end in ("", ".1", ".2", ".1.99", ".5", ".4.57", ".4.70", ".4.80", ".4.90")
]


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_one_slice_is_the_same_in_every_lossless_syntax(
    data: Callable[[str], Path], syntax: str
) -> None:
    folder = data("dicom/transfer_syntaxes")
    wanted = pydicom.dcmread(folder / "CTImage.dcm").pixel_array
    (path,) = folder.glob(f"CTImage.dcm_*_{syntax}.dcm")
    assert np.array_equal(read(path)[0, ..., 0], wanted)


@pytest.mark.parametrize("syntax", ["4.50", "4.81", "4.91"])
def test_lossy_syntaxes_are_within_two_levels_of_gdcm(
    data: Callable[[str], Path], syntax: str
) -> None:
    (path,) = data("dicom/transfer_syntaxes").glob(f"CTImage.dcm_*_1.2.840.10008.1.2.{syntax}.dcm")
    wanted = pydicom.pixels.pixel_array(path, decoding_plugin="gdcm").astype(int)
    assert np.abs(read(path)[0, ..., 0] - wanted).max() <= 2


@pytest.mark.parametrize("syntax", ["4.51", "4.53", "4.55"])
def test_twelve_bit_jpeg_shows_the_same_slice(data: Callable[[str], Path], syntax: str) -> None:
    folder = data("dicom/transfer_syntaxes")
    (path,) = folder.glob(f"CTImage.dcm_*_1.2.840.10008.1.2.{syntax}.dcm")
    header = read_header(path)
    wanted = pydicom.dcmread(folder / "CTImage.dcm").pixel_array - 1024.0
    found = read(path)[0, ..., 0] * header.slope + header.intercept
    assert np.abs(found - wanted).mean() < 5  # one stored step is 2


def test_fragments_without_offset_table_are_told_apart(data: Callable[[str], Path]) -> None:
    path = data("dicom/transfer_syntaxes") / "CT0012.fragmented_no_bot_jpeg_baseline.51.dcm"
    found = read(path)
    assert found.shape == (2, 512, 512, 1)
    assert np.array_equal(read(path, frames=[1])[0], found[1])


def test_real_files_equal_pydicom(data: Callable[[str], Path]) -> None:
    compared = 0
    for folder in ("dicom/dcmqi", "dicom/enhanced", "dicom/highdicom", "dicom/rt_utils"):
        for path in sorted(data(folder).rglob("*.dcm")):
            header = read_header(path)
            if header.pixel_offset is None:
                with pytest.raises(UnsupportedFormat, match="no pixel data"):
                    decode(path, header)
                continue
            found = decode(path, header)
            wanted = pydicom.dcmread(path).pixel_array
            assert np.array_equal(found, wanted.reshape(found.shape)), path.name
            compared += 1
    assert compared > 40


def test_ultrasound_ybr_422_equals_pydicom(data: Callable[[str], Path]) -> None:
    path = data("dicom/transfer_syntaxes") / "US-YBR_FULL_422-EVRLE.dcm"
    wanted = pydicom.pixels.pixel_array(path)
    assert np.abs(read(path)[0].astype(int) - wanted).max() <= 1


def test_truncated_data_carry_evidence(tmp_path: Path) -> None:
    values = np.zeros((2, 8, 8, 1), np.uint16)
    path = save(dataset(values), tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CorruptFile, match="156 of 256 bytes") as caught:
        read(path)
    assert caught.value.evidence["kind"] == "truncated-pixel-data"
    assert caught.value.path == str(path)


@pytest.mark.parametrize("syntax", [RLE, JPEG_LS, J2K])
def test_truncated_codestreams_are_refused(tmp_path: Path, syntax: str) -> None:
    values = np.random.default_rng(1).integers(0, 4000, (1, 64, 64, 1)).astype(np.uint16)
    path = save(dataset(values), tmp_path / "a.dcm", syntax)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CorruptFile) as caught:
        read(path)
    assert caught.value.evidence["kind"] == "truncated-pixel-data"


@pytest.mark.parametrize("syntax", [RLE, JPEG_LS, J2K])
@pytest.mark.parametrize("changed", ["Rows", "Columns"])
def test_the_codestream_must_state_the_header_s_size(
    tmp_path: Path, syntax: str, changed: str
) -> None:
    values = np.random.default_rng(1).integers(0, 4000, (1, 40, 40, 1)).astype(np.uint16)
    path = save(dataset(values), tmp_path / "a.dcm", syntax)
    header = read_header(path)
    setattr(header, changed.lower(), 4096)
    with pytest.raises(CorruptFile) as caught:
        decode(path, header)
    kinds = ("undecodable-frame", "truncated-pixel-data") if syntax == RLE else (
        "codestream-mismatch",
    )  # fmt: skip
    assert caught.value.evidence["kind"] in kinds


def test_more_frames_than_fragments_are_refused(tmp_path: Path) -> None:
    values = np.zeros((3, 8, 8, 1), np.uint8)
    path = save(dataset(values), tmp_path / "a.dcm", RLE)
    header = read_header(path)
    header.frames = 4
    with pytest.raises(CorruptFile, match="4 frames"):
        decode(path, header)


def test_what_is_refused_is_named(tmp_path: Path) -> None:
    path = save(dataset(np.zeros((1, 4, 4, 1), np.uint8)), tmp_path / "a.dcm")
    header = read_header(path)
    header.transfer_syntax = "1.2.840.10008.1.2.4.102"
    with pytest.raises(UnsupportedFormat, match="MPEG-4"):
        decode(path, header)
    header = read_header(path)
    header.photometric = "CMYK"
    with pytest.raises(UnsupportedFormat, match="CMYK"):
        decode(path, header)
    header = read_header(path)
    header.bits_allocated = 12
    with pytest.raises(UnsupportedFormat, match="BitsAllocated"):
        decode(path, header)
    header = read_header(path)
    header.rows = 0
    with pytest.raises(CorruptFile, match="Rows"):
        decode(path, header)
    with pytest.raises(UsageError, match="frames"):
        read(path, frames=[1])


def test_announced_size_is_checked_before_allocation(tmp_path: Path) -> None:
    path = save(dataset(np.zeros((1, 4, 4, 1), np.uint16)), tmp_path / "a.dcm")
    for name, value in (("frames", 1_000_000_000), ("rows", 60_000)):
        header = read_header(path)
        header.rows = header.columns = 60_000
        setattr(header, name, value)
        with pytest.raises(LimitExceeded):
            decode(path, header)
