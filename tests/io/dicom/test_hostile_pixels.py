# SPDX-License-Identifier: Apache-2.0
"""1 MB files that claim the impossible: a typed error, and at most 300 MB above idle."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

EXPLICIT, DEFLATED = b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99"
RLE, BASELINE = b"1.2.840.10008.1.2.5\0", b"1.2.840.10008.1.2.4.50"
LOSSLESS, JPEG_LS, J2K = (b"1.2.840.10008.1.2.4." + n for n in (b"70", b"80", b"90"))

# Decodes one file in a fresh process, and prints what came and how much memory it took.
PROBE = """
import json, resource, sys
from vesalius.errors import ReadError
from vesalius.io.dicom import pixels
from vesalius.io.dicom.header import read_header
from vesalius.io.dicom.sandbox import DECODERS
import PIL.JpegImagePlugin, rle
def peak(who): return resource.getrusage(who).ru_maxrss / 1024
idle = peak(resource.RUSAGE_SELF)
try:
    result = str(pixels.decode(sys.argv[1], read_header(sys.argv[1])).shape)
except ReadError as error:
    result = type(error).__name__
DECODERS.close()
own = peak(resource.RUSAGE_SELF) - idle
child = peak(resource.RUSAGE_CHILDREN)
print(json.dumps([result, own, child]))
"""


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    if vr in (b"OW", b"OB"):
        return head + struct.pack("<HI", 0, len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def long_head(tag: int, length: int) -> bytes:
    return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, b"OW", 0, length)


def file_of(syntax: bytes, body: bytes) -> bytes:
    meta = element(0x00020010, b"UI", syntax)
    meta = element(0x00020000, b"UL", struct.pack("<I", len(meta))) + meta
    return bytes(128) + b"DICM" + meta + body


def bomb(before: bytes, zeros_mib: int, after: bytes = b"") -> bytes:
    """Deflate `before`, many MiB of zeros and `after`; the zeros are one block over and over."""

    def block(data: bytes) -> bytes:
        engine = zlib.compressobj(9, zlib.DEFLATED, -15)
        return engine.compress(data) + engine.flush(zlib.Z_FULL_FLUSH)

    end = zlib.compressobj(9, zlib.DEFLATED, -15)
    last = end.compress(after) + end.flush()
    return block(before) + block(bytes(1 << 20)) * zeros_mib + last


def module(rows: int, columns: int, frames: int = 1, bits: int = 16) -> bytes:
    short = "<H"
    return (
        element(0x00080016, b"UI", b"1.2.840.10008.5.1.4.1.1.2")
        + element(0x00280002, b"US", struct.pack(short, 1))
        + element(0x00280004, b"CS", b"MONOCHROME2")
        + element(0x00280008, b"IS", str(frames).encode())
        + element(0x00280010, b"US", struct.pack(short, rows))
        + element(0x00280011, b"US", struct.pack(short, columns))
        + element(0x00280100, b"US", struct.pack(short, bits))
        + element(0x00280101, b"US", struct.pack(short, bits))
        + element(0x00280102, b"US", struct.pack(short, bits - 1))
        + element(0x00280103, b"US", struct.pack(short, 0))
    )


def native(rows: int, columns: int, frames: int = 1, held: int = 1_000_000) -> bytes:
    return module(rows, columns, frames) + element(0x7FE00010, b"OW", bytes(held))


def encapsulated(rows: int, columns: int, frame: bytes, frames: int = 1, bits: int = 16) -> bytes:
    frame += b"\0" * (len(frame) % 2)
    item = b"\xfe\xff\x00\xe0"
    return (
        module(rows, columns, frames, bits)
        + struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)
        + item + bytes(4)
        + item + struct.pack("<I", len(frame)) + frame
        + b"\xfe\xff\xdd\xe0" + bytes(4)
    )  # fmt: skip


def jpeg(marker: int, rows: int, columns: int, bits: int, rest: bytes = b"") -> bytes:
    frame = struct.pack(">BHHBBBB", bits, rows, columns, 1, 1, 0x11, 0)
    return b"\xff\xd8\xff" + bytes([marker]) + struct.pack(">H", len(frame) + 2) + frame + rest


def jpeg2000(rows: int, columns: int, tile: int) -> bytes:
    size = struct.pack(">HIIIIIIIIHBBB", 0, columns, rows, 0, 0, tile, tile, 0, 0, 1, 15, 1, 1)
    style = struct.pack(">BBHBBBBBB", 0, 0, 1, 0, 5, 4, 4, 0, 1)
    quantization = bytes([0x40, *[0x80] * 16])
    return (
        b"\xff\x4f\xff\x51" + struct.pack(">H", len(size) + 2) + size
        + b"\xff\x52" + struct.pack(">H", len(style) + 2) + style
        + b"\xff\x5c" + struct.pack(">H", len(quantization) + 2) + quantization
        + b"\xff\x90" + struct.pack(">HHIBB", 10, 0, 0, 0, 1) + b"\xff\x93" + bytes(900_000)
    )  # fmt: skip


def runs(rows: int, columns: int) -> bytes:
    """RLE header with two segments, the first of one long run after the other."""
    return struct.pack("<16I", 2, 64, 400_064, *[0] * 13) + b"\x81\x00" * 400_000


HOSTILE: dict[str, Callable[[], bytes]] = {
    "rows x columns of 2^32": lambda: file_of(EXPLICIT, native(65535, 65535)),
    "a million frames": lambda: file_of(EXPLICIT, native(512, 512, 10**6)),
    "a million tiny frames": lambda: file_of(EXPLICIT, native(1, 1, 10**6, held=900)),
    "a million compressed frames": lambda: file_of(
        RLE, encapsulated(64, 64, bytes(900_000), frames=10**6)
    ),
    "deflate bomb, honest header": lambda: file_of(
        DEFLATED, bomb(module(16384, 28672) + long_head(0x7FE00010, 896 << 20), 896)
    ),
    "deflate bomb, small image": lambda: file_of(
        DEFLATED, bomb(module(8, 8) + long_head(0x7FE00010, 896 << 20), 896)
    ),
    "deflate bomb before the image": lambda: file_of(
        DEFLATED, bomb(long_head(0x00091010, 896 << 20), 896, native(8, 8, held=128))
    ),
    "jpeg of another size": lambda: file_of(
        BASELINE, encapsulated(64, 64, jpeg(0xC0, 65000, 65000, 8), bits=8)
    ),
    "jpeg of 64 megapixels": lambda: file_of(
        BASELINE, encapsulated(8000, 8000, jpeg(0xC0, 8000, 8000, 8, bytes(900_000)), bits=8)
    ),
    "lossless jpeg of garbage": lambda: file_of(
        LOSSLESS,
        encapsulated(3400, 3400, jpeg(0xC3, 3400, 3400, 16, b"\xff\xda" + bytes(900_000))),
    ),
    "jpeg-ls of garbage": lambda: file_of(
        JPEG_LS,
        encapsulated(
            3400,
            3400,
            jpeg(0xF7, 3400, 3400, 16, b"\xff\xda\0\x08\1\1\0\0\0\0" + bytes(900_000)),
        ),
    ),
    "jpeg 2000 of garbage": lambda: file_of(
        J2K, encapsulated(3400, 3400, jpeg2000(3400, 3400, 3400))
    ),
    "jpeg 2000 of a million tiles": lambda: file_of(
        J2K, encapsulated(1024, 1024, jpeg2000(1024, 1024, 1))
    ),
    "jpeg 2000 of ten thousand tiles": lambda: file_of(
        J2K, encapsulated(1024, 1024, jpeg2000(1024, 1024, 10))
    ),
    "rle of runs": lambda: file_of(RLE, encapsulated(4000, 4000, runs(4000, 4000))),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_stay_within_bounds(tmp_path: Path, name: str) -> None:
    path = tmp_path / "hostile.dcm"
    path.write_bytes(HOSTILE[name]())
    assert path.stat().st_size < 1_100_000
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(path)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=100,
        check=True,
    )
    result, own, child = json.loads(done.stdout)
    if name not in ("deflate bomb, small image", "jpeg-ls of garbage", "jpeg 2000 of garbage"):
        assert result in ("CorruptFile", "LimitExceeded")
    assert own + child <= 300e6 / (1 << 20)
