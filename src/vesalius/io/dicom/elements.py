# SPDX-License-Identifier: Apache-2.0
"""Walk the elements of a DICOM data set without building it: bounded, forward only, no recursion.

Encoding after PS3.5 section 7 (data elements, sequences, undefined lengths) and PS3.10 section 7
(preamble and file meta information). The walker keeps the raw values of the elements that a table
asks for and steps over all others; it never touches pixel data.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from vesalius.errors import CorruptFile, LimitExceeded
from vesalius.io.limits import Limits

# tag -> name, or (name, table of the sequence's items)
Table = Mapping[int, Any]
Found = dict[str, Any]  # name -> raw bytes, or a list of Found for a sequence
# take(offset, count) -> up to count bytes of the data set from offset on; fewer at the end
Take = Callable[[int, int], bytes]

WINDOW = 1 << 16  # bytes looked at in one go
_LARGEST_VALUE = 1 << 20  # of an element asked for: names, numbers, codes
_UNDEFINED = 0xFFFFFFFF
# VR -> whether its length takes 4 bytes after 2 reserved ones (PS3.5 section 7.1.2)
VRS = dict.fromkeys(
    b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split(), False
) | dict.fromkeys(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split(), True)


class Order(NamedTuple):
    """How bytes are laid out in one data set."""

    explicit: bool
    big: bool = False


class Pixels(NamedTuple):
    """Where the pixel data begin in the data set; `length` is -1 for encapsulated data."""

    tag: int
    offset: int
    length: int


class _Level(NamedTuple):
    """A sequence or item that the walker is inside of."""

    table: Table
    found: Found
    items: list[Found] | None  # of the sequence; None where nobody asks for them
    in_sequence: bool  # items are expected, not elements
    fragments: bool  # encapsulated pixel data of an icon: items hold bytes
    explicit: bool
    end: int  # absolute; -1 when a delimiter ends it


def swap(tag: int) -> int:
    """Return a tag as four little-endian bytes show it: group and element exchanged."""
    return (tag >> 16) | (tag & 0xFFFF) << 16


class Tables:
    """A table of wanted elements, keyed once for each byte order."""

    def __init__(self, table: Table):
        self.big: Table = table
        self.little: Table = _swapped(table)


def _swapped(table: Table) -> Table:
    return {
        swap(tag): want if isinstance(want, str) else (want[0], _swapped(want[1]))
        for tag, want in table.items()
    }


def walk(
    take: Take,
    first: bytes,
    start: int,
    size: int,
    tables: Tables,
    order: Order,
    *,
    limits: Limits,
    path: str = "",
) -> tuple[Found, Pixels | None]:
    """Collect the raw values that `tables` names, up to the pixel data or the end.

    Args:
        take: reads the data set; offsets only grow from call to call.
        first: the bytes of the data set from `start` on that were already read.
        start: offset of the first element.
        size: bytes of the data set, or -1 when they are not known (deflated).
        tables: the wanted elements.
        order: VR and byte order.
        limits: bounds on elements and depth.
        path: for messages.

    Raises:
        CorruptFile: an element reaches past its container, or is no element at all.
        LimitExceeded: too many elements, or sequences nested too deeply.
    """
    big, explicit = order.big, order.explicit
    head = struct.Struct(">I2sH" if big else "<I2sH").unpack_from
    plain = struct.Struct(">II" if big else "<II").unpack_from
    long_length = struct.Struct(">I" if big else "<I").unpack_from
    item_key, item_end, sequence_end = _DELIMITERS[big]
    pixel_keys = _PIXELS[big]
    vrs = VRS
    table = tables.big if big else tables.little
    deep = 16 * limits.max_depth  # no shorter value can hold a nest that is too deep
    budget = max(limits.max_elements, max(size, 0) // 16)

    root = found = Found()
    levels: list[_Level] = []
    in_sequence = fragments = False
    items: list[Found] | None = None
    end = size  # absolute end of the container; -1 when a delimiter ends it
    # Element by element: `pos` counts within `buffer`, which starts at `base`. To read on from an
    # element, or to leave a container, `stop` is drawn back to it; the head of the loop acts.
    buffer, base, pos, window, asked = first, start, 0, WINDOW, 0
    stop = len(buffer) if end < 0 else min(len(buffer), end - base)

    def broken(message: str) -> CorruptFile:
        return CorruptFile(message, path=path, offset=base + pos)

    while True:
        if pos + 8 > stop:
            if end >= 0 and base + pos >= end:
                if not levels:
                    return root, None
                table, found, items, in_sequence, fragments, explicit, end = levels.pop()
                stop = len(buffer) if end < 0 else min(len(buffer), end - base)
                continue
            base, pos, buffer = base + pos, 0, take(base + pos, window)
            asked, window = window, WINDOW
            stop = len(buffer) if end < 0 else min(len(buffer), end - base)
            if stop >= 8:
                continue
            if not levels and not buffer.strip(b"\0"):
                return root, None  # the end, or padding
            raise broken("the header ends in the middle of an element or sequence")
        budget -= 1
        if budget < 0:
            raise LimitExceeded(
                f"the header holds more than the {limits.max_elements:,} elements allowed",
                path=path,
                allowed=limits.max_elements,
            )

        begin = pos
        if in_sequence:
            key, length = plain(buffer, pos)
            pos += 8
            if key == sequence_end:
                end, stop = base + pos, pos
                continue
            if key != item_key:
                raise broken(f"a sequence holds {_name(key, big)} where an item is expected")
            if not fragments:
                inner = -1 if length == _UNDEFINED else base + pos + length
                if inner > end >= 0 or inner > size >= 0:
                    raise broken(f"an item claims {length:,} bytes, more than are left")
                levels.append(_Level(table, found, items, True, False, explicit, end))
                found, in_sequence, end = Found(), False, inner
                if items is not None:
                    items.append(found)
                stop = len(buffer) if end < 0 else min(len(buffer), end - base)
                continue
            vr, want = b"OB", None
        elif explicit:
            key, vr, length = head(buffer, pos)
            is_long = vrs.get(vr)
            if is_long is None:
                if key == item_end and levels:
                    pos += 8
                    end, stop = base + pos, pos
                    continue
                if not (vr.isalpha() and vr.isupper()):
                    raise broken(f"{_name(key, big)} has no value representation")
                is_long = True  # PS3.5 section 6.2: VRs to come take the long form
            if is_long:
                if pos + 12 > len(buffer):
                    if not begin and asked:
                        raise broken("the header ends in the middle of an element")
                    stop = pos
                    continue
                (length,) = long_length(buffer, pos + 8)
                pos += 12
            else:
                pos += 8
            want = table.get(key)
        else:
            key, length = plain(buffer, pos)
            pos += 8
            if key == item_end and levels:
                end, stop = base + pos, pos
                continue
            vr, want = b"", table.get(key)

        if key in pixel_keys and not levels:
            tag = key if big else swap(key)
            return root, Pixels(tag, base + pos, -1 if length == _UNDEFINED else length)

        after = -1
        if length != _UNDEFINED:
            after = base + pos + length
            if after > size >= 0 or after > end >= 0:
                raise broken(f"{_name(key, big)} claims {length:,} bytes, more than are left")
            if want.__class__ is str:
                if pos + length > len(buffer):
                    if length > _LARGEST_VALUE or (not begin and asked >= length + 12):
                        raise broken(f"{_name(key, big)} has a value of {length:,} bytes")
                    window = max(WINDOW, length + 12)
                    pos = stop = begin
                    continue
                found[want] = buffer[pos : pos + length]
                pos += length
                continue
            if want is None:
                # A long value may hide a nest of sequences: look whether it is one.
                is_nest = vr == b"SQ"
                if length >= deep and vr in (b"", b"UN"):
                    if pos + 4 > len(buffer):
                        if not begin and asked:
                            raise broken("the header ends in the middle of an element")
                        pos = stop = begin
                        continue
                    is_nest = buffer[pos : pos + 4] == _ITEM_BYTES[big]
                if length < deep or not is_nest:
                    pos += length
                    continue

        # Into a sequence.
        if len(levels) >= 2 * limits.max_depth:
            raise LimitExceeded(
                f"sequences are nested more than {limits.max_depth} deep",
                path=path,
                allowed=limits.max_depth,
            )
        levels.append(_Level(table, found, items, in_sequence, fragments, explicit, end))
        if want is None or want.__class__ is str:
            table, items = {}, None
        else:
            name, table = want
            items = found.setdefault(name, [])
        in_sequence, fragments, end = True, vr in (b"OB", b"OW"), after
        explicit = explicit and vr != b"UN"  # PS3.5 section 6.2.2: UN of undefined length
        stop = len(buffer) if end < 0 else min(len(buffer), end - base)


# As the two byte orders show them, little-endian first.
_DELIMITERS = ((0xE000FFFE, 0xE00DFFFE, 0xE0DDFFFE), (0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD))
_ITEM_BYTES = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
_PIXELS = ({0x00087FE0, 0x00097FE0, 0x00107FE0}, {0x7FE00008, 0x7FE00009, 0x7FE00010})


def _name(key: int, big: bool) -> str:
    tag = key if big else swap(key)
    return f"element ({tag >> 16:04X},{tag & 0xFFFF:04X})"
