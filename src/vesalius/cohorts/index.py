# SPDX-License-Identifier: Apache-2.0
"""What `scan` knows, in `scan.sqlite`: files seen, units planned, rows made, findings.

The index is the truth that the published tables are made from, so that a scan killed anywhere goes
on from its last commit. It is patient data (paths, dates) and readable by its owner alone; patient
identifiers are stored as pseudonyms. SQLite in WAL mode, `synchronous=FULL`: what was committed is
on disk.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

INDEX = "scan.sqlite"
UNREADABLE = "unreadable"  # in place of the hash of a file that cannot be opened
LAYOUT = 1  # of the tables below; another one starts anew

_TABLES = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS roots (id INTEGER PRIMARY KEY, name TEXT UNIQUE, path TEXT);
CREATE TABLE IF NOT EXISTS folders (
  id INTEGER PRIMARY KEY, root INTEGER, path TEXT, seen INTEGER, finding TEXT, UNIQUE (root, path));
CREATE TABLE IF NOT EXISTS pending (
  id INTEGER PRIMARY KEY, folder INTEGER, name TEXT, size INTEGER, mtime INTEGER,
  UNIQUE (folder, name));
CREATE TABLE IF NOT EXISTS files (
  id INTEGER PRIMARY KEY, folder INTEGER, name TEXT, size INTEGER, mtime INTEGER,
  sha TEXT, format TEXT, kind TEXT, series TEXT, facts TEXT, finding TEXT, UNIQUE (folder, name));
CREATE INDEX IF NOT EXISTS series ON files (series) WHERE series IS NOT NULL;
CREATE INDEX IF NOT EXISTS unreadable ON files (id) WHERE sha = 'unreadable';
CREATE INDEX IF NOT EXISTS beside ON files (format)
  WHERE format IN ('json', 'table', 'text', 'voc');
CREATE TABLE IF NOT EXISTS bases (id TEXT PRIMARY KEY, header TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS units (
  id TEXT PRIMARY KEY, root TEXT, kind TEXT, digest TEXT, plan TEXT, weight INTEGER,
  generation INTEGER, done INTEGER) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS waiting ON units (id) WHERE done = 0;
CREATE TABLE IF NOT EXISTS rows (
  key TEXT PRIMARY KEY, unit TEXT, payload TEXT) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS of_unit ON rows (unit);
CREATE TABLE IF NOT EXISTS published (key TEXT PRIMARY KEY, final BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS found (unit TEXT, payload TEXT);
CREATE INDEX IF NOT EXISTS found_of ON found (unit);
"""
_NEEDED = (
    "meta",
    "roots",
    "folders",
    "pending",
    "files",
    "bases",
    "units",
    "rows",
    "published",
    "found",
)
_BATCH = 2000


class Entry(NamedTuple):
    """One file of the index; `path` is relative to its root, with `/`."""

    id: int
    root: str
    folder: str
    name: str
    size: int
    sha: str
    format: str
    kind: str
    facts: str

    @property
    def path(self) -> str:
        """The path below the root."""
        return f"{self.folder}/{self.name}" if self.folder else self.name


@dataclass(frozen=True, slots=True)
class Unit:
    """What is read together and becomes rows: a series, a case, a part of a container.

    Attributes:
        id: stable over rescans.
        kind: `dicom`, `file`, `npz` or `zip`.
        digest: of all that its rows depend on; a unit whose digest is known is not read again.
        plan: JSON for the worker.
        weight: bytes to read, to share work out evenly.
    """

    id: str
    kind: str
    digest: str
    plan: str
    weight: int


_ENTRY = """SELECT f.id, r.name, d.path, f.name, f.size, f.sha, f.format, f.kind, f.facts
  FROM files f JOIN folders d ON f.folder = d.id JOIN roots r ON d.root = r.id """


