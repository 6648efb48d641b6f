# SPDX-License-Identifier: Apache-2.0
"""The audit log: who did what, in lines that are chained by hashes, so that a change shows.

Each line holds the hash of the one before and its own. The index holds the last line's number and
hash as well, so that a line cut off at the end shows too. Studies are named by a keyed hash: with
the state at hand it can be told which study a line means, from the log alone it cannot.
"""

from __future__ import annotations

import datetime
import fcntl
import hashlib
import hmac
import json
import os
import queue
import secrets
import sqlite3
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vesalius.serving.state import State
from vesalius.types import Json, PathLike

_FIRST = "0" * 64
_TAIL = 1 << 16


@dataclass(frozen=True, slots=True)
class Verdict:
    """What checking the log found; `broken` is the number of the first line that is wrong, or 0."""

    lines: int
    broken: int = 0
    why: str = ""


@dataclass(frozen=True, slots=True)
class Audited:
    """Lines of the log, the earliest first, and whether the whole log is whole."""

    lines: Sequence[Json]
    verdict: Verdict

    def to_json(self) -> Json:
        """Return both, for machines."""
        verdict = self.verdict
        found = {"count": verdict.lines, "broken": verdict.broken, "why": verdict.why}
        return {"lines": list(self.lines), **found}


@dataclass(slots=True)
class _Waiting:
    line: Json
    done: bool = False
    error: Exception | None = None


class Audit:
    """Appends to the log of a state and checks it; processes may share it."""

    def __init__(self, state: State):
        self._state = state
        self.path: Path = state.folder / "audit.jsonl"
        self._key = self._named_by()
        self._pending: queue.SimpleQueue[_Waiting] = queue.SimpleQueue()
        self._writing = threading.Lock()

    def pseudonym(self, study_uid: str) -> str:
        """Return how the log names a study."""
        return hmac.new(self._key, study_uid.encode(), hashlib.sha256).hexdigest()[:24]

    def write(self, actor: str, action: str, *, study_uid: str = "", **details: object) -> None:
        """Append one line, durably.

        Args:
            actor: `key ID`, `dicom TITLE`, or `server`.
            action: what was done.
            study_uid: to which study.
            details: numbers and codes; nothing that tells who the patient is.
        """
        waiting = _Waiting(
            {
                "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
                "actor": actor,
                "action": action,
                **({"study": self.pseudonym(study_uid)} if study_uid else {}),
                **details,
            }
        )
        self._pending.put(waiting)
        with self._writing:  # the first to come writes for all that wait by then
            batch: list[_Waiting] = []
            while not waiting.done and not self._pending.empty():
                batch.append(self._pending.get())
            if batch:
                self._append(batch)
        if waiting.error is not None:
            raise waiting.error

    def _append(self, batch: list[_Waiting]) -> None:
        """Append lines with one flush; what goes wrong is said to each of those who wait."""
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                number, last = self._last(handle)
                raw = b""
                for waiting in batch:
                    number += 1
                    line = {"number": number, "before": last, **waiting.line}
                    last = line["hash"] = _hash(line)
                    raw += (json.dumps(line, ensure_ascii=False) + "\n").encode()
                os.write(handle, raw)
                os.fsync(handle)
                with self._state.transaction() as connection:
                    connection.execute(
                        "INSERT OR REPLACE INTO meta VALUES ('audit', ?)", (f"{number} {last}",)
                    )
            finally:
                os.close(handle)
        except (OSError, sqlite3.Error) as error:
            for waiting in batch:
                waiting.error = error
        for waiting in batch:
            waiting.done = True

    def verify(self) -> Verdict:
        """Check the whole chain, and its end against the index."""
        last, count = _FIRST, 0
        for line in self.lines():
            count += 1
            if line is None:
                return Verdict(count, count, "it is no line of the log")
            if line.get("number") != count or line.get("before") != last:
                return Verdict(count, count, "lines before it were removed, added or changed")
            last = str(line.pop("hash", ""))
            if last != _hash(line):
                return Verdict(count, count, "it was changed")
        row = self._state.connection().execute(
            "SELECT value FROM meta WHERE name = 'audit'"
        ).fetchone()  # fmt: skip
        number, held = row[0].split() if row else ("0", _FIRST)
        # A kill between line and index leaves one line more than the index knows of.
        if int(number) > count or (int(number) == count and held != last):
            return Verdict(count, count + 1, "lines at the end were removed")
        return Verdict(count)

    def lines(self) -> Iterator[Json | None]:
        """Yield each line, None for what is none."""
        if not self.path.exists():
            return
        with open(self.path, encoding="utf-8", errors="replace") as stream:
            for raw in stream:
                try:
                    line = json.loads(raw)
                except ValueError:
                    line = None
                yield line if isinstance(line, dict) else None

    def _last(self, handle: int) -> tuple[int, str]:
        """Return number and hash of the last whole line, and cut off a torn one after it."""
        size = os.fstat(handle).st_size
        start = max(0, size - _TAIL)
        tail = os.pread(handle, size - start, start)
        whole = tail.rfind(b"\n") + 1
        if whole != len(tail):
            os.ftruncate(handle, start + whole)
            tail = tail[:whole]
        if not tail:
            return 0, _FIRST
        line = json.loads(tail.rstrip(b"\n").rpartition(b"\n")[2])
        return int(line["number"]), str(line["hash"])

    def _named_by(self) -> bytes:
        with self._state.transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO meta VALUES ('pseudonyms', ?)", (secrets.token_hex(32),)
            )
            row = connection.execute("SELECT value FROM meta WHERE name = 'pseudonyms'").fetchone()
        return bytes.fromhex(row[0])


def audit(state: PathLike, *, study: str = "", last: int = 50) -> Audited:
    """Read a server's audit log and check its chain of hashes.

    Args:
        state: folder of a server's state.
        study: Study Instance UID: only what was done to that study.
        last: how many lines, the latest.

    Raises:
        UsageError: the folder holds no state.
    """
    held = State.existing(state)
    try:
        log = Audit(held)
        named = log.pseudonym(study) if study else ""
        asked = (one for one in log.lines() if one and named in ("", one.get("study")))
        return Audited(list(deque(asked, maxlen=last)), log.verify())
    finally:
        held.close()


def _hash(line: Json) -> str:
    text = json.dumps(line, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
