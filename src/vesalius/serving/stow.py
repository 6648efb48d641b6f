# SPDX-License-Identifier: Apache-2.0
"""STOW-RS: instances out of a request's body, as they come (PS3.18 section 10.5).

A part is an instance as a file. Its own head (preamble and file meta information) is read, checked
and made anew; the data set goes straight into a file of the state.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

from vesalius.errors import UsageError
from vesalius.serving import refusal
from vesalius.serving.intake import Intake
from vesalius.serving.multipart import Begin, End, Parser, Piece, content_type
from vesalius.serving.refusal import Refused
from vesalius.serving.store import Arrival, Incoming
from vesalius.types import Json

_MOST_HEAD_BYTES = 1 << 16
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT", b"UV"}
_PART = "application/dicom"


@dataclass(slots=True)
class Outcome:
    """What became of a request's instances."""

    stored: list[Arrival] = field(default_factory=list)
    failed: list[tuple[str, str, int, str]] = field(default_factory=list)  # class, UID, code, why

    @property
    def http_status(self) -> int:
        """200 all stored, 202 some, 409 none (PS3.18 table 10.5.3-1)."""
        if not self.failed:
            return 200
        if self.stored:
            return 202
        full = all(code == refusal.OUT_OF_RESOURCES for *_, code, _ in self.failed)
        return 503 if full else 409

    def to_json(self, base: str) -> Json:
        """Return the response as DICOM JSON (PS3.18 annex I); `base` is the service's URL."""
        answer: Json = {}
        if self.stored:
            answer["00081199"] = _sequence(
                {
                    **_reference(one.attributes.sop_class, one.attributes.sop_uid),
                    "00081190": _value("UR", _url(base, one)),
                }
                for one in self.stored
            )
        if self.failed:
            answer["00081198"] = _sequence(
                {**_reference(sop_class, sop_uid), "00081197": _value("US", code)}
                for sop_class, sop_uid, code, _ in self.failed
            )
        return answer


class Receiver:
    """Takes one request's body piece by piece; `feed`, then `close`, or `abort`."""

    def __init__(self, intake: Intake, kind: str, *, study: str = ""):
        """Begin a request.

        Args:
            intake: takes instances in.
            kind: the request's content type.
            study: the study that the URL names; instances of another are refused.

        Raises:
            UsageError: the content type is none that STOW-RS knows here.
        """
        name, parameters = content_type(kind)
        if name != "multipart/related" or parameters.get("type", _PART).lower() != _PART:
            raise UsageError(f'send multipart/related; type="{_PART}"; boundary=…')
        self._parser = Parser(parameters.get("boundary", ""))
        self._intake = intake
        self._study = study
        self._part: Part10 | None = None
        self.outcome = Outcome()

    def feed(self, data: bytes) -> None:
        """Take bytes; raises `UsageError` where the body is no multipart."""
        for event in self._parser.feed(data):
            if isinstance(event, Begin):
                self._part = Part10(self._intake, event.content_type)
            elif self._part is None:
                continue
            elif isinstance(event, Piece):
                self._part.write(event.data)
            elif isinstance(event, End):
                self._end(self._part)
                self._part = None

    def close(self) -> Outcome:
        """Return what was stored; raises `UsageError` where the body was cut off."""
        try:
            self._parser.close()
        except UsageError:
            self.abort()
            raise
        return self.outcome

    def abort(self) -> None:
        """Remove the instance that was under way; those before it stay."""
        if self._part is not None:
            self._part.discard()
            self._part = None

    def _end(self, part: Part10) -> None:
        try:
            self.outcome.stored.append(part.take(self._study))
        except Refused as refused:
            self.outcome.failed.append((*part.announced, refused.status, str(refused)))


class Part10:
    """One instance that comes as a file: its head is held until it is whole, then made anew."""

    def __init__(self, intake: Intake, kind: str = _PART):
        self._intake = intake
        self._head = b""
        self._incoming: Incoming | None = None
        self._refused: Refused | None = None
        self.announced = ("", "")
        if kind != _PART:
            self._refused = Refused(refusal.CANNOT_UNDERSTAND, f"a part must be {_PART}")

    def write(self, piece: bytes) -> None:
        """Take bytes; after a refusal they are dropped."""
        if self._refused is not None:
            return
        try:
            if self._incoming is None:
                self._head += piece
                self._begin()
            else:
                self._incoming.write(piece)
            if self._incoming is not None and self._incoming.size > self._intake.largest:
                raise Refused(refusal.OUT_OF_RESOURCES, "the instance is too large")
        except Refused as refused:
            self._refused = refused
            self.discard()

    def take(self, study: str, origin: str = "stow") -> Arrival:
        """Return when the instance is durable; raises `Refused`."""
        if self._refused is not None:
            raise self._refused
        if self._incoming is None:
            raise Refused(refusal.CANNOT_UNDERSTAND, "the instance ends within its head")
        incoming, self._incoming = self._incoming, None
        return self._intake.take(incoming, origin, study=study)

    def discard(self) -> None:
        """Remove what was written."""
        if self._incoming is not None:
            self._incoming.discard()
            self._incoming = None

    def _begin(self) -> None:
        found = read_head(self._head)
        if found is None:
            if len(self._head) > _MOST_HEAD_BYTES:
                raise Refused(refusal.CANNOT_UNDERSTAND, "the file meta information is too long")
            return
        head, end = found
        self.announced = (head.get(0x02, ""), head.get(0x03, ""))
        self._incoming = self._intake.begin(
            sop_class=self.announced[0],
            sop_uid=self.announced[1],
            transfer_syntax=head.get(0x10, ""),
        )
        self._incoming.write(self._head[end:])
        self._head = b""


def read_head(data: bytes) -> tuple[dict[int, str], int] | None:
    """Return the UIDs of the file meta information and where the data set begins.

    None where more bytes are needed; raises `Refused` where it is no file meta information.
    """
    if len(data) < 132 + 8:
        return None
    if data[128:132] != b"DICM":
        raise Refused(refusal.CANNOT_UNDERSTAND, "the part is no DICOM file: the mark is missing")
    found: dict[int, str] = {}
    at = 132
    while True:
        if at + 12 > len(data):
            return None
        group, element, vr, length = struct.unpack_from("<HH2sH", data, at)
        if group != 2:
            return found, at
        if not (vr.isalpha() and vr.isupper()):
            raise Refused(refusal.CANNOT_UNDERSTAND, "the file meta information is damaged")
        begin = at + 8
        if vr in _LONG:
            (length,) = struct.unpack_from("<I", data, at + 8)
            begin = at + 12
        if length > _MOST_HEAD_BYTES:
            raise Refused(refusal.CANNOT_UNDERSTAND, "the file meta information is too long")
        if begin + length > len(data):
            return None
        if vr == b"UI":
            value = data[begin : begin + length].rstrip(b"\0 ")
            found[element] = value.decode("ascii", "replace")
        at = begin + length


def _url(base: str, one: Arrival) -> str:
    known = one.attributes
    return f"{base}/studies/{known.study_uid}/series/{known.series_uid}/instances/{known.sop_uid}"


def _reference(sop_class: str, sop_uid: str) -> Json:
    return {"00081150": _value("UI", sop_class), "00081155": _value("UI", sop_uid)}


def _value(vr: str, value: object) -> Json:
    return {"vr": vr, "Value": [value]}


def _sequence(items: Iterable[Json]) -> Json:
    return {"vr": "SQ", "Value": list(items)}
