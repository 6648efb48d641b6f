# SPDX-License-Identifier: Apache-2.0
"""Files of at most 1 MB that ask for far more: typed refusals all the way, and bounded memory.

Each goes the whole way of a study: STOW-RS, metadata, and a job that reads it as a run would.
"""

from __future__ import annotations

import json
import logging
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

LIMIT_MB = 300

# Sends argv[1] to a state in argv[2]; prints what became of it and the peak above idle (MB).
CHILD = """
import json, resource, sys
from pathlib import Path
from vesalius import io
from vesalius.serving.attributes import LIMITS
from vesalius.serving.intake import Intake
from vesalius.serving.metadata import series_metadata
from vesalius.serving.routing import Route
from vesalius.serving.runs import ServedRun
from vesalius.serving.state import State
from vesalius.serving.stow import Receiver
from vesalius.serving.studies import Completeness, Studies
from vesalius.serving.worker import Answered, work_once
import pydicom.filereader, pydicom.filewriter, numpy
import vesalius.io.exams, vesalius.io.dicom.pixels, vesalius.io.dicom.assemble

def peak():
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (own + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1e3

def read(run, exam, out):
    for volume in io.read_all(exam, limits=LIMITS):
        volume.data.sum()
    return Answered((), {})

raw = Path(sys.argv[1]).read_bytes()
state = State(sys.argv[2])
intake = Intake(state, reserve=0)
kind = 'multipart/related; type="application/dicom"; boundary=BOUND'
receiver = Receiver(intake, kind)
idle = peak()
receiver.feed(b"--BOUND\\r\\nContent-Type: application/dicom\\r\\n\\r\\n" + raw)
receiver.feed(b"\\r\\n--BOUND--")
outcome = receiver.close()
found = {"status": outcome.http_status, "job": "", "reason": "", "metadata": 0}
if outcome.stored:
    study = outcome.stored[0].attributes.study_uid
    found["metadata"] = len(json.loads(series_metadata(state, study)))
    run = ServedRun(Path("run"), "0" * 16, "segment", ())
    Studies(state, [Route(run)], Completeness(0.0)).look()
    assert work_once(state, read)
    found["job"], found["reason"] = state.connection().execute(
        "SELECT state, reason FROM jobs").fetchone()
found["peak"] = peak() - idle
found["incoming"] = len(list(state.incoming.iterdir()))
intake.close()
print(json.dumps(found))
"""
RLE, J2K, DEFLATED = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.1.99"


def _element(group, element, vr, value):
    return struct.pack("<HH2sH", group, element, vr, len(value)) + value


def _with_syntax(raw, syntax):
    """Return a file whose head announces another transfer syntax."""
    from vesalius.serving.part10 import file_head
    from vesalius.serving.stow import read_head

    head, end = read_head(raw)
    return file_head(head[2], head[3], syntax) + raw[end:]


def _header_of(file, **changes):
    """Return a file that ends before its pixel data."""
    raw = file(1, **changes)
    return raw[: raw.rindex(b"\xe0\x7f\x10\x00")]


def _fragments(*pieces):
    items = b"".join(b"\xfe\xff\x00\xe0" + struct.pack("<I", len(p)) + p for p in pieces)
    begin = b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\0\0\0\0"
    return begin + items + b"\xfe\xff\xdd\xe0\0\0\0\0"


def _deflated(raw, more, megabytes):
    from vesalius.serving.part10 import file_head
    from vesalius.serving.stow import read_head

    head, end = read_head(raw)
    engine = zlib.compressobj(1, zlib.DEFLATED, -15)
    out = engine.compress(raw[end:] + more)
    for _ in range(megabytes):
        out += engine.compress(bytes(1 << 20))
    return file_head(head[2], head[3], DEFLATED) + out + engine.flush()


def deflate_bomb(file):
    more = b"\xe0\x7f\x10\x00OW\0\0" + struct.pack("<I", 200 << 20)
    return _deflated(_header_of(file, Rows=10240, Columns=10240), more, 200)


def deflate_bomb_in_the_header(file):
    more = b"\x09\x00\x10\x10OB\0\0" + struct.pack("<I", 200 << 20)
    return _deflated(_header_of(file), more, 200)