class Index:
    """The database of one cohort folder; open it by `with`. One process writes at a time."""

    def __init__(self, folder: Path) -> None:
        path = folder / INDEX
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=FULL")
        self.db.execute("PRAGMA cache_size=-16000")
        self.db.execute("PRAGMA temp_store=FILE")
        if self.db.execute("PRAGMA user_version").fetchone()[0] != LAYOUT:
            for name in _NEEDED:
                self.db.execute(f"DROP TABLE IF EXISTS {name}")
            self.db.executescript(_TABLES)
            self.db.execute(f"PRAGMA user_version={LAYOUT}")
        else:
            self.db.executescript(_TABLES)

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        if self.db.in_transaction:
            self.db.execute("ROLLBACK")
        self.db.close()

    def begin(self) -> None:
        """Open a transaction unless one is open."""
        if not self.db.in_transaction:
            self.db.execute("BEGIN")

    def commit(self) -> None:
        """Make everything since `begin` durable."""
        if self.db.in_transaction:
            self.db.execute("COMMIT")

    def settle(self) -> None:
        """Move the log into the database file, so that readers and copies see one whole file."""
        self.commit()
        self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def get(self, name: str) -> Any:
        """Return a remembered JSON value, or None."""
        found = self.db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if found is None else json.loads(found[0])

    def put(self, name: str, value: Any) -> None:
        """Remember a JSON value."""
        self.db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, json.dumps(value)))

    # roots and folders

    def root(self, path: Path) -> tuple[int, str]:
        """Return number and short name of a data root, entered on the first call.

        A root whose folder is gone and whose name is that of `path` counts as moved there.
        """
        rows = self.db.execute("SELECT id, name, path FROM roots ORDER BY id").fetchall()
        text = to_text(str(path))
        for number, name, known in rows:
            if known == text:
                return number, name
        plain = to_text(path.name) or "data"
        for number, name, known in rows:
            if name.split("#")[0] == plain and not Path(to_name(known)).exists():
                self.db.execute("UPDATE roots SET path = ? WHERE id = ?", (text, number))
                return number, name
        names = {name for _, name, _ in rows}
        name, copy = plain, 2
        while name in names:
            name, copy = f"{plain}#{copy}", copy + 1
        cursor = self.db.execute("INSERT INTO roots (name, path) VALUES (?, ?)", (name, text))
        return int(cursor.lastrowid or 0), name

    def roots(self) -> dict[str, str]:
        """Return short name -> path of every root, by number."""
        rows = self.db.execute("SELECT name, path FROM roots ORDER BY id")
        return {name: to_name(path) for name, path in rows}

    def enter_folder(self, root: int, path: str, generation: int) -> tuple[int, bool]:
        """Return the number of a folder, and whether it is new; marks it as seen."""
        found = self.db.execute(
            "SELECT id FROM folders WHERE root = ? AND path = ?", (root, path)
        ).fetchone()
        if found:
            self.db.execute("UPDATE folders SET seen = ? WHERE id = ?", (generation, found[0]))
            return found[0], False
        cursor = self.db.execute(
            "INSERT INTO folders (root, path, seen) VALUES (?, ?, ?)", (root, path, generation)
        )
        return int(cursor.lastrowid or 0), True

    def note_folder(self, folder: int, finding: str | None) -> bool:
        """Record that a folder cannot be listed (or that it can); return whether that is news."""
        cursor = self.db.execute(
            "UPDATE folders SET finding = ? WHERE id = ? AND finding IS NOT ?",
            (finding, folder, finding),
        )
        return cursor.rowcount > 0

    # files

    def known(self, folder: int, names: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Return name -> (size, mtime) of those of `names` that the index has in a folder."""
        rows = self.db.execute(
            "WITH asked AS (SELECT value FROM json_each(?2)) "
            "SELECT name, size, mtime FROM files WHERE folder = ?1 AND name IN asked UNION ALL "
            "SELECT name, size, mtime FROM pending WHERE folder = ?1 AND name IN asked",
            (folder, json.dumps(names)),
        )
        return {name: (size, mtime) for name, size, mtime in rows}

    def expect(self, folder: int, files: Sequence[tuple[str, int, int]]) -> None:
        """Enter new or changed files `(name, size, mtime)`, to be parsed."""
        self.db.executemany(
            "DELETE FROM files WHERE folder = ? AND name = ?", ((folder, file[0]) for file in files)
        )
        self.db.executemany(
            "INSERT OR REPLACE INTO pending (folder, name, size, mtime) VALUES (?, ?, ?, ?)",
            ((folder, *file) for file in files),
        )

    def count(self, folder: int) -> int:
        """Return how many files of a folder the index has, parsed or not."""
        found = self.db.execute(
            "SELECT (SELECT count(*) FROM files WHERE folder = ?1) + "
            "(SELECT count(*) FROM pending WHERE folder = ?1)",
            (folder,),
        )
        return int(found.fetchone()[0])

    def keep_only(self, folder: int, names: Iterable[str]) -> int:
        """Forget the files of a folder that are not among `names`; return how many."""
        self.db.execute("CREATE TEMP TABLE IF NOT EXISTS present (name TEXT PRIMARY KEY)")
        self.db.execute("DELETE FROM present")
        self.db.executemany("INSERT OR IGNORE INTO present VALUES (?)", ((n,) for n in names))
        gone = "WHERE folder = ? AND name NOT IN (SELECT name FROM present)"
        return sum(
            self.db.execute(f"DELETE FROM {table} {gone}", (folder,)).rowcount  # noqa: S608  fixed
            for table in ("files", "pending")
        )

    def forget_unseen(self, root: int, generation: int) -> int:
        """Forget the folders of a root that this walk did not meet; return files forgotten."""
        gone = "WHERE folder IN (SELECT id FROM folders WHERE root = ? AND seen != ?)"
        count = sum(
            self.db.execute(f"DELETE FROM {table} {gone}", (root, generation)).rowcount  # noqa: S608  fixed
            for table in ("files", "pending")
        )
        self.db.execute("DELETE FROM folders WHERE root = ? AND seen != ?", (root, generation))
        return count

    def retry(self, root: int) -> None:
        """Let the files of a root that could not be opened last time be parsed again."""
        which = "sha = 'unreadable' AND folder IN (SELECT id FROM folders WHERE root = ?)"
        self.db.execute(
            "INSERT OR REPLACE INTO pending (folder, name, size, mtime) "  # noqa: S608  fixed
            f"SELECT folder, name, size, mtime FROM files WHERE {which}",
            (root,),
        )
        self.db.execute(f"DELETE FROM files WHERE {which}", (root,))  # noqa: S608  fixed

    def pending(self) -> int:
        """Return how many files wait to be parsed."""
        return int(self.db.execute("SELECT count(*) FROM pending").fetchone()[0])

    def unparsed(self) -> Iterator[tuple[int, str, str, str, int]]:
        """Yield `(id, root path, folder, name, size)` of files that wait, in batches of reads."""
        last = 0
        while True:
            rows = self.db.execute(
                "SELECT p.id, r.path, d.path, p.name, p.size FROM pending p "
                "JOIN folders d ON p.folder = d.id JOIN roots r ON d.root = r.id "
                "WHERE p.id > ? ORDER BY p.id LIMIT ?",
                (last, _BATCH),
            ).fetchall()
            if not rows:
                return
            yield from rows
            last = rows[-1][0]

    def parsed(self, results: Sequence[Sequence[Any]]) -> None:
        """Store `(base or None, id, sha, format, kind, series, facts, finding)` of parsed files."""
        self.db.executemany(
            "INSERT OR IGNORE INTO bases VALUES (?, ?)", (one[0] for one in results if one[0])
        )
        self.db.executemany(
            "INSERT OR REPLACE INTO files "
            "(folder, name, size, mtime, sha, format, kind, series, facts, finding) "
            "SELECT folder, name, size, mtime, ?2, ?3, ?4, ?5, ?6, ?7 FROM pending WHERE id = ?1",
            (one[1:] for one in results),
        )
        self.db.executemany("DELETE FROM pending WHERE id = ?", ((one[1],) for one in results))

    def bases(self, ids: Iterable[str]) -> dict[str, str]:
        """Return the headers, as JSON, that other headers were stored as differences from."""
        rows = self.db.execute(
            "SELECT id, header FROM bases WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps(sorted(set(ids))),),
        )
        return dict(rows)

    def entries(
        self, where: str = "1", values: Sequence[Any] = (), order: str = ""
    ) -> Iterator[Entry]:
        """Yield files; aliases: f file, d folder, r root."""
        query = f"{_ENTRY} WHERE {where}" + (f" ORDER BY {order}" if order else "")
        return map(Entry._make, self.db.execute(query, values))

    # units, rows, findings

    def plan(self, root: str, units: Iterable[Unit], generation: int) -> None:
        """Enter the units of a root; those with a new digest wait to be read again."""
        self.db.executemany(
            "INSERT INTO units VALUES (?, ?, ?, ?, ?, ?, ?, 0) ON CONFLICT (id) DO UPDATE SET "
            "kind = excluded.kind, plan = excluded.plan, weight = excluded.weight, "
            "generation = excluded.generation, done = done AND digest = excluded.digest, "
            "digest = excluded.digest",
            ((u.id, root, u.kind, u.digest, u.plan, u.weight, generation) for u in units),
        )

    def drop_unplanned(self, root: str, generation: int) -> None:
        """Forget units of a root that this scan did not plan, with their rows and findings."""
        gone = "SELECT id FROM units WHERE root = ? AND generation != ?"
        for table in ("rows", "found"):
            self.db.execute(
                f"DELETE FROM {table} WHERE unit IN ({gone})",  # noqa: S608  constants
                (root, generation),
            )
        self.db.execute("DELETE FROM units WHERE root = ? AND generation != ?", (root, generation))

    def stray(self, root: str, found: Sequence[str], generation: int) -> None:
        """Store the findings of a root's planning, which belong to no unit that is read."""
        unit = f"x:{root}"
        self.db.execute("DELETE FROM found WHERE unit = ?", (unit,))
        self.db.executemany("INSERT INTO found VALUES (?, ?)", ((unit, one) for one in found))
        self.db.execute(
            "INSERT OR REPLACE INTO units VALUES (?, ?, 'stray', '', '', 0, ?, 1)",
            (unit, root, generation),
        )

    def waiting(self) -> tuple[int, int, int]:
        """Return how many units wait to be read, their bytes, and those of the largest."""
        count, weight, largest = self.db.execute(
            "SELECT count(*), coalesce(sum(weight), 0), coalesce(max(weight), 0) FROM units "
            "WHERE done = 0"
        ).fetchone()
        return count, weight, largest

    def unread(self) -> Iterator[tuple[str, str, str, int]]:
        """Yield `(id, kind, plan, weight)` of units that wait, in batches of reads."""
        last = ""
        while True:
            rows = self.db.execute(
                "SELECT id, kind, plan, weight FROM units WHERE done = 0 AND id > ? "
                "ORDER BY id LIMIT ?",
                (last, _BATCH),
            ).fetchall()
            if not rows:
                return
            yield from rows
            last = rows[-1][0]

    def store(self, unit: str, rows: Sequence[tuple[str, str]], found: Sequence[str]) -> None:
        """Store what a unit became: rows `(key, payload)` and findings, in place of the old."""
        keys = json.dumps([key for key, _ in rows])
        self.db.execute(
            "DELETE FROM rows WHERE unit = ? AND key NOT IN (SELECT value FROM json_each(?))",
            (unit, keys),
        )
        self.db.executemany(
            "INSERT INTO rows (key, unit, payload) VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE "
            "SET unit = excluded.unit, payload = excluded.payload",
            ((key, unit, payload) for key, payload in rows),
        )
        self.db.execute("DELETE FROM found WHERE unit = ?", (unit,))
        self.db.executemany("INSERT INTO found VALUES (?, ?)", ((unit, one) for one in found))
        self.db.execute("UPDATE units SET done = 1 WHERE id = ?", (unit,))

    def payloads(self) -> Iterator[Any]:
        """Yield the rows as they were stored, by key."""
        for (text,) in self.db.execute("SELECT payload FROM rows ORDER BY key"):
            yield json.loads(text)


# Linux file names are bytes. Those that are no UTF-8 are kept as private-use characters, because
# neither SQLite nor Arrow stores the lone surrogates that Python decodes them to.
_TO_TEXT = {0xDC00 + byte: 0xF700 + byte for byte in range(0x80, 0x100)}
_TO_NAME = {text: name for name, text in _TO_TEXT.items()}


def to_text(name: str) -> str:
    """Return a file name as valid Unicode."""
    return name if name.isascii() else name.translate(_TO_TEXT)


def to_name(text: str) -> str:
    """Return the file name that `to_text` made `text` from."""
    return text if text.isascii() else text.translate(_TO_NAME)
