# SPDX-License-Identifier: Apache-2.0
"""multipart/related, part by part as it comes (RFC 2046 section 5.1, RFC 2387), bounded.

Only what cannot be decided yet is held: a part's headers, or a tail as long as a delimiter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto

from vesalius.errors import UsageError

_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_PARAMETER = re.compile(r';\s*([A-Za-z-]+)\s*=\s*(?:"([^"\r\n]*)"|([^\s;"]+))')
_MOST_HEADER_BYTES = 8192
_MOST_PARAMETERS = 16


class _At(Enum):
    PREAMBLE = auto()
    DELIMITER = auto()
    HEADERS = auto()
    BODY = auto()
    END = auto()


@dataclass(frozen=True, slots=True)
class Begin:
    """A part begins; its content type, in lower case without parameters."""

    content_type: str


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of the part's body."""

    data: bytes


@dataclass(frozen=True, slots=True)
class End:
    """The part is whole."""


Event = Begin | Piece | End


def content_type(header: str) -> tuple[str, dict[str, str]]:
    """Return a content type in lower case, and its parameters by lower-case name."""
    kind, _, rest = header.partition(";")
    found = _PARAMETER.findall(f";{rest}")[:_MOST_PARAMETERS]
    return kind.strip().lower(), {name.lower(): quoted or plain for name, quoted, plain in found}


class Parser:
    """Feed it the body's bytes; it calls back for each event in order."""

    def __init__(self, boundary: str, *, most_parts: int = 10_000):
        """Expect parts between lines of `--boundary`.

        Raises:
            UsageError: the boundary is none that RFC 2046 allows.
        """
        if not _BOUNDARY.fullmatch(boundary):
            raise UsageError("the multipart boundary must be 1 to 70 characters of RFC 2046")
        self._delimiter = b"\r\n--" + boundary.encode("ascii")
        self._held = b"\r\n"  # a body may begin with the delimiter itself
        self._at = _At.PREAMBLE
        self._parts = 0
        self._most_parts = most_parts

    def feed(self, data: bytes) -> Iterator[Event]:
        """Yield what follows from more bytes.

        Raises:
            UsageError: the body is no such multipart, or has too many parts or too long headers.
        """
        self._held += data
        steps: dict[_At, Callable[[], Iterator[Event] | None]] = {
            _At.PREAMBLE: self._preamble,
            _At.DELIMITER: self._after_delimiter,
            _At.HEADERS: self._headers,
            _At.BODY: self._body,
        }
        while self._at in steps:
            events = steps[self._at]()
            if events is None:
                return
            yield from events
        self._held = b""  # an epilogue is ignored

    def close(self) -> None:
        """Say that no more bytes come; raises `UsageError` where the last delimiter is missing."""
        if self._at is not _At.END:
            raise UsageError("the multipart body ends before its last delimiter")

    def _preamble(self) -> Iterator[Event] | None:
        before, found, after = self._held.partition(self._delimiter)
        if not found:
            self._held = before[-len(self._delimiter) :]
            return None
        self._held, self._at = after, _At.DELIMITER
        return iter(())

    def _after_delimiter(self) -> Iterator[Event] | None:
        if len(self._held) < 2:
            return None
        if self._held.startswith(b"--"):
            self._at = _At.END
            return iter(())
        line, found, after = self._held.partition(b"\r\n")
        if line.strip(b" \t"):
            raise UsageError("a multipart delimiter is followed by something else than a new line")
        if not found:
            self._limit_headers()
            return None
        self._parts += 1
        if self._parts > self._most_parts:
            raise UsageError(f"the multipart body has more than {self._most_parts:,} parts")
        self._held, self._at = b"\r\n" + after, _At.HEADERS
        return iter(())

    def _headers(self) -> Iterator[Event] | None:
        raw, found, after = self._held.partition(b"\r\n\r\n")
        if not found:
            self._limit_headers()
            return None
        if len(raw) > _MOST_HEADER_BYTES:
            raise UsageError("the headers of a part are too long")
        kind = ""
        for line in raw.decode("latin-1").split("\r\n"):
            name, _, value = line.partition(":")
            if name.strip().lower() == "content-type":
                kind = content_type(value)[0]
        self._held, self._at = after, _At.BODY
        return iter((Begin(kind),))

    def _body(self) -> Iterator[Event] | None:
        body, found, after = self._held.partition(self._delimiter)
        if found:
            self._held, self._at = after, _At.DELIMITER
            return iter((Piece(body), End()) if body else (End(),))
        keep = len(self._delimiter)
        if len(self._held) <= keep:
            return None
        body, self._held = self._held[:-keep], self._held[-keep:]
        return iter((Piece(body),))

    def _limit_headers(self) -> None:
        if len(self._held) > _MOST_HEADER_BYTES:
            raise UsageError("the headers of a part are too long")