def deep_sequence(file):
    nest = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 10_000
    raw = file(1)
    at = raw.index(b"\x10\x00\x10\x00PN")
    return raw[:at] + nest


def unending_sequence(file):
    raw = file(1)
    at = raw.index(b"\x10\x00\x10\x00PN")
    begin = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff"
    return raw[:at] + begin + b"\xfe\xff\x00\xe0\0\0\0\0" * 90_000


def huge_matrix(file):
    return file(1, Rows=65535, Columns=65535)


def huge_matrix_rle(file):
    raw = _header_of(file, Rows=65535, Columns=65535)
    return _with_syntax(raw + _fragments(bytes(64)), RLE)


def huge_matrix_jpeg2000(file):
    size = b"\xff\x4f\xff\x51\0\x29\0\0" + struct.pack(
        ">8I", 60000, 60000, 0, 0, 60000, 60000, 0, 0
    )
    raw = _header_of(file, Rows=60000, Columns=60000)
    return _with_syntax(raw + _fragments(size + b"\0\1\x0f\1\1" + bytes(40)), J2K)


def million_frames(file):
    raw = _header_of(file, NumberOfFrames=1_000_000)
    return _with_syntax(raw + _fragments(bytes(64)), RLE)


def bits_stored_40(file):
    return file(1, BitsStored=40, HighBit=39)


def garbage_values(file):
    raw = _header_of(file)
    return raw.replace(_element(0x20, 0x32, b"DS", b"0\\0\\5.0 "), b"") + b"\xff\xfe\xfd" * 1000


def pickle_bytes(file):
    return b"\x80\x05\x95\x1f\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94." + bytes(
        500
    )


def zip_bytes(file):
    return b"PK\x03\x04" + bytes(1000)


def xml_with_entities(file):
    return b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>'


FILES = {
    # file -> where it is refused: at the door, or by the job that reads its pixels
    deflate_bomb: "job",
    deflate_bomb_in_the_header: "door",
    deep_sequence: "door",
    unending_sequence: "door",
    huge_matrix: "job",
    huge_matrix_rle: "job",
    huge_matrix_jpeg2000: "job",
    million_frames: "job",
    bits_stored_40: "job",
    garbage_values: "door",
    pickle_bytes: "door",
    zip_bytes: "door",
    xml_with_entities: "door",
}


@pytest.mark.parametrize("make", FILES, ids=lambda make: make.__name__)
def test_hostile_files_are_refused_in_words_and_in_little_memory(make, file, tmp_path):
    path = tmp_path / "hostile"
    path.write_bytes(make(file))
    assert path.stat().st_size < 1.1 * (1 << 20)
    command = [sys.executable, "-c", CHILD, str(path), str(tmp_path / "state")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["peak"] <= LIMIT_MB
    assert found["incoming"] == 0
    if FILES[make] == "door":
        assert found["status"] == 409
    else:
        assert found["status"] == 200
        assert found["metadata"] == 1
        assert found["job"] == "refused", found
        assert found["reason"]


def test_nothing_that_is_logged_tells_who_the_patient_is(intake, state, send, file, caplog):
    """At every level, through reception, a broken job and a refused instance."""
    from vesalius.serving.refusal import Refused
    from vesalius.serving.routing import Route
    from vesalius.serving.runs import ServedRun
    from vesalius.serving.stow import Part10
    from vesalius.serving.studies import Completeness, Studies
    from vesalius.serving.worker import work_once

    caplog.set_level(logging.DEBUG)
    send(1)
    part = Part10(intake)
    part.write(deep_sequence(file))
    with pytest.raises(Refused) as refused:
        part.take("")
    run = ServedRun(Path("run"), "0" * 16, "segment", ())
    Studies(state, [Route(run)], Completeness(0.0)).look()

    def broken(*_):
        raise RuntimeError("Doe^Jane P-1 1.2.3.1.1")

    assert work_once(state, broken)
    (reason,) = state.connection().execute("SELECT reason FROM jobs").fetchone()
    assert caplog.text
    for text in (caplog.text, reason, str(refused.value)):
        for secret in ("Doe", "Jane", "P-1", "1.2.3", "19700101"):
            assert secret not in text
