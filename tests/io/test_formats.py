# SPDX-License-Identifier: Apache-2.0
"""The table of formats: complete, current in the docs, content before suffix, refusals by name."""

from __future__ import annotations

import gzip
import zipfile
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from vesalius import io
from vesalius.errors import CorruptFile, UnsupportedFormat, UsageError
from vesalius.io import formats

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "formats.md"


def test_the_documented_table_is_current():
    assert DOCS.read_text(encoding="utf-8") == formats.markdown(), (
        "run `python -m vesalius.io.formats > docs/reference/formats.md`"
    )


@pytest.mark.parametrize("row", formats.FORMATS.values(), ids=lambda row: row.name)
def test_every_row_has_its_functions_or_a_way_out(row):
    if not (row.can_read or row.can_write):
        assert row.note
        assert not row.module
        return
    module = import_module(f"vesalius.io.{row.module}")
    if row.module in ("dicom", "zipped"):
        return
    assert not row.can_read or callable(module.read)
    assert not row.can_write or callable(module.write)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.HEAD", b"\ntype = string-attribute\nname = TYPESTRING\n", "afni"),
        ("a.sdt", b"\0" * 64, "stimulate"),
        ("a.spr", b"numDim: 3\n", "stimulate"),
        ("a.idf", b"IMAGE DESCRIPTOR FILE version 5\n", "sivic"),
        ("a.dat", b"# vtk DataFile Version 3.0\n", "vtk"),
        ("a.PAR", b"# === DATA DESCRIPTION FILE ====\n", "parrec"),
        ("DICOMDIR", b"\0" * 128 + b"DICM" + b"\2\0\0\0", "dicomdir"),
        ("a", b"\0" * 128 + b"DICM\2\0\2\0UI\x14\x001.2.840.10008.1.3.10", "dicomdir"),
        ("a.html", b"<!DOCTYPE html><html>", "html"),
        ("a.json", b'{"a": 1}', "json"),
        ("a", b'[{"a": 1}]', "json"),
        ("a.csv", b"key,label\n1,2\n", "table"),
        ("a.npy", b"\x93NUMPY\1\0", "npy"),
        ("a.pt", b"\x80\x02}q\0.", "pickle"),
        ("a.h5", b"\x89HDF\r\n\x1a\n", "hdf5"),
        ("a.svs", b"II*\0\10\0\0\0", "whole-slide"),
        ("a.jp2", b"\0\0\0\x0cjP  \r\n\x87\n", "jpeg2000"),
        ("a.xfm", b"MNI Transform File\n", "minc-text"),
        ("a.gif", b"GIF89a", "gif"),
        ("a.pdf", b"%PDF-1.7", "pdf"),
        ("a.gipl", b"\0" * 300, "gipl"),
    ],
)
def test_formats_are_refused_by_name_with_the_way_out(tmp_path, name, content, expected):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UnsupportedFormat) as raised:
        io.read(path)
    assert raised.value.evidence["format"] == expected
    assert formats.FORMATS[expected].note in str(raised.value)
    assert str(path) in str(raised.value)


def test_content_comes_before_the_suffix(tmp_path):
    path = tmp_path / "picture.nii.gz"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 40)
    assert formats.sniff(path) == "png"


def test_gzip_is_looked_into(tmp_path):
    path = tmp_path / "anything"
    path.write_bytes(gzip.compress(b"CDF\x01" + b"\0" * 5000))
    assert formats.sniff(path) == "minc1"


def test_zip_kinds_are_told_apart(tmp_path):
    np.savez(tmp_path / "a.bin", train_images=np.zeros((1, 2, 2)))
    assert formats.sniff(tmp_path / "a.bin.npz") == "npz"
    with zipfile.ZipFile(tmp_path / "model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02.")
    with pytest.raises(UnsupportedFormat, match="unpickling runs code"):
        formats.sniff(tmp_path / "model.bin")


def test_gzipped_dicom_is_refused_by_name(tmp_path):
    path = tmp_path / "a.dcm.gz"
    path.write_bytes(gzip.compress(bytes(128) + b"DICM" + bytes(200)))
    with pytest.raises(UnsupportedFormat, match="gunzip"):
        formats.sniff(path)


def test_an_unknown_file_lists_what_is_readable(tmp_path):
    (tmp_path / "a.xyz").write_bytes(b"\1\2\3\4" * 100)
    with pytest.raises(UnsupportedFormat, match="nifti"):
        formats.sniff(tmp_path / "a.xyz")


def test_an_empty_file_is_corrupt_and_a_missing_one_a_usage_error(tmp_path):
    (tmp_path / "a.nii").touch()
    with pytest.raises(CorruptFile, match="empty"):
        io.read(tmp_path / "a.nii")
    with pytest.raises(UsageError, match="No such file"):
        io.read(tmp_path / "absent.nii")


def test_headerless_dicom_is_recognized():
    implicit = b"\x08\x00\x05\x00\x0a\x00\x00\x00ISO_IR 100" + b"\0" * 32
    explicit = b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100" + b"\0" * 32
    assert formats.is_dicom(implicit)
    assert formats.is_dicom(explicit)
    assert not formats.is_dicom(b"a,b,c\n1,2,3\n" * 20)
