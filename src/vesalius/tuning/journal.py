# SPDX-License-Identifier: Apache-2.0
"""The journal of a search: events, one line each, appended and flushed; what it holds is not lost.

A line is the CRC-32 of its text in eight hex digits, a space, and the event as JSON. A last line
that a crash tore is cut off when the journal is opened to be written; damage anywhere else is an
error, not a guess. One process writes: it holds a lock that ends with it.
"""

from __future__ import annotations

import fcntl
import json
import os
import zlib
from pathlib import Path
from typing import Self

from vesalius.errors import RunError, UsageError
from vesalius.files import fsync_folder
from vesalius.types import Json

FILE = "journal.jsonl"


class Journal:
    """See `protocol.EventLog`; a file."""

    def __init__(self, path: Path) -> None:
        """Open or begin a journal, and cut off a torn last line.

        Raises:
            UsageError: another process writes to it.
            RunError: it is damaged.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._handle)
            raise UsageError(
                f"another process is searching in '{path.parent}'; wait for its end, or stop it"
            ) from error
        try:
            self.events, whole = _read(path)
            if whole < path.stat().st_size:
                os.ftruncate(self._handle, whole)
            os.fsync(self._handle)
            fsync_folder(path.parent)
        except BaseException:
            os.close(self._handle)
            raise

    def append(self, event: str, **values: object) -> None:
        """See `EventLog.append`."""
        held = {"event": event, **values}
        line = _line(held)
        end = os.fstat(self._handle).st_size
        try:
            written = os.write(self._handle, line)
            if written < len(line):
                raise OSError(f"the disk took {written} of {len(line)} bytes of the journal")
            os.fsync(self._handle)
        except OSError:
            os.ftruncate(self._handle, end)
            raise
        self.events.append(json.loads(line[9:]))

    def close(self) -> None:
        """See `EventLog.close`."""
        os.close(self._handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_journal(path: Path) -> list[Json]:
    """Return the events of a journal that another process may be writing to.

    Raises:
        RunError: there is none, or it is damaged.
    """
    if not path.exists():
        raise RunError(f"'{path.parent}' is no search: it has no {path.name}")
    return _read(path)[0]


def text_of(event: Json) -> tuple[str, int]:
    """Return an event as text, and the text's CRC-32."""
    text = json.dumps(event, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text, zlib.crc32(text.encode())


def event_of(text: str, checksum: int) -> Json | None:
    """Return what `text_of` wrote down, None where it was damaged since."""
    if zlib.crc32(text.encode()) != checksum:
        return None
    held: Json = json.loads(text)
    return held


def _line(event: Json) -> bytes:
    text, checksum = text_of(event)
    return b"%08x %s\n" % (checksum, text.encode())


def _read(path: Path) -> tuple[list[Json], int]:
    """Return the events, and the bytes that they take; what a crash tore at the end is left out."""
    content = path.read_bytes()
    lines = content.split(b"\n")
    events: list[Json] = []
    whole = 0
    for number, line in enumerate(lines[:-1], 1):
        if not _intact(line):
            if number == len(lines) - 1 and not lines[-1]:
                break  # the last line, whole in length alone
            raise RunError(
                f"line {number} of '{path}' is damaged (its checksum does not fit); restore the "
                "file from a copy, or search anew in another --out"
            )
        events.append(json.loads(line[9:]))
        whole += len(line) + 1
    return events, whole


def _intact(line: bytes) -> bool:
    try:
        return line[8:9] == b" " and int(line[:8], 16) == zlib.crc32(line[9:])
    except ValueError:
        return False
