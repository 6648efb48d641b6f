# SPDX-License-Identifier: Apache-2.0
"""Multipart bodies cut anywhere, hostile ones, and what STOW-RS answers; the watched folder."""

from __future__ import annotations

import os
import struct
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.errors import UsageError
from vesalius.serving import refusal
from vesalius.serving.multipart import Begin, End, Parser, Piece, content_type
from vesalius.serving.stow import Receiver, read_head
from vesalius.serving.watch import Watch

KIND = 'multipart/related; type="application/dicom"; boundary=BOUND'


def body(*parts, boundary="BOUND"):
    out = b""
    for part in parts:
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n"
        out += head.encode() + part + b"\r\n"
    return out + f"--{boundary}--\r\n".encode()


def parts_of(parser, pieces):
    found = []
    for piece in pieces:
        for event in parser.feed(piece):
            if isinstance(event, Begin):
                found.append(b"")
            elif isinstance(event, Piece):
                found[-1] += event.data
            else:
                assert isinstance(event, End)
    parser.close()
    return found


@settings(max_examples=60, deadline=None)
@given(
    parts=st.lists(st.binary(max_size=60).filter(lambda x: b"--BOUND" not in x), max_size=4),
    cuts=st.lists(st.integers(1, 40), min_size=1, max_size=80),
    before=st.sampled_from([b"", b"a preamble\r\n", b"\r\n"]),
)
def test_the_parts_come_out_wherever_the_body_is_cut(parts, cuts, before):
    whole = before + body(*parts)
    pieces, at = [], 0
    for cut in cuts:
        pieces.append(whole[at : at + cut])
        at += cut
    pieces.append(whole[at:])
    assert parts_of(Parser("BOUND"), pieces) == parts


@pytest.mark.parametrize("boundary", ["", "x" * 71, "é", "a\r\nb", "x" * (1 << 20)])
def test_a_boundary_that_is_none_is_refused(boundary):
    with pytest.raises(UsageError, match="boundary"):
        Parser(boundary)


def test_a_body_holds_no_more_than_a_delimiter_back():
    parser = Parser("BOUND")
    list(parser.feed(b"--BOUND\r\n\r\n"))
    for _ in range(100):
        list(parser.feed(bytes(10_000)))
        assert len(parser._held) < 20


@pytest.mark.parametrize(
    "raw",
    [
        b"--BOUND\r\nX: " + b"a" * 20_000,
        b"--BOUND" + b" " * 20_000,
        b"--BOUNDxx\r\n\r\n",
        b"--BOUND\r\n\r\n\r\n" * 20,
    ],
)
def test_endless_headers_and_parts_are_refused(raw):
    parser = Parser("BOUND", most_parts=10)
    with pytest.raises(UsageError):
        list(parser.feed(raw))


def test_content_types():
    assert content_type('A/B; x="1;2"; Y=3') == ("a/b", {"x": "1;2", "y": "3"})
    assert content_type("") == ("", {})


def test_instances_are_stored_and_answered(intake, state, file):
    receiver = Receiver(intake, KIND)
    whole = body(file(1), file(2))
    for at in range(0, len(whole), 100):
        receiver.feed(whole[at : at + 100])
    outcome = receiver.close()
    assert outcome.http_status == 200
    answer = outcome.to_json("http://x/dicom-web")
    urls = [item["00081190"]["Value"][0] for item in answer["00081199"]["Value"]]
    assert urls == [f"http://x/dicom-web/studies/1.2.3/series/1.2.3.1/instances/1.2.3.1.{n}"
                    for n in (1, 2)]  # fmt: skip
    rows = state.connection().execute("SELECT sop_uid, origin FROM instances ORDER BY 1").fetchall()
    assert rows == [("1.2.3.1.1", "stow"), ("1.2.3.1.2", "stow")]


def test_a_file_by_stow_and_its_data_set_by_dimse_are_one_instance(intake, state, file, send):
    send(1)
    receiver = Receiver(intake, KIND)
    receiver.feed(body(file(1)))
    assert receiver.close().http_status == 200
    assert state.connection().execute("SELECT count(*) FROM instances").fetchone() == (1,)


def test_one_bad_part_does_not_take_the_others_along(intake, state, file):
    receiver = Receiver(intake, KIND)
    receiver.feed(body(file(1), b"no DICOM at all" + bytes(300), file(3)))
    outcome = receiver.close()
    assert outcome.http_status == 202
    assert [code for *_, code, _ in outcome.failed] == [refusal.CANNOT_UNDERSTAND]
    assert len(outcome.stored) == 2
    assert "00081198" in outcome.to_json("")


