# SPDX-License-Identifier: Apache-2.0
"""Reading by comparison equals reading element by element, and gives way where it must not."""

from __future__ import annotations

import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vesalius.errors import CorruptFile
from vesalius.io.dicom import header as module
from vesalius.io.dicom.header import read_header
from vesalius.io.dicom.template import Templates


def element(group: int, number: int, kind: bytes, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HH2sH", group, number, kind, len(value)) + value


def instance(
    *,
    uid: str = "1.2.3.4",
    name: str = "A^B",
    at: str = "1\\2\\3",
    rows: int = 4,
    charset: str = "",
) -> bytes:
    meta = element(2, 2, b"UI", b"1.2.840.10008.5.1.4.1.1.2")
    meta += element(2, 0x10, b"UI", b"1.2.840.10008.1.2.1")
    body = element(8, 5, b"CS", charset.encode()) if charset else b""
    body += element(8, 0x18, b"UI", uid.encode()) + element(8, 0x60, b"CS", b"CT")
    body += element(0x10, 0x10, b"PN", name.encode("latin-1"))
    body += element(0x20, 0xE, b"UI", b"1.2.3") + element(0x20, 0x32, b"DS", at.encode())
    body += element(0x28, 0x10, b"US", struct.pack("<H", rows))
    body += element(0x28, 0x11, b"US", struct.pack("<H", 4))
    body += struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, 32) + bytes(32)
    head = struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(meta))
    return bytes(128) + b"DICM" + head + meta + body


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.setattr(module, "_TEMPLATES", Templates())


def values(header) -> dict:
    return {name: getattr(header, name) for name in type(header).__slots__}


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(
            st.from_regex(r"1\.2\.[1-9]{1,3}", fullmatch=True),
            st.text("ABCéü^", min_size=1, max_size=4),
            st.tuples(*[st.floats(-999, 999).map(lambda x: f"{x:.2f}")] * 3),
            st.integers(1, 600),
            st.sampled_from(["", "ISO_IR 100", "ISO_IR 101"]),
        ),
        min_size=2,
        max_size=8,
    )
)
def test_equals_reading_element_by_element(tmp_path, drawn) -> None:
    for uid, name, at, rows, charset in drawn:
        path = tmp_path / "one.dcm"
        path.write_bytes(instance(uid=uid, name=name, at="\\".join(at), rows=rows, charset=charset))
        compared = values(read_header(path, digest=True))
        module._TEMPLATES = Templates()
        assert values(read_header(path, digest=True)) == compared


def test_a_repeated_layout_is_not_parsed_again(tmp_path, monkeypatch) -> None:
    path = tmp_path / "one.dcm"
    path.write_bytes(instance(at="1\\2\\3"))
    read_header(path)
    monkeypatch.setattr(module, "_parse", None)  # would raise if it were called
    path.write_bytes(instance(at="1\\2\\4", uid="1.2.3.5"))
    again = read_header(path)
    assert (again.position, again.sop_instance) == ((1.0, 2.0, 4.0), "1.2.3.5")


def test_a_wrong_value_is_refused_as_in_a_first_reading(tmp_path) -> None:
    path = tmp_path / "one.dcm"
    path.write_bytes(instance(uid="1.2.3.4"))
    read_header(path)
    path.write_bytes(instance(uid="../../x"))
    with pytest.raises(CorruptFile, match="sop_instance"):
        read_header(path)
    path.write_bytes(instance(at="1\\b\\3"))
    assert read_header(path).invalid == ("position",)


def test_a_header_cut_short_is_not_taken_for_a_whole_one(tmp_path) -> None:
    path = tmp_path / "one.dcm"
    whole = instance()
    path.write_bytes(whole)
    read_header(path)
    path.write_bytes(whole[:-45])
    with pytest.raises(CorruptFile):
        read_header(path)
