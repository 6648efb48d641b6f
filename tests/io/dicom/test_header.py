# SPDX-License-Identifier: Apache-2.0
"""Headers against pydicom on every file at hand, and against hostile bytes."""

from __future__ import annotations

import contextlib
import hashlib
import io
import struct
import subprocess
import sys
import time
import warnings
import zlib
from pathlib import Path

import pydicom
import pydicom.data
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from vesalius.errors import CorruptFile, LimitExceeded, ReadError, UnsupportedFormat
from vesalius.io.dicom.header import Header, read_header
from vesalius.io.limits import Limits

SAME = {
    "sop_class": "SOPClassUID",
    "sop_instance": "SOPInstanceUID",
    "study_uid": "StudyInstanceUID",
    "series_uid": "SeriesInstanceUID",
    "frame_of_reference": "FrameOfReferenceUID",
    "patient_id": "PatientID",
    "patient_name": "PatientName",
    "modality": "Modality",
    "study_date": "StudyDate",
    "study_description": "StudyDescription",
    "series_description": "SeriesDescription",
    "manufacturer": "Manufacturer",
    "model": "ManufacturerModelName",
    "station": "StationName",
    "institution": "InstitutionName",
    "field_strength": "MagneticFieldStrength",
    "kvp": "KVP",
    "image_type": "ImageType",
    "series_number": "SeriesNumber",
    "acquisition_number": "AcquisitionNumber",
    "instance_number": "InstanceNumber",
    "echo_time": "EchoTime",
    "rows": "Rows",
    "columns": "Columns",
    "frames": "NumberOfFrames",
    "samples": "SamplesPerPixel",
    "planar": "PlanarConfiguration",
    "bits_allocated": "BitsAllocated",
    "bits_stored": "BitsStored",
    "pixel_representation": "PixelRepresentation",
    "photometric": "PhotometricInterpretation",
    "slope": "RescaleSlope",
    "intercept": "RescaleIntercept",
    "rescale_type": "RescaleType",
    "orientation": "ImageOrientationPatient",
    "position": "ImagePositionPatient",
    "pixel_spacing": "PixelSpacing",
    "imager_spacing": "ImagerPixelSpacing",
    "slice_thickness": "SliceThickness",
    "spacing_between": "SpacingBetweenSlices",
    "gantry_tilt": "GantryDetectorTilt",
    "units": "Units",
    "frame_offsets": "GridFrameOffsetVector",
    "dose_scaling": "DoseGridScaling",
    "b_value": "DiffusionBValue",
    "patient_position": "PatientPosition",
}


def agrees(header: Header, dataset: Dataset) -> list[str]:
    """Return the attributes in which our header differs from pydicom's data set."""
    wrong = []
    for name, keyword in SAME.items():
        if name in (header.invalid or ()):
            continue
        want, got = dataset.get(keyword), getattr(header, name)
        several = isinstance(want, MultiValue | list)
        if want is None or want == "" or (several and not len(want)):
            same = got is None or keyword == "SOPClassUID"
        elif isinstance(got, tuple):
            values = list(want) if several else [want]
            kind = str.strip if isinstance(got[0], str) else float
            same = got == tuple(kind(value) for value in values)
        elif isinstance(got, int | float):
            same = float(want[0] if several else want) == got
        else:
            text = "\\".join(map(str, want)) if several else str(want)
            same = text.strip(" \0\t\r\n") == got
        if not same:
            wrong.append(name)
    return wrong


def _compare(files: list[Path]) -> tuple[int, int]:
    readable = refused = 0
    for path in files:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's remarks on its own odd test files
            try:
                dataset = pydicom.dcmread(path, stop_before_pixels=True)
                dataset.walk(lambda *_: None)
            except Exception:
                refused += 1
                dataset = None
            if dataset is None:
                with contextlib.suppress(ReadError):
                    read_header(path)
                continue
            try:
                header = read_header(path)
            except ReadError:
                # We refuse what pydicom reads only where elements reach past the end.
                assert path.name in {"rtplan_truncated.dcm", "DICOMDIR-nooffset"}, path
                continue
            readable += 1
            assert agrees(header, dataset) == [], path
    return readable, refused


