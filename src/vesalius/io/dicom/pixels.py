# SPDX-License-Identifier: Apache-2.0
"""Pixel data of one DICOM file to an array of stored values, for every transfer syntax.

Whatever a file announces is compared with what it holds before anything is allocated. Native
data are one plain read. JPEG of 8 bits goes through Pillow; all other codecs (GDCM, OpenJPEG,
CharLS, pylibjpeg-rle) run in a bounded child process (`sandbox`).

Sources: DICOM PS3.5 section 8 and annex A, PS3.3 section C.7.6.3.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np

from vesalius.errors import CorruptFile, ReadError, UnsupportedFormat, UsageError
from vesalius.io.dicom.codestream import (
    Codestream,
    check_rle,
    frame_spans,
    inspect,
    read_frame,
)
from vesalius.io.dicom.color import check_photometric, from_422, ybr_to_rgb
from vesalius.io.dicom.dataset import DEFLATED, EXPLICIT_BIG, open_data_set
from vesalius.io.dicom.header import Header
from vesalius.io.dicom.sandbox import DECODERS
from vesalius.io.limits import DEFAULT_LIMITS, Limits
from vesalius.types import Array, PathLike

_FLOAT, _DOUBLE = 0x7FE00008, 0x7FE00009
_JPEG = "1.2.840.10008.1.2.4."
_RLE = "1.2.840.10008.1.2.5"
# transfer syntax -> codings that may be inside
_CODINGS: dict[str, str] = {
    **{f"{_JPEG}{n}": "jpeg" for n in (50, 51, 53, 55, 57, 70)},
    **{f"{_JPEG}{n}": "jpeg-ls" for n in (80, 81)},
    **{f"{_JPEG}{n}": "jpeg2000" for n in (90, 91, 92, 93, 201, 202, 203)},
    _RLE: "rle",
}
_NATIVE = DEFLATED - {f"{_JPEG}95", f"{_JPEG}205"} | {
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    EXPLICIT_BIG,
}
_REFUSED = {
    f"{_JPEG}52": "JPEG extended (processes 3 and 5)",
    f"{_JPEG}94": "JPIP referenced",
    f"{_JPEG}95": "JPIP referenced deflated",
    f"{_JPEG}100": "MPEG2 video",
    f"{_JPEG}101": "MPEG2 video",
    f"{_JPEG}102": "MPEG-4 video",
    f"{_JPEG}103": "MPEG-4 video",
    f"{_JPEG}104": "MPEG-4 video",
    f"{_JPEG}105": "MPEG-4 video",
    f"{_JPEG}106": "MPEG-4 video",
    f"{_JPEG}107": "HEVC video",
    f"{_JPEG}108": "HEVC video",
    f"{_JPEG}110": "JPEG XL",
    f"{_JPEG}111": "JPEG XL",
    f"{_JPEG}112": "JPEG XL",
    f"{_JPEG}204": "JPIP HTJ2K referenced",
    f"{_JPEG}205": "JPIP HTJ2K referenced deflated",
    "1.2.840.10008.1.2.8.1": "deflated image frames",
    "1.2.840.113619.5.2": "GE private implicit big endian",
}
_CHUNK = 1 << 20
_CODEC_OVERHEAD = 32 << 20  # what a decoder may take beside a few copies of the frame


@dataclass(frozen=True, slots=True)
class _Layout:
    """The pixel module (PS3.3 C.7.6.3), checked."""

    rows: int
    columns: int
    frames: int
    samples: int
    allocated: int
    stored: int
    high_bit: int
    is_signed: bool
    is_float: bool
    photometric: str
    is_planar: bool
    syntax: str

    @property
    def pixels(self) -> int:
        return self.rows * self.columns

    @property
    def itemsize(self) -> int:
        return max(1, self.allocated // 8)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        kind = "f" if self.is_float else "i" if self.is_signed else "u"
        return np.dtype(f"{kind}{self.itemsize}")

    @property
    def decoded_frame(self) -> int:
        """Bytes of one frame in memory."""
        return self.pixels * self.samples * self.itemsize


def decode(
    source: PathLike | bytes,
    header: Header,
    *,
    limits: Limits = DEFAULT_LIMITS,
    frames: Sequence[int] | None = None,
) -> Array:
    """Return stored values, `(frames, rows, columns, samples)`, in the machine's byte order.

    Values keep the width that the header allocates; bits beyond BitsStored (overlays, padding)
    are cleared and the sign is extended. Color (YBR in any form) arrives as RGB; palette indices
    stay indices (`color.palette_to_rgb`); no slope is applied (`modality.modality_values`).

    Args:
        source: the file, or its bytes.
        header: what `read_header` returned for it.
        limits: how much memory it may take.
        frames: indices of the wanted frames, in the wanted order; None for all.

    Raises:
        UnsupportedFormat: no pixel data, or a transfer syntax or pixel form refused by name.
        CorruptFile: truncated pixel data, or header and codestream contradict each other; the
            evidence's `kind` says which (`truncated-pixel-data`, `codestream-mismatch`, …).
        LimitExceeded: it would take more memory than allowed.
    """
    path = "" if isinstance(source, bytes) else os.fspath(source)
    try:
        return _decode(source, header, limits, frames)
    except ReadError as error:
        if path and not error.path:
            raise type(error)(error.reason, path=path, **error.evidence) from error
        raise


def embedded_overlay(raw: Array, bit: int) -> Array:
    """Return the mask that overlay bit `bit` of unmasked stored values holds (PS3.3 C.9.2).

    `raw` comes from `decode` with a header whose `bits_stored` equals `bits_allocated`.
    """
    if raw.dtype.kind not in "iu" or not 0 <= bit < 8 * raw.dtype.itemsize:
        raise UsageError(f"bit must lie in the {8 * raw.dtype.itemsize} bits of a value, got {bit}")
    return (raw.view(f"u{raw.dtype.itemsize}") >> bit & 1).astype(bool)


def _decode(
    source: PathLike | bytes, header: Header, limits: Limits, frames: Sequence[int] | None
) -> Array:
    layout = _layout(header)
    size = len(source) if isinstance(source, bytes) else os.stat(source).st_size
    wanted: Sequence[int] = range(layout.frames) if frames is None else frames
    for number in frames or ():
        if not 0 <= number < layout.frames:
            raise UsageError(f"frames must lie in 0..{layout.frames - 1}, got {number}")
    need = layout.decoded_frame * len(wanted)
    what = f"{len(wanted):,} frame(s) of {layout.rows:,} x {layout.columns:,} pixels"
    if layout.syntax in _NATIVE:
        limits.check(need, size, what=what)
        return _native(source, header, layout, wanted, limits, size)
    # The codec holds the frame as 32-bit components and in its own output, then it is copied.
    limits.check(need + 3 * layout.decoded_frame, size, what=what)
    return _encapsulated(source, header, layout, wanted)


def _layout(header: Header) -> _Layout:
    """Check the header's pixel module; nothing is allocated before."""
    syntax = header.transfer_syntax or ""
    if syntax in _REFUSED:
        raise UnsupportedFormat(
            f"pixel data in {_REFUSED[syntax]} ({syntax}) are not supported; convert the file, "
            "for example to explicit VR little endian",
            transfer_syntax=syntax,
        )
    if syntax not in _NATIVE and syntax not in _CODINGS:
        raise UnsupportedFormat(
            f"transfer syntax {syntax or 'unknown'} is not supported", transfer_syntax=syntax
        )
    if header.pixel_offset is None:
        raise UnsupportedFormat("the file holds no pixel data", kind="no-pixel-data")
    is_float = header.pixel_tag in (_FLOAT, _DOUBLE)
    stated = {
        "Rows": header.rows,
        "Columns": header.columns,
        "BitsAllocated": header.bits_allocated,
    }
    for name, value in stated.items():
        if not value:
            raise CorruptFile(f"{name} must be at least 1, got {value}", kind="bad-pixel-module")
    rows, columns = int(header.rows or 0), int(header.columns or 0)
    allocated = int(header.bits_allocated or 0)
    frames = 1 if header.frames is None else header.frames
    samples = 1 if header.samples is None else header.samples
    stored = allocated if header.bits_stored is None else header.bits_stored
    high_bit = stored - 1 if header.high_bit is None else header.high_bit
    allowed = {_FLOAT: (32,), _DOUBLE: (64,)}.get(header.pixel_tag or 0, (1, 8, 16, 32))
    if allocated not in allowed:
        raise UnsupportedFormat(
            f"BitsAllocated must be one of {allowed}, got {allocated}", bits_allocated=allocated
        )
    if frames < 1:
        raise CorruptFile(f"NumberOfFrames must be at least 1, got {frames}", kind="frame-count")
    if is_float:
        stored, high_bit = allocated, allocated - 1
    if not (1 <= stored <= allocated and stored - 1 <= high_bit < allocated):
        raise CorruptFile(
            f"BitsStored {stored} and HighBit {high_bit} do not fit BitsAllocated {allocated}",
            kind="bad-pixel-module",
            bits_stored=stored,
            high_bit=high_bit,
            bits_allocated=allocated,
        )
    photometric = check_photometric(header.photometric, samples, columns, allocated)
    return _Layout(
        rows=rows,
        columns=columns,
        frames=frames,
        samples=samples,
        allocated=allocated,
        stored=stored,
        high_bit=high_bit,
        is_signed=header.pixel_representation == 1,
        is_float=is_float,
        photometric=photometric,
        is_planar=samples > 1 and header.planar == 1,
        syntax=syntax,
    )


