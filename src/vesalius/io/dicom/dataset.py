# SPDX-License-Identifier: Apache-2.0
"""One DICOM file before its elements: file meta information, byte order, inflating (PS3.10)."""

from __future__ import annotations

import io
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from vesalius.errors import CorruptFile, UnsupportedFormat
from vesalius.io.dicom.elements import VRS, WINDOW, Found, Order, Pixels, Tables, Take, walk
from vesalius.io.dicom.values import uid
from vesalius.io.limits import Limits, inflate
from vesalius.types import PathLike

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
# Deflated explicit little endian, and the two JPIP forms of it.
DEFLATED = frozenset(
    {"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"}
)


class DataSet(NamedTuple):
    """A data set ready to be walked.

    Attributes:
        take: reads it; offsets count from the file's start, or the inflated data set's.
        first: its first bytes.
        start: offset of its first element.
        size: where it ends; -1 when not known.
        order: VR and byte order.
        transfer_syntax: as announced, or as found where nothing is announced.
        media_class: the SOP class that the file meta information states, or None.
    """

    take: Take
    first: bytes
    start: int
    size: int
    order: Order
    transfer_syntax: str
    media_class: str | None

    def collect(self, tables: Tables, limits: Limits, path: str) -> tuple[Found, Pixels | None]:
        """Walk it from the start and return what `tables` asks for; see `elements.walk`."""
        return walk(
            self.take, self.first, self.start, self.size, tables, self.order,
            limits=limits, path=path,
        )  # fmt: skip


@contextmanager
def open_file(path: PathLike) -> Iterator[tuple[int, int]]:
    """Open a regular file for reading; yields its handle and size in bytes."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise UnsupportedFormat("not a regular file", path=os.fspath(path))
        yield handle, status.st_size
    finally:
        os.close(handle)


def open_data_set(take: Take, size: int, *, limits: Limits, path: str) -> DataSet:
    """Read the file meta information and find out how the data set is laid out.

    Raises `UnsupportedFormat` where the bytes are no DICOM, `CorruptFile` for broken meta
    information.
    """
    first = take(0, WINDOW)
    start = 132 if first[128:132] == b"DICM" else 0
    meta, end = _meta(first, start, path)
    if end == start and not start and not _plausible(first):
        raise UnsupportedFormat("not a DICOM file: neither its mark nor a first element", path=path)
    syntax = meta.get(0x10)
    if syntax is not None and syntax in DEFLATED:
        inflated = inflate(
            io.BufferedReader(_Raw(take, end), WINDOW),
            wbits=-15,
            cap=limits.allowed(max(size, 0)),
            path=path,
            what="the deflated data set",
        )
        take = Forward(inflated).take
        return DataSet(take, take(0, WINDOW), 0, -1, Order(True), syntax, meta.get(0x02))
    big = syntax == EXPLICIT_BIG or (syntax is None and first[end : end + 1] == b"\0")
    # What the first element shows counts more than what is announced: writers mix these up.
    order = Order(first[end + 4 : end + 6] in VRS, big)
    found = EXPLICIT_BIG if big else EXPLICIT_LITTLE if order.explicit else IMPLICIT_LITTLE
    return DataSet(take, first[end:], end, size, order, syntax or found, meta.get(0x02))


def _meta(first: bytes, start: int, path: str) -> tuple[dict[int, str], int]:
    """Return the UIDs of the file meta information (group 2) and where the data set starts."""
    uids: dict[int, str] = {}
    pos = start
    while first[pos : pos + 2] == b"\x02\x00" and pos + 12 <= len(first):
        element, vr, length = struct.unpack_from("<H2sH", first, pos + 2)
        if VRS.get(vr) is None:  # implicit, against the standard, but seen
            (length,) = struct.unpack_from("<I", first, pos + 4)
            begin = pos + 8
        elif VRS[vr]:
            (length,) = struct.unpack_from("<I", first, pos + 8)
            begin = pos + 12
        else:
            begin = pos + 8
        if begin + length > len(first):
            raise CorruptFile(f"element (0002,{element:04X}) claims {length:,} bytes", path=path)
        if element in (0x02, 0x10):
            try:
                value = uid(first[begin : begin + length])
            except CorruptFile as error:
                raise CorruptFile(f"(0002,{element:04X}): {error.reason}", path=path) from None
            if value:
                uids[element] = value
        pos = begin + length
    return uids, pos


def _plausible(first: bytes) -> bool:
    """Return whether bytes without the mark `DICM` start like a data set (group 8)."""
    if len(first) < 8:
        return False
    if first[:2] == b"\x08\x00":
        length = int.from_bytes(first[4:8], "little")
        return first[4:6] in VRS or length < 0x10000
    return first[:2] == b"\x00\x08" and first[4:6] in VRS


class Forward:
    """Bytes that come piece by piece, served by growing offset; only the last window is held."""

    def __init__(self, pieces: Iterator[bytes]):
        self._pieces = pieces
        self._held = b""
        self._at = 0

    def take(self, offset: int, count: int) -> bytes:
        """Return up to `count` bytes from `offset` on; what lies before is forgotten."""
        self._drop(offset)
        parts, have = [self._held], len(self._held)
        while have < count or self._at < offset:
            piece = next(self._pieces, b"")
            if not piece:
                break
            if self._at < offset:  # still before what was asked for
                self._held, parts = piece, []
                self._drop(offset)
                piece = self._held
                have = 0
            parts.append(piece)
            have += len(piece)
        self._held = b"".join(parts)
        return self._held[:count]

    def _drop(self, offset: int) -> None:
        cut = min(offset - self._at, len(self._held))
        self._held, self._at = self._held[cut:], self._at + cut


class _Raw(io.RawIOBase):
    """A `Take` read like a stream, from an offset on."""

    def __init__(self, take: Take, offset: int):
        self._take, self._offset = take, offset

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # the base says Buffer
        piece = self._take(self._offset, len(buffer))
        buffer[: len(piece)] = piece
        self._offset += len(piece)
        return len(piece)
