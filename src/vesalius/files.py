# SPDX-License-Identifier: Apache-2.0
"""Durable files: what these functions have returned from is on disk and whole (law 7)."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from vesalius.types import PathLike


def fsync_folder(folder: PathLike) -> None:
    """Flush a folder's entries, so that files just created or renamed in it survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_file(path: PathLike) -> None:
    """Flush one finished file that another library wrote."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_tree(root: PathLike, *, newer_than: float = 0.0) -> int:
    """Flush every file and folder below `root` changed after `newer_than` (epoch seconds).

    Returns the number of files flushed.
    """
    flushed = 0
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            if os.stat(path).st_mtime >= newer_than:
                fsync_file(path)
                flushed += 1
        if os.stat(folder).st_mtime >= newer_than:
            fsync_folder(folder)
    return flushed


def write_atomically(path: PathLike, write: Callable[[IO[bytes]], object]) -> Path:
    """Call `write(stream)` on a temporary file beside `path`, flush it and rename it into place.

    A reader sees the old content or the new one, never a part; after the return the new content
    survives `kill -9` and a power cut.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(
        prefix=f".{target.name}.", suffix=".tmp", dir=target.parent
    )
    try:
        with os.fdopen(handle, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    fsync_folder(target.parent)
    return target


def write_text(path: PathLike, text: str) -> Path:
    """Write UTF-8 text atomically and durably."""
    return write_atomically(path, lambda stream: stream.write(text.encode("utf-8")))


def write_json(path: PathLike, value: Any) -> Path:
    """Write strict JSON (no NaN), indented, keys in the order given, atomically and durably."""
    return write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: PathLike) -> Any:
    """Read a JSON file written by `write_json`."""
    return json.loads(Path(path).read_text(encoding="utf-8"))
