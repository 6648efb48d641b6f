# SPDX-License-Identifier: Apache-2.0
"""The head of a stored file: an empty preamble, `DICM` and file meta information (PS3.10 7.1).

It is always made anew, from checked values. What a sender put into its own (a program in the
preamble, titles of its own node, values that break readers) is not kept.
"""

from __future__ import annotations

import struct

from vesalius.version import __version__

_CLASS = "2.25.211766283012166012104932424061823862317"  # of this implementation (PS3.7 D.3.3.2)


def file_head(sop_class: str, sop_uid: str, transfer_syntax: str) -> bytes:
    """Return the bytes that come before the data set. The identifiers must be valid."""
    version = f"VESALIUS {__version__}"[:16]
    group = b"".join(
        (
            struct.pack("<HH2sHI", 2, 0x01, b"OB", 0, 2) + b"\0\1",
            _element(0x02, b"UI", sop_class.encode("ascii"), b"\0"),
            _element(0x03, b"UI", sop_uid.encode("ascii"), b"\0"),
            _element(0x10, b"UI", transfer_syntax.encode("ascii"), b"\0"),
            _element(0x12, b"UI", _CLASS.encode("ascii"), b"\0"),
            _element(0x13, b"SH", version.encode("ascii"), b" "),
        )
    )
    return bytes(128) + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(group)) + group


def _element(number: int, vr: bytes, value: bytes, pad: bytes) -> bytes:
    value += pad * (len(value) % 2)
    return struct.pack("<HH2sH", 2, number, vr, len(value)) + value
