# SPDX-License-Identifier: Apache-2.0
"""`log.jsonl`: one JSON object a line, cut back to the checkpoint when training resumes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Self

from vesalius.files import write_text
from vesalius.types import Json


class Log:
    """Appends events to a file; `sync` makes them durable."""

    def __init__(self, path: Path, *, keep_to_step: int) -> None:
        """Open the log and drop what lies after `keep_to_step` (-1: start anew)."""
        kept = [event for event in read_log(path) if _survives(event, keep_to_step)]
        write_text(path, "".join(json.dumps(event) + "\n" for event in kept))
        self._stream = path.open("a", encoding="utf-8")

    def write(self, event: str, **values: Any) -> None:
        """Append one event."""
        self._stream.write(json.dumps({"event": event, **values}, allow_nan=False) + "\n")
        self._stream.flush()

    def sync(self) -> None:
        """Flush to disk."""
        os.fsync(self._stream.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sync()
        self._stream.close()


def read_log(path: Path) -> list[Json]:
    """Return the events of a log; a last line torn by a crash is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _survives(event: Json, last: int) -> bool:
    return last >= 0 and event["event"] != "end" and int(event["step"]) <= last
