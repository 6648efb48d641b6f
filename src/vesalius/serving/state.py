# SPDX-License-Identifier: Apache-2.0
"""A server's state: one folder with the instances, the index and queue, and the audit log.

```
state.sqlite      index, queue, keys (WAL, synchronous FULL)
instances/        000000/<sha256>.dcm, 000001/…: what was received and what was made
incoming/         instances on their way in; what is here was never acknowledged
audit.jsonl       who did what, each line sealed by a hash of the one before
lock              held by the one server that runs
```
The folder holds patient data: it is made readable for its owner alone.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vesalius.errors import UsageError
from vesalius.files import fsync_folder
from vesalius.serving.clock import Clock
from vesalius.serving.schema import FORMAT, LATER, TABLES
from vesalius.types import PathLike

DATABASE = "state.sqlite"
_BUSY_SECONDS = 60.0


class State:
    """An open state folder; threads may share it, each has a connection of its own."""

    def __init__(self, folder: PathLike):
        """Open the folder and make it where it is not there.

        Raises:
            UsageError: the folder belongs to something else, or to another version.
        """
        self.folder = Path(folder)
        self._local = threading.local()
        self._writing = threading.Lock()
        self._make()
        self.clock = Clock(self.connection())

    @classmethod
    def existing(cls, folder: PathLike) -> State:
        """Open a folder that must hold a server's state.

        Raises:
            UsageError: it holds none.
        """
        if not (Path(folder) / DATABASE).is_file():
            raise UsageError(
                f"'{folder}' holds no server's state; give the --state of `vesalius serve`"
            )
        return cls(folder)

    @property
    def instances(self) -> Path:
        """Where instances lie."""
        return self.folder / "instances"

    @property
    def incoming(self) -> Path:
        """Where instances are written before they count."""
        return self.folder / "incoming"

    def connection(self) -> sqlite3.Connection:
        """Return this thread's connection; a transaction on it is begun and ended by the caller."""
        held: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if held is None:
            held = self._local.connection = _connect(self.folder / DATABASE)
        return held

    def close(self) -> None:
        """Close this thread's connection."""
        held: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if held is not None:
            held.close()
            self._local.connection = None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the one right to write; what was written is on disk when the context is left.

        Threads of one process wait for each other at a lock: SQLite has those who wait look again
        from time to time, and one of many may find the right taken each time.
        """
        connection = self.connection()
        with self._writing:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # a full disk may have ended it already
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the one server of this folder; the lock goes with the process, however it ends.

        Raises:
            UsageError: another server holds it.
        """
        handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(
                    f"a server already runs on the state '{self.folder}'; stop it, or give "
                    "another --state"
                ) from None
            yield
        finally:
            os.close(handle)

    def free_bytes(self) -> int:
        """Return how many bytes the file system of the state has left."""
        return shutil.disk_usage(self.folder).free

    def _make(self) -> None:
        if not (self.folder / DATABASE).exists():
            if self.folder.is_dir() and any(self.folder.iterdir()):
                raise UsageError(
                    f"'{self.folder}' is not empty and holds no server's state; give a new folder"
                )
            self.folder.mkdir(parents=True, exist_ok=True)
            self.folder.chmod(0o700)
        connection = self.connection()
        with self.transaction():
            (found,) = connection.execute("PRAGMA user_version").fetchone()
            if not found:
                _make_tables(connection, TABLES)
                connection.execute(f"PRAGMA user_version = {FORMAT}")
            elif found != FORMAT:
                raise UsageError(
                    f"the state '{self.folder}' has format {found}, this version of Vesalius "
                    f"writes {FORMAT}; serve it with the version that made it"
                )
            _make_tables(connection, LATER)
        for made in (self.instances, self.incoming):
            made.mkdir(exist_ok=True)
        fsync_folder(self.folder)
        fsync_folder(self.folder.parent)


def _make_tables(connection: sqlite3.Connection, statements: str) -> None:
    for statement in statements.split(";\n"):
        if statement.strip():
            connection.execute(statement)


def _connect(path: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA trusted_schema = OFF")
    except sqlite3.DatabaseError as error:
        raise UsageError(f"'{path}' cannot be opened as a server's state: {error}") from error
    return connection
