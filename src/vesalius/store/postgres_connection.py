# SPDX-License-Identifier: Apache-2.0
"""A connection to the schema of one archive: transactions, a clear word where the server fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vesalius.errors import UnavailableError
from vesalius.optional import require

PURPOSE = "an archive in PostgreSQL"


def composed(template: str, **parts: str) -> Any:
    """Return a statement with parts of SQL, which hold no text of a user's, put in."""
    psycopg = require("psycopg", PURPOSE)
    return psycopg.sql.SQL(template).format(
        **{name: psycopg.sql.SQL(part) for name, part in parts.items()}
    )


class Connection:
    """One connection, used by one thread at a time, that comes back after the server did."""

    def __init__(self, url: str, schema: str) -> None:
        self._held: Any = None
        self._psycopg = require("psycopg", PURPOSE)
        require("psycopg.sql", PURPOSE)
        self._url, self._schema = url, schema
        self._mutex = threading.RLock()

    def close(self) -> None:
        """Give the connection back."""
        if self._held is not None:
            self._held.close()

    def __del__(self) -> None:
        self.close()

    @contextmanager
    def transaction(self, *, reading: bool = False) -> Iterator[Any]:
        """Yield a cursor; what it did is committed and on disk after the block, or undone.

        A reading one sees one state of the database.
        """
        with self._mutex, self._told():
            held = self._opened()
            with held.transaction(), held.cursor() as cursor:
                if reading:
                    cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                yield cursor

    def alone(self, statement: str) -> None:
        """Run a statement that must be in no transaction."""
        with self._mutex, self._told():
            self._opened().execute(statement)

    def _opened(self) -> Any:
        if self._held is None or self._held.closed:
            self._held = self._psycopg.connect(self._url, autocommit=True)
            path = f'"{self._schema}", public'
            self._held.execute("SELECT set_config('search_path', %s, false)", [path])
            self._held.execute("SET synchronous_commit = on")
        return self._held

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except self._psycopg.OperationalError as error:
            first = str(error).strip().splitlines()[0]
            raise UnavailableError(
                f"the PostgreSQL server of the archive '{self._schema}' fails: {first}; check that "
                "it runs and that the address is right, then run the same again"
            ) from error
