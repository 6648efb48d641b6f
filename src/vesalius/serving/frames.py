# SPDX-License-Identifier: Apache-2.0
"""Frames of an instance, one by one, as WADO-RS gives them (PS3.18 sections 8.7.3 and 10.4.1.1.6).

Compressed frames go out as they are stored where the asker takes their media type, which costs no
decoding; otherwise, and from uncompressed instances, frames are the plain values of their pixels,
little endian, color as RGB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from vesalius.errors import UsageError
from vesalius.io.dicom.codestream import frame_spans, read_frame
from vesalius.io.dicom.header import Header
from vesalius.io.dicom.pixels import decode
from vesalius.serving.attributes import LIMITS

PLAIN = "application/octet-stream"
_EXPLICIT = "1.2.840.10008.1.2.1"
_JPEG = "1.2.840.10008.1.2.4."
# transfer syntax -> media type of one frame (PS3.18 table 8.7.3-2)
_TYPES = {
    **dict.fromkeys((f"{_JPEG}{n}" for n in (50, 51, 57, 70)), "image/jpeg"),
    **dict.fromkeys((f"{_JPEG}{n}" for n in (80, 81)), "image/jls"),
    **dict.fromkeys((f"{_JPEG}{n}" for n in (90, 91)), "image/jp2"),
    **dict.fromkeys((f"{_JPEG}{n}" for n in (201, 202, 203)), "image/jphc"),
    "1.2.840.10008.1.2.5": "image/dicom-rle",
}
_MOST = 1000


def numbers(text: str, frames: int) -> list[int]:
    """Read a list of frames, `1,2,7`, and return them counted from 0.

    Raises:
        UsageError: no such list, or frames that the instance has not.
    """
    parts = text.split(",")
    if len(parts) > _MOST or not all(part.isdigit() and len(part) < 8 for part in parts):
        raise UsageError(f"frames are numbers joined by commas, at most {_MOST}")
    found = [int(part) - 1 for part in parts]
    if not all(0 <= number < frames for number in found):
        raise UsageError(f"the instance has the frames 1 to {frames}")
    return found


def media_type(header: Header, accepted: str) -> str:
    """Return the media type that frames go out as: their own where it is accepted, or plain."""
    own = _TYPES.get(header.transfer_syntax or "", PLAIN)
    wanted = accepted.lower()
    any_type = "*/*" in wanted or "transfer-syntax=*" in wanted or f"={header.transfer_syntax}" in (
        wanted.replace('"', "")
    )  # fmt: skip
    return own if own in wanted or any_type else PLAIN


def frames(path: Path, header: Header, wanted: Sequence[int], kind: str) -> Iterator[bytes]:
    """Yield the bytes of frames, counted from 0, one in memory at a time.

    Args:
        path: of the instance.
        header: of `read_header`.
        wanted: frames.
        kind: of `media_type`.

    Raises what `pixels.decode` raises.
    """
    if kind != PLAIN:
        with open(path, "rb") as stream:
            spans = frame_spans(stream, int(header.pixel_offset or 0), header.frames or 1)
            for number in wanted:
                yield read_frame(stream, spans[number])
        return
    for number in wanted:
        values = decode(path, header, limits=LIMITS, frames=[number])[0]  # (R, C, S)
        if header.bits_allocated == 1:
            yield np.packbits(values.astype(bool), bitorder="little").tobytes()
        else:
            yield values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()


def content_type(header: Header, kind: str) -> str:
    """Return the header of one frame's part."""
    syntax = _EXPLICIT if kind == PLAIN else header.transfer_syntax
    return f"{kind}; transfer-syntax={syntax}"
