# SPDX-License-Identifier: Apache-2.0
"""Stored values to modality values: rescale or lookup table (PS3.3 section C.11.1), inversion."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from vesalius.errors import CorruptFile, UsageError
from vesalius.io.dicom.dataset import open_data_set, open_file
from vesalius.io.dicom.elements import Tables
from vesalius.io.dicom.header import Header
from vesalius.io.limits import DEFAULT_LIMITS, Limits
from vesalius.types import Array, PathLike

_TABLES = Tables(
    {0x00283000: ("lut", {0x00283002: "descriptor", 0x00283004: "type", 0x00283006: "data"})}
)


@dataclass(frozen=True, slots=True, eq=False)
class ModalityTable:
    """A modality lookup table: `first` is the stored value that maps to `table[0]`."""

    first: int
    table: Array  # (entries,) uint16
    unit: str  # the type that the file states: `HU`, `OD`, `US` (unspecified), …


def modality_values(
    stored: Array,
    *,
    slope: float | Array | None = None,
    intercept: float | Array | None = None,
    table: ModalityTable | None = None,
) -> Array:
    """Return `stored * slope + intercept`, or what the table says; never both.

    Slope and intercept may be one number or one per frame, `(frames,)`. The result stays integer
    (the smallest signed type that holds it) where both are whole numbers, else it is float32,
    or float64 for stored values of more than 24 bits.
    """
    if table is not None:
        if slope is not None or intercept is not None:
            raise UsageError("a modality table excludes slope and intercept: give one of them")
        last = len(table.table) - 1
        return table.table[np.clip(stored.astype(np.int64) - table.first, 0, last)]
    a = _per_frame(1.0 if slope is None else slope, stored)
    b = _per_frame(0.0 if intercept is None else intercept, stored)
    if (a == 1).all() and (b == 0).all():
        return stored
    if stored.dtype.kind in "iu" and (a == np.rint(a)).all() and (b == np.rint(b)).all():
        low, high = (int(stored.min()), int(stored.max())) if stored.size else (0, 0)
        ends = [float(f(end * a + b)) for end in (low, high) for f in (np.min, np.max)]
        for name in ("i2", "i4", "i8"):
            info = np.iinfo(name)
            if info.min <= min(ends) and max(ends) <= info.max and abs(b).max() < 2**62:
                # Integer products wrap around and come back: the sum fits, so it is exact.
                kept = stored.astype(name)
                np.multiply(kept, a.astype(np.int64).astype(name), out=kept)
                np.add(kept, b.astype(np.int64).astype(name), out=kept)
                return kept
    kind = np.float64 if stored.dtype.itemsize > 2 else np.float32
    values: Array = stored.astype(kind)
    np.multiply(values, a, out=values, casting="same_kind")
    np.add(values, b, out=values, casting="same_kind")
    return values


def invert(stored: Array, *, bits_stored: int, is_signed: bool) -> Array:
    """Return MONOCHROME1 values as MONOCHROME2: white becomes the largest value."""
    total = -1 if is_signed else (1 << bits_stored) - 1  # lowest value + highest value
    inverted: Array = np.subtract(stored.dtype.type(total), stored)
    return inverted


def read_modality_table(
    source: PathLike, header: Header, *, limits: Limits = DEFAULT_LIMITS
) -> ModalityTable:
    """Return the modality lookup table of a file; `CorruptFile` where it is missing or short."""
    path = os.fspath(source)
    with open_file(path) as (handle, size):
        data_set = open_data_set(
            lambda offset, count: os.pread(handle, count, offset), size, limits=limits, path=path
        )
        found, _ = data_set.collect(_TABLES, limits, path)
    item = (found.get("lut") or [{}])[0]
    order = ">" if data_set.order.big else "<"
    descriptor = np.frombuffer(item.get("descriptor", b"")[:6], f"{order}u2").tolist()
    if len(descriptor) != 3 or "data" not in item:
        raise CorruptFile("the modality lookup table is incomplete", path=path, kind="bad-lut")
    entries, first, bits = descriptor
    entries = entries or 65536
    if header.pixel_representation == 1 and first > 32767:
        first -= 65536
    raw = item["data"]
    words = np.frombuffer(raw[: len(raw) // 2 * 2], f"{order}u2")
    if bits <= 8 and len(raw) < 2 * entries:  # two entries in each word
        words = words.astype("<u2").view(np.uint8)
    if len(words) < entries:
        raise CorruptFile(
            f"the modality lookup table holds {len(words):,} of {entries:,} entries",
            path=path,
            kind="bad-lut",
            got=len(words),
            expected=entries,
        )
    unit = item.get("type", b"").strip(b" \0").decode("latin-1")
    return ModalityTable(first, words[:entries].astype(np.uint16), unit)


def _per_frame(value: float | Array, stored: Array) -> Array:
    numbers = np.atleast_1d(np.asarray(value, np.float64))
    if numbers.ndim != 1 or len(numbers) not in (1, len(stored)):
        raise UsageError(
            f"slope and intercept must be one number or one per frame ({len(stored)}), got shape "
            f"{np.shape(value)}"
        )
    return numbers.reshape(-1, *(1,) * (stored.ndim - 1))
