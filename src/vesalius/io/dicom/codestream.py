# SPDX-License-Identifier: Apache-2.0
"""What a compressed frame says about itself, and where the frames of encapsulated data lie.

A DICOM header and the codestream inside can disagree; a decoder believes the codestream and
allocates what it asks for. So the stated size is read here, without decoding, and compared.

Sources: DICOM PS3.5 annexes A.4 and G; ITU-T T.81 B.2.2 (JPEG), T.87 C.2.2 (JPEG-LS),
T.800 A.5.1 and A.6.1 (JPEG 2000).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import IO

from vesalius.errors import CorruptFile, UnsupportedFormat

_ITEM = b"\xfe\xff\x00\xe0"
_DELIMITER = b"\xfe\xff\xdd\xe0"
_NO_FRAME_MARKERS = {0xC4, 0xC8, 0xCC}  # DHT, JPG, DAC lie between the SOF codes
_MAX_TILES = 16384  # OpenJPEG keeps about 6 kB for each tile that a codestream announces


@dataclass(frozen=True, slots=True)
class Codestream:
    """The size that a compressed frame states.

    Attributes:
        coding: `jpeg`, `jpeg-ls`, `jpeg2000` or `rle`.
        rows, columns, samples, precision: of one frame; precision is bits per sample.
        process: the number after `SOF` for JPEG (0 baseline, 1 extended, 2 progressive,
            3 lossless), else -1.
        is_transformed: whether the color samples went through a color transform that the decoder
            undoes or may undo (JFIF or Adobe marker, JPEG 2000 multiple component transform);
            None where the stream does not say.
    """

    coding: str
    rows: int
    columns: int
    samples: int
    precision: int
    process: int = -1
    is_transformed: bool | None = None


Span = tuple[int, int]  # offset in the stream, length in bytes


def frame_spans(stream: IO[bytes], offset: int, frames: int, *, path: str = "") -> list[list[Span]]:
    """Return, for each frame of encapsulated pixel data, the fragments that hold it.

    `offset` is where the first item (the basic offset table) starts. Frames are told apart, in
    this order: one frame owns all fragments; as many fragments as frames; the basic offset table;
    the start marker of a JPEG or JPEG 2000 codestream. Raises `CorruptFile` where the items are
    damaged or hold another number of frames than the header states.
    """
    table, items = _items(stream, offset, path)
    if not items:
        raise _truncated("the pixel data hold no fragment", path, frames=frames, fragments=0)
    if frames == 1:
        return [items]
    if len(items) == frames:
        return [[item] for item in items]
    if len(items) < frames:
        raise _truncated(
            f"the header states {frames:,} frames, the pixel data hold {len(items):,} fragments",
            path,
            frames=frames,
            fragments=len(items),
        )
    groups = _by_table(table, items) if table else _by_marker(stream, items)
    if len(groups) != frames:
        raise CorruptFile(
            f"the header states {frames:,} frames, {len(items):,} fragments make up "
            f"{len(groups):,}",
            path=path,
            kind="frame-count",
            frames=frames,
            found=len(groups),
        )
    return groups


def read_frame(stream: IO[bytes], spans: Sequence[Span], *, path: str = "") -> bytes:
    """Return one frame's codestream, its fragments joined."""
    pieces = []
    for start, length in spans:
        stream.seek(start)
        piece = stream.read(length)
        if len(piece) != length:
            raise _truncated(
                f"a fragment ends after {len(piece):,} of {length:,} bytes",
                path,
                got=len(piece),
                expected=length,
            )
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def inspect(data: bytes, *, path: str = "") -> Codestream:
    """Return what a JPEG, JPEG-LS or JPEG 2000 codestream states; nothing is decoded.

    Raises `CorruptFile` when no frame header can be found and `UnsupportedFormat` for a coding
    that no decoder here knows.
    """
    try:
        if data[:2] == b"\xff\xd8":
            return _jpeg(data, path)
        if data[:4] == b"\xff\x4f\xff\x51":
            return _jpeg2000(data, 0, path)
        if data[4:8] == b"jP  ":
            return _jpeg2000(data, _jp2_codestream(data, path), path)
    except (struct.error, IndexError) as error:
        raise _truncated("a codestream ends inside its header", path, got=len(data)) from error
    raise CorruptFile(
        "a frame is no JPEG, JPEG-LS or JPEG 2000 codestream",
        path=path,
        kind="bad-codestream",
        starts_with=data[:4].hex(),
    )


def check_rle(data: bytes, *, samples: int, itemsize: int, path: str = "") -> None:
    """Check an RLE frame's header: one segment per byte of a sample, offsets in order."""
    if len(data) < 64:
        raise _truncated("an RLE frame ends inside its header", path, got=len(data), expected=64)
    count, *offsets = struct.unpack("<16I", data[:64])
    wanted = samples * itemsize
    if count != wanted:
        raise CorruptFile(
            f"an RLE frame holds {count} segments, {wanted} were expected for {samples} "
            f"sample(s) of {itemsize} byte(s)",
            path=path,
            kind="codestream-mismatch",
            segments=count,
            expected=wanted,
        )
    used = offsets[:count]
    if used[0] != 64 or any(b <= a for a, b in pairwise(used)):
        raise CorruptFile(
            "the segment offsets of an RLE frame are out of order",
            path=path,
            kind="bad-codestream",
            offsets=used,
        )
    if used[-1] >= len(data):
        raise _truncated(
            "an RLE frame ends before its last segment",
            path,
            got=len(data),
            expected=used[-1] + 2,
        )


