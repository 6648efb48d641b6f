# SPDX-License-Identifier: Apache-2.0
"""The journal of a search in PostgreSQL: where its head may be another machine each time.

An event is a row, told when its transaction is on disk. One head writes: it holds an advisory lock
of its session, which the server gives back when the session ends, however it ends; a head that was
cut off and finds another one's row in the place of its own stops.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from typing import Any, Self

from vesalius.errors import RunError, UnavailableError, UsageError
from vesalius.optional import require
from vesalius.tuning.journal import event_of, text_of
from vesalius.types import Json

PURPOSE = "a search's journal in PostgreSQL"
PATIENCE = 60.0  # seconds that a server may be away in mid-search
_CONNECT = 10  # seconds for a connection
_DYING = 3.0  # seconds that a server may take to see that a session is gone
_ALIVE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
_TABLE = """
CREATE TABLE IF NOT EXISTS vesalius_search_events (
  search text NOT NULL, number bigint NOT NULL, checksum bigint NOT NULL, event text NOT NULL,
  PRIMARY KEY (search, number)
)"""
_READ = """
SELECT number, checksum, event FROM vesalius_search_events
WHERE search = %s AND number >= %s ORDER BY number"""
_WRITE = """
INSERT INTO vesalius_search_events (search, number, checksum, event) VALUES (%s, %s, %s, %s)"""


class _Overtaken(UsageError):
    """Another head wrote in this one's place."""


class PostgresJournal:
    """See `protocol.EventLog`."""

    def __init__(self, url: str, search: str) -> None:
        """Open or begin the journal of a search.

        Args:
            url: of the database, `postgresql://user@host:port/database`; the password comes from
                `PGPASSWORD` or `~/.pgpass`.
            search: what names it there.

        Raises:
            UsageError: another process writes to it, or the address is none.
            UnavailableError: the server does not answer. RunError: it is damaged.
        """
        self._psycopg = require("psycopg", PURPOSE)
        self._url, self.search = url, search
        self._held: Any = None
        try:
            self._open()
            self.events = self._read(0)
        except self._psycopg.OperationalError as error:
            self.close()
            raise _unavailable(url, error) from error
        except BaseException:
            self.close()
            raise

    def append(self, event: str, **values: object) -> None:
        """See `EventLog.append`; waits for a server that is away for a moment."""
        text, checksum = text_of({"event": event, **values})
        row = (self.search, len(self.events), checksum, text)

        def write() -> None:
            if self._held is None:  # whether the row was written before is not known
                self._open()
                found = self._read(len(self.events))
                if [text_of(one)[0] for one in found] == [text]:
                    return
                if found:
                    raise _Overtaken(_another(self.search))
            self._held.execute(_WRITE, row)

        self._patiently(write)
        self.events.append(json.loads(text))

    def close(self) -> None:
        """See `EventLog.close`."""
        if self._held is not None:
            self._held.close()
            self._held = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> None:
        self._held = _connected(self._url)
        self._held.execute("SET synchronous_commit = on")
        end = time.monotonic() + _DYING
        while not self._lock():
            if time.monotonic() > end:
                self.close()
                raise UsageError(_another(self.search))
            time.sleep(0.1)
        self._held.execute(_TABLE)

    def _lock(self) -> bool:
        row = self._held.execute("SELECT pg_try_advisory_lock(%s)", [_lock(self.search)]).fetchone()
        return bool(row[0])

    def _read(self, first: int) -> list[Json]:
        return _events(self._held, self.search, first)

    def _patiently(self, write: Callable[[], None]) -> None:
        """Write, again after the server was away, for a while."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return write()
            except self._psycopg.errors.UniqueViolation as error:
                raise _Overtaken(_another(self.search)) from error
            except _Overtaken:
                raise
            except (self._psycopg.OperationalError, self._psycopg.InterfaceError) as error:
                self.close()
                if time.monotonic() > end:
                    raise _unavailable(self._url, error) from error
            except UsageError:  # our own session may still be dying on the server
                if time.monotonic() > end:
                    raise
            time.sleep(0.5)


def read_postgres(url: str, search: str) -> list[Json]:
    """Return the events of a journal that another process may be writing to.

    Raises:
        UnavailableError: the server does not answer. RunError: there is none, or it is damaged.
    """
    psycopg = require("psycopg", PURPOSE)
    try:
        with _connected(url) as held:
            return _events(held, search, 0)
    except psycopg.errors.UndefinedTable as error:
        raise RunError(
            f"the database has no journal of the search '{search}'; check the address"
        ) from error
    except psycopg.OperationalError as error:
        raise _unavailable(url, error) from error


def check_url(url: str) -> str:
    """Return an address of a database that can be written down.

    Raises:
        UsageError: it is none, or holds a password.
    """
    psycopg = require("psycopg", PURPOSE)
    if not url.startswith(("postgresql://", "postgres://")):
        raise UsageError(
            f"a journal is postgresql://USER@HOST:PORT/DATABASE, or the search's own file where "
            f"--journal is left out; got '{url}'"
        )
    try:
        parts = psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        raise UsageError(f"the address of the journal cannot be read: {error}") from error
    if "password" in parts:
        raise UsageError(
            "the address of the journal is kept in the search's folder and must hold no password; "
            "put it into PGPASSWORD or ~/.pgpass"
        )
    return url


def _connected(url: str) -> Any:
    psycopg = require("psycopg", PURPOSE)
    return psycopg.connect(url, autocommit=True, connect_timeout=_CONNECT, **_ALIVE)


def _events(held: Any, search: str, first: int) -> list[Json]:
    events: list[Json] = []
    for number, checksum, text in held.execute(_READ, [search, first]):
        event = event_of(text, checksum)
        if event is None or number != first + len(events):
            raise RunError(
                f"event {first + len(events)} of the search '{search}' is missing or damaged in "
                "the database; restore it from a copy, or search anew in another --out"
            )
        events.append(event)
    return events


def _lock(search: str) -> int:
    """Return the number of a search's lock: any of 64 bits."""
    found = hashlib.sha256(f"vesalius search {search}".encode()).digest()
    return int.from_bytes(found[:8], "big", signed=True)


def _another(search: str) -> str:
    return f"another process is at the search '{search}'; wait for its end, or stop it"


def _unavailable(url: str, error: Exception) -> UnavailableError:
    first = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return UnavailableError(
        f"the PostgreSQL server of the journal fails ({first}); check that it runs and that "
        f"'{url}' is right, then the same command goes on where this stopped"
    )
