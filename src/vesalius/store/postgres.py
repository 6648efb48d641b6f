# SPDX-License-Identifier: Apache-2.0
"""The archive for many machines: a schema of a PostgreSQL database with pgvector.

The server commits, flushes and locks; a write is told when its transaction is on disk. Queries
without an index are exact. A large archive gets an HNSW index (Malkov and Yashunin, Efficient and
robust approximate nearest neighbor search using Hierarchical Navigable Small World graphs, IEEE
TPAMI 42:824-836, 2020) with its compaction; where a filter leaves few entries those are compared,
and where the index answers with fewer than were asked for, all are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from vesalius.errors import DataError, UsageError
from vesalius.store import postgres_queries as queries_of
from vesalius.store import postgres_tables as tables
from vesalius.store import rows, where
from vesalius.store.postgres_connection import Connection, composed
from vesalius.store.postgres_making import FORMAT, make, read_about
from vesalius.store.protocol import Condition, Entry, Filter, Near, Worded
from vesalius.store.words import RULES, terms
from vesalius.types import Array, Json

INDEXED_FROM = 200_000  # entries
KEPT_DAYS = 7  # earlier versions can be opened for so long after a compaction
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


def create_archive(
    url: str, *, identity: Json, dimension: int, columns: Mapping[str, str], name: str = "archive"
) -> PostgresArchive:
    """Make an empty archive in a new schema of a database.

    Args:
        url: of the database, `postgresql://user@host:port/database`.
        identity: who makes the vectors, see `Archive.identity`; JSON.
        dimension: number of values of a vector; 0 for an archive of words alone.
        columns: columns of facts -> `text`, `integer`, `float` or `boolean`.
        name: of the schema.

    Raises:
        UsageError: the schema is there already, its name or a column cannot be kept.
        UnavailableError: the server does not answer, or lacks pgvector.
    """
    columns = rows.check_columns(columns)
    if dimension < 0:
        raise UsageError(f"dimension is {dimension}; vectors have one value or more, 0 for none")
    if not _NAME.fullmatch(name) or name.startswith("pg_"):
        raise UsageError(f"'{name}' cannot name an archive: lower-case letters, digits and _")
    about = {"format": FORMAT, "engine": "postgres", "words": RULES, "dimension": dimension,
             "columns": columns, "identity": identity}  # fmt: skip
    make(url, name, about)
    return PostgresArchive(url, name)


def open_archive(url: str, version: int | None = None, *, name: str = "archive") -> PostgresArchive:
    """Open an archive at its newest version, which it then follows, or at a given one.

    Raises:
        DataError: no archive, one of another format, or a version that is gone.
        UnavailableError: the server does not answer.
    """
    return PostgresArchive(url, name, version)


class PostgresArchive:
    """An `Archive` in a schema of a database; see `store.protocol`."""

    def __init__(self, url: str, name: str, version: int | None = None) -> None:
        if not _NAME.fullmatch(name):
            raise DataError(f"the database has no archive {name!r}: that is no name of one")
        self.url, self.name = url, name
        self._pinned = version
        self._connection = Connection(url, name)
        try:
            self._about = read_about(self._connection, name)
            with self._reading() as (_, _):
                pass
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()

    @property
    def identity(self) -> Json:
        """Who made the vectors."""
        found: Json = self._about["identity"]
        return found

    @property
    def columns(self) -> Mapping[str, str]:
        """Columns of facts with their types."""
        found: Mapping[str, str] = self._about["columns"]
        return found

    @property
    def dimension(self) -> int:
        """Number of values of a vector, 0 for words alone."""
        return int(self._about["dimension"])

    @property
    def version(self) -> int:
        """The newest committed version, or the one it was opened at."""
        with self._reading() as (_, version):
            return version

    # writing

    def upsert(self, entries: Iterable[Entry]) -> int:
        """Add or replace entries, all or none; see `Archive.upsert`."""
        self._writable()
        found = rows.table(entries, self.dimension, self.columns)
        if not len(found):
            return self.version
        names = [name for name in found.column_names if name not in ("vector", "terms")]
        plain = found.select([*names, "terms"]).to_pylist()
        vectors = rows.vectors_of(found["vector"]) if self.dimension else None
        quoted = ", ".join(f'"{name}"' for name in names) + (", vector" if self.dimension else "")
        with self._writing() as (cursor, version):
            cursor.execute(tables.BURY, [version, found["key"].to_pylist()])
            cursor.execute(tables.NUMBERS, [len(plain)])
            numbers = [number for (number,) in cursor.fetchall()]
            into = composed("COPY entries (_row, _born, _length, {names}) FROM STDIN", names=quoted)
            with cursor.copy(into) as copy:
                for at, row in enumerate(plain):
                    values = [numbers[at], version, len(row["terms"].split())]
                    values += [row[name] for name in names]
                    if vectors is not None:
                        none = bool(np.isnan(vectors[at, 0]))
                        values.append(None if none else queries_of.written(vectors[at]))
                    copy.write_row(values)
            with cursor.copy("COPY postings (term, _row, times) FROM STDIN") as copy:
                for number, row in zip(numbers, plain, strict=True):
                    for term, times in Counter(row["terms"].split()).items():
                        copy.write_row((term, number, times))
        return version

    def delete_keys(self, keys: Sequence[str]) -> int:
        """Delete entries; their bytes leave the tables once no version holds them."""
        self._writable()
        if not keys:
            return self.version
        with self._writing() as (cursor, version):
            cursor.execute(tables.BURY, [version, rows.storable(keys)])
        return version

    def erase_patients(self, patients: Sequence[str]) -> int:
        """Delete patients' entries and all earlier versions, and write the tables anew.

        The server's write-ahead log and its backups hold the bytes until the server drops them.
        """
        self._writable()
        with self._writing() as (cursor, version):
            cursor.execute(tables.ERASE, [rows.storable(patients)])
            cursor.execute("DELETE FROM versions WHERE version < %s", [version])
        for table in ("entries", "postings", "versions"):
            self._connection.alone(f"VACUUM (FULL, ANALYZE) {table}")
        return version

    def compact(self) -> int:
        """Drop versions older than a week; a large archive gets its index."""
        self._writable()
        with self._connection.transaction() as cursor:
            cursor.execute("LOCK TABLE versions IN EXCLUSIVE MODE")
            cursor.execute(tables.DROP_VERSIONS, [KEPT_DAYS])
            cursor.execute(tables.DROP_DEAD)
            cursor.execute("SELECT count(*) FROM entries WHERE _died IS NULL")
            if self.dimension and cursor.fetchone()[0] >= INDEXED_FROM:
                cursor.execute(tables.MAKE_NEAR)
        for table in ("entries", "postings", "versions"):
            self._connection.alone(f"VACUUM (ANALYZE) {table}")
        return self.version

    # reading

    def nearest(self, vectors: Array, k: int, given: Filter = Filter()) -> list[Near]:  # noqa: B008 - frozen
        """Return up to `k` entries near each vector; see `Archive.nearest`."""
        queries = rows.checked_queries(vectors, self.dimension)
        rule, values = self._rule(k, given)
        with self._reading() as (cursor, version):
            alive, at = tables.living(version, self._pinned is None)
            rule, values = f"{alive} AND {rule}", [*at, *values]
            served = self._pinned is None and queries_of.is_served(cursor, rule, values)
            return [
                queries_of.near(cursor, query, k, rule, values, by_index=served)
                for query in queries
            ]

    def worded(self, words: str, k: int, given: Filter = Filter()) -> list[Worded]:  # noqa: B008 - frozen
        """Return up to `k` entries that bear some of the words, the best first."""
        wanted = list(dict.fromkeys(terms(words)))
        rule = self._rule(k, given)
        with self._reading() as (cursor, version):
            alive = tables.living(version, self._pinned is None)
            return queries_of.worded(cursor, wanted, k, version, alive, rule)

    def vectors(self, keys: Sequence[str]) -> Array:
        """Return `(n, d)`, a row of NaN for an entry without a vector."""
        found = np.full((len(keys), self.dimension), np.nan, np.float32)
        for at, (_, vector) in enumerate(self._rows(keys, self._vector)):
            if vector is not None:
                found[at] = vector
        return found

    def entries(self, keys: Sequence[str]) -> list[Entry]:
        """Return entries in the order of `keys`."""
        facts = "".join(f', "{name}"' for name in self.columns)
        names = f'"case", patient, {self._vector}, words, thumbnail{facts}'
        return [
            Entry(key, case, patient, None if held is None else np.array(held, np.float32), words,
                  dict(zip(self.columns, values, strict=True)), bytes(thumbnail))
            for key, case, patient, held, words, thumbnail, *values in self._rows(keys, names)
        ]  # fmt: skip

    def of_cases(self, cases: Sequence[str]) -> dict[str, list[str]]:
        """Return case -> keys of its entries, sorted; an unknown case has none."""
        found: dict[str, list[str]] = {case: [] for case in cases}
        for key, case in self._select('"case"', '"case" = ANY(%s)', [rows.storable(cases)]):
            found[case].append(key)
        return found

    def held(self) -> dict[str, str]:
        """Return key -> patient of every entry."""
        return dict(self._select("patient", "TRUE", []))

    def condition(self) -> Condition:
        """Say how the archive is."""
        with self._reading() as (cursor, version):
            alive, at = tables.living(version, self._pinned is None)
            cursor.execute(composed("SELECT count(*) FROM entries WHERE {alive}", alive=alive), at)
            count = cursor.fetchone()[0]
            cursor.execute(tables.SIZE, [self.name])
            size = int(cursor.fetchone()[0])
            cursor.execute("SELECT count(*), current_setting('fsync') FROM versions")
            versions, flushed = cursor.fetchone()
            indexed = queries_of.has_index(cursor)
        loose = 0 if indexed or count < INDEXED_FROM else count
        alarms = []
        if loose:
            alarms.append(f"{loose} entries are in no index and are compared one by one: compact")
        if flushed != "on":
            alarms.append("the server does not flush what it commits: set fsync = on")
        return Condition(count, loose, size, versions, not indexed, tuple(alarms))

    # within

    @contextmanager
    def _reading(self) -> Iterator[tuple[Any, int]]:
        """Yield a cursor on one state, and the version that is read."""
        with self._connection.transaction(reading=True) as cursor:
            cursor.execute("SELECT min(version), max(version) FROM versions")
            oldest, newest = cursor.fetchone()
            if self._pinned is not None:
                cursor.execute("SELECT 1 FROM versions WHERE version = %s", [self._pinned])
                if not cursor.fetchone():
                    raise DataError(
                        f"version {self._pinned} of the archive '{self.name}' cannot be opened: "
                        f"versions from {oldest} to {newest} can; earlier ones were dropped"
                    )
            yield cursor, self._pinned or newest

    @contextmanager
    def _writing(self) -> Iterator[tuple[Any, int]]:
        """Yield a cursor and the version that the block makes; other writers wait."""
        with self._connection.transaction() as cursor:
            cursor.execute("LOCK TABLE versions IN EXCLUSIVE MODE")
            cursor.execute("SELECT max(version) + 1 FROM versions")
            (version,) = cursor.fetchone()
            cursor.execute("INSERT INTO versions VALUES (%s, now(), 0, 0)", [version])
            yield cursor, version
            cursor.execute(tables.COUNT, [version])

    def _writable(self) -> None:
        if self._pinned is not None:
            raise UsageError(
                f"version {self._pinned} of '{self.name}' was opened, which is past: open the "
                "archive without a version to write"
            )

    def _rule(self, k: int, given: Filter) -> tuple[str, list[Any]]:
        if k < 1:
            raise UsageError(f"{k} entries were asked for: ask for one or more")
        condition = where.parse(given.where, rows.filterable(self.columns))
        return tables.allowed(condition, given, self.columns)

    @property
    def _vector(self) -> str:
        return "vector::real[]" if self.dimension else "NULL"

    def _select(self, names: str, rule: str, values: list[Any]) -> list[tuple[Any, ...]]:
        """Return the key and other columns of entries, by key."""
        statement = "SELECT key, {names} FROM entries WHERE {alive} AND {rule} ORDER BY key"
        with self._reading() as (cursor, version):
            alive, at = tables.living(version, self._pinned is None)
            cursor.execute(composed(statement, names=names, alive=alive, rule=rule), [*at, *values])
            found: list[tuple[Any, ...]] = cursor.fetchall()
            return found

    def _rows(self, keys: Sequence[str], names: str) -> list[tuple[Any, ...]]:
        """Return the key and other columns of entries in the order of keys."""
        found = self._select(names, "key = ANY(%s)", [rows.storable(keys)])
        return [found[at] for at in rows.of_keys(keys, [row[0] for row in found])]