def _items(stream: IO[bytes], offset: int, path: str) -> tuple[tuple[int, ...], list[Span]]:
    """Return the basic offset table and the spans of all fragments."""
    end = stream.seek(0, 2)
    position = offset
    spans: list[Span] = []
    while True:
        if position + 8 > end:
            raise _truncated(
                "the pixel data end without a sequence delimiter",
                path,
                fragments=max(0, len(spans) - 1),
            )
        stream.seek(position)
        head = stream.read(8)
        length = int.from_bytes(head[4:], "little")
        position += 8
        if head[:4] == _DELIMITER:
            break
        if head[:4] != _ITEM:
            raise CorruptFile(
                "encapsulated pixel data hold something that is no item",
                path=path,
                kind="bad-fragments",
                tag=head[:4].hex(),
                fragments=max(0, len(spans) - 1),
            )
        if position + length > end:
            raise _truncated(
                f"a fragment of {length:,} bytes reaches past the end of the file",
                path,
                expected=length,
                got=end - position,
            )
        spans.append((position, length))
        position += length
    if not spans:
        return (), []
    start, length = spans[0]
    stream.seek(start)
    entries = stream.read(length)
    table = struct.unpack(f"<{length // 4}I", entries[: length // 4 * 4])
    return table, spans[1:]


def _by_table(table: Sequence[int], items: list[Span]) -> list[list[Span]]:
    origin = items[0][0] - 8
    starts = set(table)
    groups: list[list[Span]] = []
    for start, length in items:
        if start - 8 - origin in starts or not groups:
            groups.append([])
        groups[-1].append((start, length))
    return groups


def _by_marker(stream: IO[bytes], items: list[Span]) -> list[list[Span]]:
    groups: list[list[Span]] = []
    for start, length in items:
        stream.seek(start)
        head = stream.read(min(4, length))
        begins = head[:3] == b"\xff\xd8\xff" or head == b"\xff\x4f\xff\x51"
        if begins or not groups:
            groups.append([])
        groups[-1].append((start, length))
    return groups


def _jpeg(data: bytes, path: str) -> Codestream:
    position = 2
    is_transformed: bool | None = None
    while True:
        if data[position] != 0xFF:
            raise CorruptFile(
                "a JPEG header is damaged", path=path, kind="bad-codestream", position=position
            )
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        body = position + 4
        if marker == 0xE0 and data[body : body + 4] == b"JFIF":
            is_transformed = True
        elif marker == 0xEE and data[body : body + 5] == b"Adobe" and length >= 14:
            is_transformed = data[body + 11] == 1
        elif marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in _NO_FRAME_MARKERS):
            precision, rows, columns, samples = struct.unpack_from(">BHHB", data, body)
            return Codestream(
                coding="jpeg-ls" if marker == 0xF7 else "jpeg",
                rows=rows,
                columns=columns,
                samples=samples,
                precision=precision,
                process=-1 if marker == 0xF7 else marker - 0xC0,
                is_transformed=is_transformed,
            )
        elif marker in (0xD9, 0xDA):
            raise CorruptFile(
                "a JPEG codestream has no frame header", path=path, kind="bad-codestream"
            )
        position += 2 + length


def _jpeg2000(data: bytes, start: int, path: str) -> Codestream:
    fields = struct.unpack_from(">HHIIIIIIIIH", data, start + 4)
    _, _, x1, y1, x0, y0, tile_x, tile_y, tile_x0, tile_y0, samples = fields
    component = start + 4 + 38
    depths, steps = [], []
    for number in range(samples):
        depth, step_x, step_y = struct.unpack_from(">BBB", data, component + 3 * number)
        depths.append((depth & 0x7F) + 1)
        steps.append((step_x, step_y))
    if set(steps) != {(1, 1)} or len(set(depths)) != 1:
        raise UnsupportedFormat(
            "JPEG 2000 with subsampled or unequal components is not supported",
            path=path,
            steps=steps[:4],
            depths=depths[:4],
        )
    if tile_x == 0 or tile_y == 0 or x1 <= x0 or y1 <= y0:
        raise CorruptFile("a JPEG 2000 header states no area", path=path, kind="bad-codestream")
    tiles = -(-(x1 - tile_x0) // tile_x) * -(-(y1 - tile_y0) // tile_y)
    if tiles > _MAX_TILES:
        raise CorruptFile(
            f"a JPEG 2000 frame announces {tiles:,} tiles, at most {_MAX_TILES:,} are read",
            path=path,
            kind="bad-codestream",
            tiles=tiles,
        )
    return Codestream(
        coding="jpeg2000",
        rows=y1 - y0,
        columns=x1 - x0,
        samples=samples,
        precision=depths[0],
        is_transformed=_component_transform(data, start + 4),
    )


def _component_transform(data: bytes, position: int) -> bool | None:
    """Return the flag of the default coding style (COD), which lies in the main header."""
    while True:
        (length,) = struct.unpack_from(">H", data, position)
        position += length
        (marker,) = struct.unpack_from(">H", data, position)
        position += 2
        if marker == 0xFF52:
            return data[position + 6] == 1
        if marker in (0xFF90, 0xFFD9):  # first tile part: the main header is over
            return None


def _jp2_codestream(data: bytes, path: str) -> int:
    """Return where the codestream starts inside a JP2 file (against PS3.5 A.4.4, but seen)."""
    position = 0
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"jp2c":
            start = position + (16 if length == 1 else 8)
            if data[start : start + 4] == b"\xff\x4f\xff\x51":
                return start
            break
        if length < 8:
            break
        position += length
    raise CorruptFile("a JP2 file holds no codestream", path=path, kind="bad-codestream")


def _truncated(message: str, path: str, **evidence: object) -> CorruptFile:
    return CorruptFile(message, path=path, kind="truncated-pixel-data", **evidence)