def test_another_study_than_the_url_names_is_refused(intake, state, file):
    receiver = Receiver(intake, KIND, study="1.2.4")
    receiver.feed(body(file(1)))
    assert receiver.close().http_status == 409
    assert state.connection().execute("SELECT count(*) FROM instances").fetchone() == (0,)
    assert list(state.incoming.iterdir()) == []


def test_a_body_that_is_cut_off_keeps_what_was_whole(intake, state, file):
    receiver = Receiver(intake, KIND)
    receiver.feed(body(file(1), file(2))[:-100])
    with pytest.raises(UsageError, match="ends before"):
        receiver.close()
    rows = state.connection().execute("SELECT sop_uid FROM instances").fetchall()
    assert rows == [("1.2.3.1.1",)]
    assert list(state.incoming.iterdir()) == []


@pytest.mark.parametrize(
    "kind", ["application/dicom", "multipart/form-data; boundary=x", "multipart/related", ""]
)
def test_other_content_types_are_refused(intake, kind):
    with pytest.raises(UsageError):
        Receiver(intake, kind)


def _head(vr=b"UI", length=4):
    return bytes(128) + b"DICM" + struct.pack("<HH2sH", 2, 3, vr, length) + b"1.2\0"


@pytest.mark.parametrize(
    "raw",
    [
        _head(vr=b"\xff\xfe"),
        _head(vr=b"UN") + b"\xff" * 40,
        bytes(128) + b"NOPE" + bytes(100),
        b"\x80\x05\x95" + bytes(300),  # a pickle
        b"PK\x03\x04" + bytes(300),
    ],
)
def test_a_head_that_is_none_is_refused_by_a_typed_error(intake, state, raw):
    receiver = Receiver(intake, KIND)
    receiver.feed(body(raw))
    outcome = receiver.close()
    assert outcome.http_status == 409
    assert outcome.failed[0][2] == refusal.CANNOT_UNDERSTAND
    assert list(state.incoming.iterdir()) == []


def test_a_head_without_end_is_not_collected(intake):
    long = bytes(128) + b"DICM"
    long += b"".join(struct.pack("<HH2sH", 2, 3, b"UI", 64) + b"1" * 64 for _ in range(2000))
    receiver = Receiver(intake, KIND)
    receiver.feed(body(long))
    assert receiver.close().failed[0][3].endswith("too long")


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_break_the_head(raw):
    with suppress(refusal.Refused):
        read_head(bytes(128) + b"DICM" + raw)


@pytest.mark.parametrize("mark", [b"MZ\x90\0", b"\x7fELF", b"\xca\xfe\xba\xbe", b"#!/bin/sh\n"])
def test_a_program_in_the_preamble_is_not_kept(intake, state, file, mark):
    raw = file(1)
    receiver = Receiver(intake, KIND)
    receiver.feed(body(mark + bytes(128 - len(mark)) + raw[128:]))
    assert receiver.close().http_status == 200
    (path,) = state.instances.rglob("*.dcm")
    assert path.read_bytes()[:128] == bytes(128)


def test_a_watched_folder_takes_whole_files_and_moves_them(intake, state, tmp_path, file):
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    watch = Watch(intake, folder)
    (folder / "a.dcm").write_bytes(file(1))
    (folder / "sub" / "b.dcm").write_bytes(file(2)[:400])
    (folder / "bad.dcm").write_bytes(bytes(1000))
    os.symlink("/etc/passwd", folder / "link.dcm")
    os.mkfifo(folder / "pipe")
    assert watch.look() == 0  # seen once
    (folder / "sub" / "b.dcm").write_bytes(file(2))  # still being written
    assert watch.look() == 1
    assert watch.look() == 1
    assert (folder / "taken" / "a.dcm").is_file()
    assert "mark" in (folder / "refused" / "bad.dcm.reason.txt").read_text()
    assert (folder / "link.dcm").is_symlink()
    rows = state.connection().execute("SELECT sop_uid, origin FROM instances ORDER BY 1").fetchall()
    assert rows == [("1.2.3.1.1", "watch"), ("1.2.3.1.2", "watch")]


def test_a_folder_that_is_not_there_is_said(intake, tmp_path):
    with pytest.raises(UsageError, match="must be a folder"):
        Watch(intake, tmp_path / "none")