# ---------------------------------------------------------------------------------- native data


def _native(
    source: PathLike | bytes,
    header: Header,
    layout: _Layout,
    wanted: Sequence[int],
    limits: Limits,
    size: int,
) -> Array:
    offset, length = int(header.pixel_offset or 0), int(header.pixel_length or 0)
    if length < 0:
        raise CorruptFile("native pixel data have no length", kind="bad-pixel-module")
    is_422 = layout.photometric.endswith("_422")
    bits = layout.pixels * layout.allocated * (2 if is_422 else layout.samples)
    if is_422 and length >= layout.pixels * 3 * layout.frames:
        is_422, bits = False, layout.pixels * 24  # written in full, whatever its name
    expected = (bits * layout.frames + 7) // 8
    held = length if layout.syntax in DEFLATED else min(length, size - offset)
    if held < expected:
        raise _truncated(held, expected)
    is_all = len(wanted) == layout.frames and wanted == range(layout.frames)
    if layout.syntax in DEFLATED:
        raw = _inflated(source, offset, expected, limits, size)
        pieces = [raw] if is_all else [_cut(raw, n, bits) for n in wanted]
    else:
        # 8-bit samples under VR OW lie in swapped 16-bit words (PS3.5 8.1.2 and annex A.3).
        is_swapped = layout.syntax == EXPLICIT_BIG and layout.allocated == 8
        is_swapped &= _bytes_at(source, offset - 8, 2).tobytes() == b"OW"
        read = _words_at if is_swapped else _bytes_at
        spans = [(n * bits // 8, ((n + 1) * bits + 7) // 8) for n in wanted]
        if is_all:
            spans = [(0, expected)]
        pieces = [read(source, offset + first, last - first) for first, last in spans]
    if layout.allocated == 1:
        flat = _unpack(pieces, wanted, bits, is_all)
        return flat.reshape(len(wanted), layout.rows, layout.columns, layout.samples)
    flat = pieces[0] if len(pieces) == 1 else np.concatenate([np.empty(0, np.uint8), *pieces])
    if layout.syntax == EXPLICIT_BIG and layout.itemsize > 1:
        flat = flat.view(f"u{layout.itemsize}").byteswap().view(np.uint8)
    values = flat.view(layout.dtype)
    if is_422:
        return from_422(
            values.reshape(len(wanted), layout.rows, layout.columns // 2, 4), layout.photometric
        )
    _clean(values, layout)
    if layout.is_planar:
        planes = values.reshape(len(wanted), layout.samples, layout.rows, layout.columns)
        values = np.ascontiguousarray(np.moveaxis(planes, 1, -1))
    values = values.reshape(len(wanted), layout.rows, layout.columns, layout.samples)
    return ybr_to_rgb(values) if layout.photometric.startswith("YBR_FULL") else values


def _bytes_at(source: PathLike | bytes, offset: int, count: int) -> Array:
    if isinstance(source, bytes):
        return np.frombuffer(source, np.uint8, count, offset).copy()
    piece = np.fromfile(source, np.uint8, count, offset=offset)
    if len(piece) < count:
        raise _truncated(len(piece), count)
    return piece


def _words_at(source: PathLike | bytes, offset: int, count: int) -> Array:
    """Read bytes that lie exchanged in 16-bit words; pixel data begin at an even offset."""
    lead = offset % 2
    words = _bytes_at(source, offset - lead, (lead + count + 1) // 2 * 2)
    return words.view(np.uint16).byteswap().view(np.uint8)[lead : lead + count]


def _inflated(
    source: PathLike | bytes, offset: int, count: int, limits: Limits, size: int
) -> Array:
    """Read from a deflated data set, piece by piece; the budget covers what comes before too."""
    out = np.empty(count, np.uint8)
    with _open(source) as stream:

        def take(start: int, wanted: int) -> bytes:
            stream.seek(start)
            return stream.read(wanted)

        data_set = open_data_set(take, size, limits=limits, path="")
        done = 0
        while done < count:
            piece = data_set.take(offset + done, min(_CHUNK, count - done))
            if not piece:
                raise _truncated(done, count)
            out[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
            done += len(piece)
    return out


def _cut(raw: Array, frame: int, bits: int) -> Array:
    return raw[frame * bits // 8 : ((frame + 1) * bits + 7) // 8].copy()


def _unpack(pieces: list[Array], wanted: Sequence[int], bits: int, is_all: bool) -> Array:
    """Unpack one bit per pixel; frames follow each other without padding (PS3.5 8.1.1)."""
    if is_all:
        return np.unpackbits(pieces[0], count=bits * len(wanted), bitorder="little")
    out = np.empty((len(wanted), bits), np.uint8)
    for row, (n, piece) in enumerate(zip(wanted, pieces, strict=True)):
        lead = n * bits % 8
        out[row] = np.unpackbits(piece, count=lead + bits, bitorder="little")[lead:]
    return out


def _clean(values: Array, layout: _Layout) -> None:
    """Clear the bits outside BitsStored and extend the sign, in place."""
    if layout.is_float or layout.stored == layout.allocated or layout.allocated == 1:
        return
    np.left_shift(values, layout.allocated - 1 - layout.high_bit, out=values)
    np.right_shift(values, layout.allocated - layout.stored, out=values)


# ---------------------------------------------------------------------------- encapsulated data


def _encapsulated(
    source: PathLike | bytes, header: Header, layout: _Layout, wanted: Sequence[int]
) -> Array:
    if header.pixel_length is not None and header.pixel_length >= 0:
        raise CorruptFile(
            "the transfer syntax is compressed, the pixel data are native",
            kind="bad-fragments",
            transfer_syntax=layout.syntax,
        )
    with _open(source) as stream:
        spans = frame_spans(stream, int(header.pixel_offset or 0), layout.frames)
        decoded = _frames(stream, [spans[n] for n in wanted], layout)
        if len(wanted) == 1:
            return next(decoded)[None]
        out = np.empty(
            (len(wanted), layout.rows, layout.columns, layout.samples), layout.dtype
        )  # (F, R, C, S)
        for row, frame in enumerate(decoded):
            out[row] = frame
    return out


def _frames(
    stream: IO[bytes], spans: list[list[tuple[int, int]]], layout: _Layout
) -> Iterator[Array]:
    for fragments in spans:
        data = read_frame(stream, fragments)
        if layout.syntax == _RLE:
            values, is_rgb = _rle(data, layout), False
        else:
            values, is_rgb = _codec(data, layout)
        shape = (layout.rows, layout.columns, layout.samples)
        values = values.reshape(shape).astype(layout.dtype, copy=False)
        if layout.allocated > 1:
            _clean(values, layout)
        is_ybr = layout.photometric.startswith("YBR_FULL")
        yield ybr_to_rgb(values) if is_ybr and not is_rgb else values


def _rle(data: bytes, layout: _Layout) -> Array:
    check_rle(data, samples=layout.samples, itemsize=layout.itemsize)
    raw = DECODERS.call(
        {
            "codec": "rle",
            "rows": layout.rows,
            "columns": layout.columns,
            "samples_per_pixel": layout.samples,
            "bits_allocated": layout.allocated,
        },
        data,
        expected=layout.decoded_frame,
        memory=4 * layout.decoded_frame + 3 * len(data) + _CODEC_OVERHEAD,
    )
    planes = np.frombuffer(raw, f"<u{layout.itemsize}").reshape(layout.samples, -1)
    values: Array = np.ascontiguousarray(planes.T) if layout.samples > 1 else planes.copy()
    return values


def _codec(data: bytes, layout: _Layout) -> tuple[Array, bool]:
    """Decode one JPEG-family frame; returns its values and whether they are RGB already."""
    stated = inspect(data)
    _compare(stated, layout)
    if stated.coding == "jpeg" and stated.precision == 8 and stated.process in (0, 1, 2):
        return _pillow(data, stated, layout)
    if stated.coding == "jpeg" and stated.process != 3 and layout.samples > 1:
        raise UnsupportedFormat(f"color JPEG of {stated.precision} bits is not supported")
    codec = {"jpeg": "gdcm", "jpeg-ls": "charls", "jpeg2000": "openjpeg"}[stated.coding]
    itemsize = 1 if stated.precision <= 8 else 2 if stated.precision <= 16 else 4
    raw = DECODERS.call(
        {
            "codec": codec,
            "rows": layout.rows,
            "columns": layout.columns,
            "samples": layout.samples,
            "precision": stated.precision,
            "itemsize": itemsize,
            "transfer_syntax": layout.syntax,
        },
        data,
        expected=layout.pixels * layout.samples * itemsize,
        memory=3 * layout.pixels * layout.samples * 4 + 3 * len(data) + _CODEC_OVERHEAD,
        seconds=30.0 + layout.decoded_frame / 1e6,
    )
    is_rgb = stated.coding == "jpeg2000" and stated.is_transformed is True
    return np.frombuffer(raw, f"<u{itemsize}").copy(), is_rgb


def _compare(stated: Codestream, layout: _Layout) -> None:
    coding = _CODINGS[layout.syntax]
    if stated.coding != coding:
        raise CorruptFile(
            f"the transfer syntax is {coding}, the codestream is {stated.coding}",
            kind="codestream-mismatch",
            transfer_syntax=layout.syntax,
            coding=stated.coding,
        )
    mine = (layout.rows, layout.columns, layout.samples)
    theirs = (stated.rows, stated.columns, stated.samples)
    if mine != theirs or stated.precision > layout.allocated:
        raise CorruptFile(
            f"the header states {mine} rows, columns, samples in {layout.allocated} bits, the "
            f"codestream {theirs} in {stated.precision} bits",
            kind="codestream-mismatch",
            header=[*mine, layout.allocated],
            codestream=[*theirs, stated.precision],
        )


def _pillow(data: bytes, stated: Codestream, layout: _Layout) -> tuple[Array, bool]:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            # Without a marker the decoder guesses a color transform; DICOM says RGB: none.
            if layout.photometric == "RGB" and stated.is_transformed is None:
                image.draft("YCbCr", image.size)
            values = np.array(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise CorruptFile(
            f"a JPEG frame is damaged: {error}", kind="undecodable-frame", codec="pillow"
        ) from error
    return values, layout.samples == 3


def _open(source: PathLike | bytes) -> IO[bytes]:
    return io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")


def _truncated(got: int, expected: int) -> CorruptFile:
    return CorruptFile(
        f"pixel data end after {max(0, got):,} of {expected:,} bytes; fetch the file again",
        kind="truncated-pixel-data",
        got=max(0, got),
        expected=expected,
    )
