# SPDX-License-Identifier: Apache-2.0
"""A watched folder: DICOM files that are put there are taken in, and then moved out of the way.

A file counts as whole when its size and time have not changed for a while. What is taken in goes
to `taken/` below the folder, what is refused to `refused/`, with the reason in a text file beside.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from vesalius.errors import UsageError
from vesalius.serving import refusal
from vesalius.serving.intake import Intake
from vesalius.serving.refusal import Refused
from vesalius.serving.stow import Part10
from vesalius.types import PathLike

_LOG = logging.getLogger(__name__)
_PIECE = 1 << 20
_TAKEN, _REFUSED = "taken", "refused"


class Watch:
    """Looks into a folder every few seconds; call `look` by hand, or `start` a thread."""

    def __init__(self, intake: Intake, folder: PathLike, *, seconds: float = 5.0):
        """Watch a folder.

        Raises:
            UsageError: there is no such folder, or it cannot be written to.
        """
        self._intake = intake
        self._folder = Path(folder)
        self._seconds = seconds
        if not (self._folder.is_dir() and os.access(self._folder, os.W_OK)):
            raise UsageError(
                f"'{self._folder}' must be a folder that can be written to, since files are moved "
                "once they are taken in"
            )
        self._seen: dict[Path, tuple[int, int]] = {}
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Look again and again, in a thread."""
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()

    def look(self) -> int:
        """Take in the files that have not changed since the last look; returns how many."""
        count, seen = 0, {}
        for path in self._files():
            status = path.lstat()
            state = (status.st_size, status.st_mtime_ns)
            if self._seen.get(path) != state:
                seen[path] = state
            elif self._take(path):
                count += 1
        self._seen = seen
        return count

    def _take(self, path: Path) -> bool:
        part = Part10(self._intake)
        try:
            with _opened(path) as stream:
                while piece := stream.read(_PIECE):
                    part.write(piece)
            part.take("", "watch")
        except Refused as refused:
            part.discard()
            if refused.status == refusal.OUT_OF_RESOURCES:
                return False  # not the file's fault: it stays, and is tried again
            self._move(path, _REFUSED)
            note = self._folder / _REFUSED / f"{path.name}.reason.txt"
            note.write_text(f"{refused}\n", encoding="utf-8")
            return False
        self._move(path, _TAKEN)
        return True

    def _move(self, path: Path, kind: str) -> None:
        target = self._folder / kind
        target.mkdir(exist_ok=True)
        os.replace(path, target / path.name)

    def _files(self) -> Iterator[Path]:
        """Yield the regular files of the folder itself and of plain folders below it."""
        for parent, folders, names in os.walk(self._folder):
            if Path(parent) == self._folder:
                folders[:] = [name for name in folders if name not in (_TAKEN, _REFUSED)]
            for name in sorted(names):
                path = Path(parent, name)
                if not name.startswith(".") and stat.S_ISREG(path.lstat().st_mode):
                    yield path

    def _run(self) -> None:
        while not self._end.wait(self._seconds):
            try:
                self.look()
            except OSError as error:
                _LOG.error("the watched folder could not be read: %s", error.strerror)


def _opened(path: Path) -> IO[bytes]:
    """Open a regular file, and no link that was put in its place meanwhile."""
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