def test_equals_pydicom_on_its_own_files() -> None:
    files = [Path(p) for p in pydicom.data.get_testdata_files() if Path(p).is_file()]
    readable, _ = _compare(files)
    assert readable > 100


def test_equals_pydicom_on_shared_data(data) -> None:  # type: ignore[no-untyped-def]
    files = [p for p in data("dicom").rglob("*") if p.is_file()]
    files += sorted(data("ct_abdomen/example_ct_dicom").iterdir())
    readable, _ = _compare(files)
    assert readable > 80


numbers = st.floats(-1e4, 1e4, allow_nan=False).map(lambda x: float(f"{x:.6g}"))
text = st.text(
    st.characters(codec="latin-1", min_codepoint=33, exclude_characters="\\"), max_size=20
)


@st.composite
def datasets(draw) -> Dataset:  # type: ignore[no-untyped-def]
    ds = Dataset()
    ds.SpecificCharacterSet = draw(st.sampled_from(["ISO_IR 100", "ISO_IR 192"]))
    ds.ImageType = draw(st.lists(st.sampled_from(["ORIGINAL", "AXIAL", "M"]), max_size=4))
    ds.SOPInstanceUID = draw(st.sampled_from(["1.2.3", "1.2.840.99999.1.2.3.4.5", ""]))
    ds.SeriesDescription = draw(text)
    ds.InstitutionName = draw(text)
    ds.InstanceNumber = draw(st.integers(-(2**31), 2**31 - 1))
    ds.ImagePositionPatient = draw(st.lists(numbers, min_size=3, max_size=3))
    ds.ImageOrientationPatient = draw(st.lists(numbers, min_size=6, max_size=6))
    ds.Rows = draw(st.integers(0, 65535))
    ds.RescaleSlope = draw(numbers)
    ds.DiffusionBValue = draw(numbers)
    inner = Dataset()
    inner.SeriesInstanceUID = "1.9"
    inner.Rows = 7  # must not leak into the outer value
    if draw(st.booleans()):
        inner.ReferencedSOPSequence = [Dataset(), Dataset()]
        inner.ReferencedSOPSequence[1].Columns = 9
    ds.ReferencedSeriesSequence = [inner] * draw(st.integers(0, 3))
    for item in ds.ReferencedSeriesSequence:
        item.is_undefined_length_sequence_item = draw(st.booleans())
    ds["ReferencedSeriesSequence"].is_undefined_length = draw(st.booleans())
    other = Sequence([inner] * draw(st.integers(0, 40)))
    ds.add_new(0x00091001, "SQ", other)  # private, unwanted
    ds[0x00091001].is_undefined_length = draw(st.booleans())
    ds.PixelData = bytes(draw(st.integers(0, 4)) * 2)
    ds["PixelData"].VR = "OW"
    return ds


def encode(ds: Dataset, syntax: str) -> bytes:
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    out = io.BytesIO()
    ds.save_as(out, enforce_file_format=True)
    return out.getvalue()


@settings(max_examples=60, deadline=None)
@given(
    ds=datasets(),
    syntax=st.sampled_from(
        [
            ExplicitVRLittleEndian,
            ImplicitVRLittleEndian,
            ExplicitVRBigEndian,
            DeflatedExplicitVRLittleEndian,
        ]
    ),
)
def test_equals_what_was_written_in_every_encoding(ds: Dataset, syntax: str) -> None:
    raw = encode(ds, syntax)
    header = read_header(io.BytesIO(raw))
    assert agrees(header, ds) == []
    assert header.referenced_series == (("1.9",) if ds.ReferencedSeriesSequence else None)
    assert header.transfer_syntax == syntax
    assert header.pixel_length == len(ds.PixelData)
    if syntax != DeflatedExplicitVRLittleEndian:
        assert raw[header.pixel_offset :] == ds.PixelData
    assert Header.from_tuple(header.to_tuple()) == header


