# SPDX-License-Identifier: Apache-2.0
"""Zips of DICOM: read like the folder, and every trick of an archive refused."""

from __future__ import annotations

import stat
import zipfile

import numpy as np
import pytest

from vesalius import io
from vesalius.errors import CorruptFile, LimitExceeded, UnsupportedFormat
from vesalius.io import zipped
from vesalius.io.limits import DEFAULT_LIMITS, Limits

DICOM = bytes(128) + b"DICM" + bytes(64)


def pack(path, *entries, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for entry, content in entries:
            archive.writestr(entry, content)
    return path


def entry(name, mode=stat.S_IFREG | 0o644, flags=0):
    made = zipfile.ZipInfo(name)
    made.create_system, made.external_attr, made.flag_bits = 3, mode << 16, flags
    return made


@pytest.mark.parametrize(
    ("name", "mode", "reason"),
    [
        ("../../etc/passwd", stat.S_IFREG, "climbs"),
        ("a/..\\..\\b.dcm", stat.S_IFREG, "climbs"),
        ("/etc/passwd", stat.S_IFREG, "absolute"),
        ("C:/a.dcm", stat.S_IFREG, "absolute"),
        ("link.dcm", stat.S_IFLNK, "link"),
        ("pipe.dcm", stat.S_IFIFO, "special"),
        ("inner.zip", stat.S_IFREG, "archive itself"),
    ],
)
def test_unsafe_members_are_refused_and_nothing_is_written(tmp_path, name, mode, reason):
    path = pack(tmp_path / "a.zip", (entry("ok.dcm"), DICOM), (entry(name, mode), DICOM))
    with pytest.raises(UnsupportedFormat, match=reason) as raised:
        io.read(path)
    assert raised.value.evidence["member"] == 1
    assert raised.value.finding == "unsupported-format"
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


def test_archives_inside_are_refused_by_content_too(tmp_path):
    inner = pack(tmp_path / "inner.bin", ("a.dcm", DICOM)).read_bytes()
    with pytest.raises(UnsupportedFormat, match="archive itself"):
        io.read(pack(tmp_path / "a.zip", ("harmless.dcm", inner)))


def test_encrypted_and_unusual_compression_are_refused(tmp_path):
    path = pack(tmp_path / "a.zip", ("a.dcm", DICOM), method=zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(UnsupportedFormat, match="encrypted"):
        io.read(path)
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with pytest.raises(UnsupportedFormat, match="method"):
            io.read(pack(tmp_path / "b.zip", ("a.dcm", DICOM), method=method))


def test_a_zip_without_dicom_says_so(tmp_path):
    with pytest.raises(UnsupportedFormat, match="no DICOM"):
        io.read(pack(tmp_path / "a.zip", ("notes.txt", b"hello")))


def test_too_many_members_exceed_the_limit(tmp_path):
    path = pack(tmp_path / "a.zip", *[(f"{n}.dcm", DICOM) for n in range(20)])
    with pytest.raises(LimitExceeded, match="20 members"):
        io.read(path, limits=Limits(max_members=10))


def test_damaged_zips_are_corrupt(tmp_path, rng):
    whole = pack(tmp_path / "a.zip", ("a.dcm", DICOM + rng.bytes(5000))).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[:-30])
    (tmp_path / "bad.zip").write_bytes(whole[:300] + bytes(90) + whole[390:])
    for name in ("cut.zip", "bad.zip"):
        with pytest.raises(CorruptFile):
            io.read(tmp_path / name)


def test_the_temporary_folder_is_private_and_goes(tmp_path):
    path = pack(tmp_path / "a.zip", ("x/secret-name.dcm", DICOM), ("._junk", b"\0\5\x16\7"))
    with zipped.dicom_files(path, limits=DEFAULT_LIMITS) as files:
        assert len(files) == 1
        assert "secret" not in str(files[0])
        assert stat.S_IMODE(files[0].parent.stat().st_mode) == 0o700
        assert files[0].read_bytes() == DICOM
    assert not files[0].parent.exists()


def test_the_real_zip_equals_its_conversion(data):
    found = io.read(data("formats") / "DICOM.zip")
    other = io.read(data("formats") / "nrrd.nhdr")
    assert found.source.format == "dicom-zip"
    assert found.source.files == (str(data("formats") / "DICOM.zip"),)
    from vesalius.geometry import reorient

    ours, theirs = reorient(found), reorient(other)
    np.testing.assert_array_equal(ours.data, theirs.data)
    np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-3)
