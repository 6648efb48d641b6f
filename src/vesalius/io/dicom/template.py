# SPDX-License-Identifier: Apache-2.0
"""Headers that repeat: one laid out like an earlier one is read by comparison.

The slices of a series differ in a few values; their elements, lengths and order are the same. A
`Template` remembers where the values of one header lie. A header whose element heads are equal,
byte by byte, is cut at the same places, and only the values that differ are decoded again. Any
other header is read element by element.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any, Final

from vesalius.io.limits import Limits

_LONG: Final = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
_PIXELS: Final = frozenset({b"\xe0\x7f\x10\x00", b"\xe0\x7f\x08\x00", b"\xe0\x7f\x09\x00"})
_CHARACTER_SET: Final = b"\x08\x00\x05\x00"
# Values on which the meaning of others depends: they must be equal, like element heads.
_FIXED: Final = frozenset(
    {
        b"\x02\x00\x00\x00",  # length of the meta information
        b"\x02\x00\x02\x00",  # class of the instance
        b"\x02\x00\x10\x00",  # transfer syntax
        _CHARACTER_SET,
        b"\x20\x00\x60\x00",  # laterality, and that of the image, which goes before it
        b"\x20\x00\x62\x00",
    }
)
_OTHER_LAYOUT: Final = frozenset(
    {"1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"}
)  # implicit, big endian, deflated
_MOST = 8  # layouts remembered: lengths of numbers in text make a few per series

Decode = Callable[[str, bytes, bytes], Any]  # name, value, character set


class Template:
    """The layout of one header, and what its values meant."""

    __slots__ = (
        "_attributes", "_cut", "_equal", "_heads", "_limits", "_names", "_raw", "_set", "_values"
    )  # fmt: skip

    def __init__(
        self,
        pieces: list[tuple[int, str | None, bool]],
        head: bytes,
        attributes: dict[str, Any],
        character_set: bytes,
        limits: Limits,
    ) -> None:
        self._cut = struct.Struct("<" + "".join(f"{length}s" for length, _, _ in pieces))
        cut = self._cut.unpack_from(head)
        self._heads = itemgetter(*(n for n, (_, _, fixed) in enumerate(pieces) if fixed))
        self._equal = self._heads(cut)
        wanted = [n for n, (_, name, _) in enumerate(pieces) if name is not None]
        self._values = itemgetter(*wanted)
        self._names = [pieces[n][1] or "" for n in wanted]
        self._raw = self._values(cut)
        self._limits = limits
        self._attributes = attributes
        self._set = character_set

    def read(self, head: bytes, limits: Limits, decode: Decode) -> dict[str, Any] | None:
        """Return the attributes of a header laid out like this one, or None if it is not."""
        if len(head) < self._cut.size or limits != self._limits:
            return None
        cut = self._cut.unpack_from(head)
        if self._heads(cut) != self._equal:
            return None
        raw = self._values(cut)
        attributes = self._attributes.copy()
        if raw != self._raw:
            for name, new, old in zip(self._names, raw, self._raw, strict=True):
                if new != old:
                    attributes[name] = decode(name, new, self._set)
        return attributes


class Templates:
    """The layouts met last, the latest first."""

    def __init__(self) -> None:
        self._known: list[Template] = []

    def read(self, head: bytes, limits: Limits, decode: Decode) -> dict[str, Any] | None:
        """Return the attributes of a header whose layout is known, or None."""
        for number, template in enumerate(self._known):
            found = template.read(head, limits, decode)
            if found is not None:
                if number:
                    self._known.insert(0, self._known.pop(number))
                return found
        return None

    def learn(
        self,
        head: bytes,
        names: Mapping[int, Any],
        attributes: dict[str, Any],
        limits: Limits,
    ) -> None:
        """Remember the layout of a header that was read element by element without complaint.

        `names` maps tags, as little-endian numbers show them, to attribute names; a sequence that
        is wanted maps to something else, and its header is not remembered.
        """
        if attributes.get("transfer_syntax") in _OTHER_LAYOUT or head[128:132] != b"DICM":
            return
        pieces: list[tuple[int, str | None, bool]] = [(128, None, False), (4, None, True)]
        at, end, character_set = 132, len(head), b""
        while at + 12 <= end:
            tag, kind = head[at : at + 4], head[at + 4 : at + 6]
            if kind in _LONG:
                start, length = at + 12, struct.unpack_from("<I", head, at + 8)[0]
            else:
                start, length = at + 8, struct.unpack_from("<H", head, at + 6)[0]
            pieces.append((start - at, None, True))
            if tag in _PIXELS:
                template = Template(pieces, head, attributes, character_set, limits)
                self._known = [template, *self._known][:_MOST]
                return
            want = names.get(int.from_bytes(tag, "little"))
            if start + length > end or (want is not None and not isinstance(want, str)):
                return
            if tag == _CHARACTER_SET:
                character_set = head[start : start + length]
            fixed = tag in _FIXED or kind in (b"SQ", b"UN")
            pieces.append((length, None if fixed else want, fixed))
            at = start + length