def test_path_stream_and_digest_agree(tmp_path: Path) -> None:
    ds = Dataset()
    ds.Modality, ds.Rows = "CT", 3
    ds.add_new(0x00091001, "OB", bytes(200_000))  # larger than the window: stepped over
    ds.PatientID = "x" * 60
    ds.PixelData = bytes(300_000)
    ds["PixelData"].VR = "OW"
    path = tmp_path / "a.dcm"
    path.write_bytes(encode(ds, ExplicitVRLittleEndian))
    header = read_header(path, digest=True)
    assert header.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (header.modality, header.rows, header.patient_id) == ("CT", 3, "x" * 60)
    assert path.read_bytes()[header.pixel_offset :] == ds.PixelData
    stream = read_header(io.BytesIO(path.read_bytes()))
    header.sha256 = header.file_size = None
    assert stream == header


def test_elements_over_a_window_border_are_whole() -> None:
    for size in range(65536 - 300, 65536, 2):
        ds = Dataset()
        ds.Modality = "MR"
        ds.add_new(0x00091001, "OB", bytes(size - 200))
        ds.PatientID, ds.SliceThickness = "abcdefgh", 1.25
        ds.ReferencedSeriesSequence = [Dataset()]
        ds.ReferencedSeriesSequence[0].SeriesInstanceUID = "1.2"
        ds.Rows = 5
        header = read_header(io.BytesIO(encode(ds, ExplicitVRLittleEndian)))
        assert (header.patient_id, header.slice_thickness, header.rows) == ("abcdefgh", 1.25, 5)


@pytest.mark.parametrize(
    ("names", "raw", "want"),
    [
        (b"ISO_IR 100", "Gruß".encode("latin-1"), "Gruß"),
        (b"ISO_IR 192", "山田".encode(), "山田"),
        (b"\\ISO 2022 IR 87", b"\x1b$B;3ED\x1b(B", "山田"),
        (b"GB18030", "王小东".encode("gb18030"), "王小东"),
        (b"ISO_IR 144", "Люкceмбypг".encode("iso8859-5"), "Люкceмбypг"),
    ],
)
def test_character_sets(names: bytes, raw: bytes, want: str) -> None:
    body = _element(0x0008, 0x0005, b"CS", names) + _element(0x0008, 0x103E, b"LO", raw)
    assert read_header(io.BytesIO(bytes(128) + b"DICM" + body)).series_description == want


def _element(group: int, element: int, vr: bytes, value: bytes) -> bytes:
    value += b" " * (len(value) % 2)
    return struct.pack("<HH2sH", group, element, vr, len(value)) + value


def _meta(syntax: bytes) -> bytes:
    return bytes(128) + b"DICM" + _element(0x0002, 0x0010, b"UI", syntax)


def _nest(depth: int, *, explicit: bool, defined: bool) -> bytes:
    value = b""
    for _ in range(depth):
        size = len(value) if defined else 0xFFFFFFFF
        item = struct.pack("<HHI", 0xFFFE, 0xE000, size) + value
        item += b"" if defined else struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
        size = len(item) if defined else 0xFFFFFFFF
        head = struct.pack("<HH", 0x0040, 0xA730)
        head += b"SQ\0\0" + struct.pack("<I", size) if explicit else struct.pack("<I", size)
        value = head + item
        value += b"" if defined else struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return value


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize("defined", [True, False])
def test_a_deep_nest_is_refused_at_once(explicit: bool, defined: bool) -> None:
    syntax = b"1.2.840.10008.1.2.1" if explicit else b"1.2.840.10008.1.2"
    raw = _meta(syntax) + _nest(10_000, explicit=explicit, defined=defined)
    begin = time.perf_counter()
    with pytest.raises(LimitExceeded, match="nested more than 64"):
        read_header(io.BytesIO(raw))
    assert time.perf_counter() - begin < 1
    fine = _meta(syntax) + _nest(60, explicit=explicit, defined=defined)
    assert read_header(io.BytesIO(fine)).modality is None


