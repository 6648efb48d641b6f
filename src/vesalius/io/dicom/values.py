# SPDX-License-Identifier: Apache-2.0
"""From the raw bytes of one DICOM element to a value: numbers, codes, UIDs, text (PS3.5 section 6).

Every function returns None for an empty value and raises `ValueError` for one that breaks its VR.
"""

from __future__ import annotations

import math
import re
import struct
import warnings
from collections.abc import Callable
from typing import Any

from vesalius.errors import CorruptFile

_UID = re.compile(rb"[0-9.]{1,64}").fullmatch
_PAD = b" \0\t\r\n"


def code(raw: bytes) -> str | None:
    """Return one code string, or a date or time, without padding."""
    return raw.strip(_PAD).decode("latin-1") or None


def codes(raw: bytes) -> tuple[str, ...] | None:
    """Return the values of a code string, without padding."""
    text = raw.strip(_PAD).decode("latin-1")
    return tuple(value.strip() for value in text.split("\\")) if text else None


def first(raw: bytes) -> str | None:
    """Return the first of several codes."""
    return raw.split(b"\\", 1)[0].strip(_PAD).decode("latin-1") or None


def uid(raw: bytes) -> str | None:
    """Return a unique identifier of digits and dots, at most 64; anything else is refused."""
    raw = raw.strip(_PAD)
    if not raw:
        return None
    if not _UID(raw):
        raise CorruptFile(
            f"a unique identifier must be at most 64 digits and dots, got {len(raw)} characters, "
            f"the first {raw[:16].decode('latin-1')!r}; give the instance a valid UID"
        )
    return raw.decode("ascii")


def integer(raw: bytes) -> int | None:
    """Return the first number of an integer string; `2.0` is read as 2."""
    raw = raw.split(b"\\", 1)[0].strip(_PAD)
    if not raw:
        return None
    try:
        return int(raw)
    except ValueError:
        value = float(raw)
        if not value.is_integer():
            raise
        return int(value)


def decimal(raw: bytes) -> float | None:
    """Return the first number of a decimal string; it must be finite."""
    raw = raw.split(b"\\", 1)[0].strip(_PAD)
    if not raw:
        return None
    value = float(raw)
    if not math.isfinite(value):
        raise ValueError("not finite")
    return value


def decimals(count: int = 0) -> Callable[[bytes], tuple[float, ...] | None]:
    """Return a reader of decimal strings with `count` values; 0 allows any number."""

    def read(raw: bytes) -> tuple[float, ...] | None:
        raw = raw.strip(_PAD)
        if not raw:
            return None
        values = tuple(map(float, raw.split(b"\\")))
        if (count and len(values) != count) or not math.isfinite(math.fsum(values)):
            raise ValueError(f"{len(values)} values")
        return values

    return read


def binary(form: str, *, big: bool) -> Callable[[bytes], Any]:
    """Return a reader of the first binary number; `form` as in `struct`, for example `H`."""
    unpack = struct.Struct((">" if big else "<") + form).unpack_from
    size = struct.calcsize(form)

    def read(raw: bytes) -> Any:
        if not raw:
            return None
        if len(raw) < size:
            raise ValueError(f"{len(raw)} bytes")
        value = unpack(raw)[0]
        if value.__class__ is float and not math.isfinite(value):
            raise ValueError("not finite")
        return value

    return read


def binaries(form: str, count: int, *, big: bool) -> Callable[[bytes], tuple[float, ...] | None]:
    """Return a reader of `count` binary numbers."""
    unpack = struct.Struct((">" if big else "<") + count * form).unpack

    def read(raw: bytes) -> tuple[float, ...] | None:
        if not raw:
            return None
        if len(raw) != struct.calcsize("<" + count * form):
            raise ValueError(f"{len(raw)} bytes")
        values = unpack(raw)
        if not math.isfinite(math.fsum(values)):
            raise ValueError("not finite")
        return values

    return read


def present(raw: bytes) -> bool:
    """Return whether the element holds anything."""
    return bool(raw)


def text(raw: bytes, character_sets: bytes) -> str | None:
    """Return text in the character set(s) that element (0008,0005) names."""
    if raw.isascii() and b"\x1b" not in raw:
        return raw.strip(_PAD).decode("ascii") or None
    names = character_sets.strip(_PAD)
    if names == b"ISO_IR 192":
        return raw.strip(_PAD).decode("utf-8", "replace") or None
    if names == b"ISO_IR 100":
        return raw.strip(_PAD).decode("latin-1") or None
    from pydicom.charset import convert_encodings, decode_bytes

    with warnings.catch_warnings():
        # pydicom warns of unknown sets and undecodable bytes; both come back as replacements.
        warnings.simplefilter("ignore")
        known = [name.strip() for name in names.decode("latin-1").split("\\")]
        try:
            encodings = convert_encodings(known)
        except LookupError:
            encodings = ["latin-1"]
        decoded: str = decode_bytes(raw, encodings, {"\\", "^", "="})
    return decoded.strip(" \0\t\r\n") or None