@pytest.mark.parametrize("value", [b"../x", b"/etc/passwd", b"1.2.x", b"1" * 66])
@pytest.mark.parametrize("element", [0x000D, 0x000E])
def test_a_uid_that_is_a_path_is_refused(value: bytes, element: int, tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(_meta(b"1.2.840.10008.1.2.1") + _element(0x0020, element, b"UI", value))
    with pytest.raises(CorruptFile, match="digits and dots") as caught:
        read_header(path)
    assert caught.value.path == str(path)


def test_a_deflate_bomb_stays_bounded(tmp_path: Path) -> None:
    skipped = struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, 1 << 29)
    engine = zlib.compressobj(9, wbits=-15)
    raw = engine.compress(skipped) + b"".join(engine.compress(bytes(1 << 20)) for _ in range(300))
    path = tmp_path / "bomb.dcm"
    path.write_bytes(_meta(b"1.2.840.10008.1.2.1.99") + raw + engine.flush())
    with pytest.raises(LimitExceeded, match="inflates to more"):
        read_header(path, limits=Limits(floor=8 << 20))


@pytest.mark.parametrize(
    ("tail", "error"),
    [
        (_element(0x0010, 0x0020, b"LO", b"abcd")[:-2], CorruptFile),  # cut in a value
        (struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, 1 << 31), CorruptFile),
        (struct.pack("<HH2sHI", 0x0008, 0x1115, b"SQ", 0, 8) + b"\x01" * 8, CorruptFile),
        (struct.pack("<HH2sHI", 0x0008, 0x1115, b"SQ", 0, 0xFFFFFFFF), CorruptFile),
        (b"\x09\x00\x01\x00\x01\x02\x03\x04" * 4, CorruptFile),
    ],
)
def test_broken_elements_are_named(tail: bytes, error: type[ReadError], tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(_meta(b"1.2.840.10008.1.2.1") + _element(8, 0x60, b"CS", b"CT") + tail)
    with pytest.raises(error):
        read_header(path)


@settings(max_examples=200, deadline=None)
@given(
    cut=st.integers(132, 3000),
    flips=st.lists(st.tuples(st.integers(132, 3000), st.integers(0, 255))),
)
def test_damage_gives_a_header_or_a_typed_error(cut: int, flips: list[tuple[int, int]]) -> None:
    raw = bytearray(Path(pydicom.data.get_testdata_file("CT_small.dcm")).read_bytes())
    for where, byte in flips:
        raw[where] = byte
    with contextlib.suppress(ReadError):
        assert isinstance(read_header(io.BytesIO(bytes(raw[:cut]))), Header)


def test_too_many_elements_are_refused() -> None:
    raw = _meta(b"1.2.840.10008.1.2.1") + _element(9, 1, b"CS", b"") * 5000
    with pytest.raises(LimitExceeded, match="1,000 elements"):
        read_header(io.BytesIO(raw), limits=Limits(max_elements=1000))


def test_other_files_are_no_dicom(tmp_path: Path) -> None:
    for raw in (b"", b"abc", b"\x89PNG\r\n\x1a\n" * 30, bytes(1000)):
        path = tmp_path / "a"
        path.write_bytes(raw)
        with pytest.raises(UnsupportedFormat):
            read_header(path)


def test_values_that_break_their_type_are_named_not_guessed() -> None:
    raw = _meta(b"1.2.840.10008.1.2.1")
    raw += _element(0x0018, 0x0050, b"DS", b"thick") + _element(0x0020, 0x0032, b"DS", b"1\\2")
    header = read_header(io.BytesIO(raw))
    assert (header.slice_thickness, header.position) == (None, None)
    assert header.invalid == ("slice_thickness", "position")


def test_missing_bytes_of_cut_pixel_data(tmp_path: Path) -> None:
    whole = Path(pydicom.data.get_testdata_file("CT_small.dcm")).read_bytes()
    path = tmp_path / "cut.dcm"
    path.write_bytes(whole)
    header = read_header(path)
    assert header.missing_bytes == 0
    path.write_bytes(whole[: header.pixel_offset + 1000])
    assert read_header(path).missing_bytes == 128 * 128 * 2 - 1000


def test_the_fast_path_imports_neither_pydicom_nor_torch() -> None:
    code = (
        "import sys, vesalius.io.dicom.header; "
        "sys.exit(any(m in sys.modules for m in ('pydicom', 'torch', 'lancedb', 'pandas')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
