# SPDX-License-Identifier: Apache-2.0
"""The default archive: a folder with a LanceDB table, answered from a copy in memory.

```
archive/
├── archive.json     identity, dimension, columns, format
├── rows.lance/      the table: entries, and its versions
├── index/           cells of vectors and postings of words, for large archives; can be made anew
└── writers.lock     held by the process that writes
```
The table is the truth; what is in memory and in `index/` follows it, version by version.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vesalius.errors import DataError, UsageError
from vesalius.store import care, folder, index, rows, where
from vesalius.store.lance_table import ENGINE_ERRORS, LanceTable
from vesalius.store.parts import Part
from vesalius.store.protocol import Condition, Entry, Filter, Near, Worded
from vesalius.store.snapshot import Snapshot
from vesalius.types import Array, Json, PathLike

INDEXED_FROM = 200_000  # entries: below, comparing all is as fast and misses nothing
KEPT = timedelta(days=7)  # how long earlier versions can be opened after a compaction
_T = TypeVar("_T")


def create_archive(
    path: PathLike, *, identity: Json, dimension: int, columns: Mapping[str, str]
) -> LanceArchive:
    """Make an empty archive in a new folder.

    Args:
        path: folder, absent or empty.
        identity: who makes the vectors, see `Archive.identity`; JSON.
        dimension: number of values of a vector; 0 for an archive of words alone.
        columns: columns of facts -> `text`, `integer`, `float` or `boolean`.

    Raises:
        UsageError: something is there already, or a column cannot be kept.
    """
    columns = rows.check_columns(columns)
    if dimension < 0:
        raise UsageError(f"dimension is {dimension}; vectors have one value or more, 0 for none")
    about = {"engine": "lance", "dimension": dimension, "columns": columns, "identity": identity}
    shape = rows.schema(dimension, columns)
    folder.make(Path(path), about, lambda made: LanceTable.create(made, shape))
    return LanceArchive(Path(path))


def open_archive(path: PathLike, version: int | None = None) -> LanceArchive:
    """Open an archive at its newest version, which it then follows, or at a given one.

    Raises:
        DataError: no archive, one of another format, or a version that is gone.
    """
    return LanceArchive(Path(path), version)


class LanceArchive:
    """An `Archive` in a folder; see `store.protocol`."""

    def __init__(self, path: Path, version: int | None = None) -> None:
        self._folder = path
        self._about = folder.about(path)
        self._table = LanceTable(path, version)
        self._pinned = version
        self._snapshot: Snapshot | None = None
        self._index: Path | None = None  # that the snapshot began with
        self._mutex = threading.RLock()

    @property
    def path(self) -> Path:
        """The folder that it is in."""
        return self._folder

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
        with self._mutex:
            return self._pinned or self._table.newest()

    # writing

    def upsert(self, entries: Iterable[Entry]) -> int:
        """Add or replace entries, all or none; see `Archive.upsert`."""
        self._writable()
        found = rows.table(entries, self.dimension, self.columns)
        return self._table.upsert(found) if len(found) else self.version

    def delete_keys(self, keys: Sequence[str]) -> int:
        """Delete entries."""
        self._writable()
        known = dict.fromkeys(rows.storable(keys))
        listed = ", ".join("'" + key.replace("'", "''") + "'" for key in known)
        return self._table.delete(f"key IN ({listed})") if listed else self.version

    def erase_patients(self, patients: Sequence[str]) -> int:
        """Delete patients' entries, all earlier versions and the index, from memory as well."""
        self._writable()
        gone = pa.array(rows.storable(patients), pa.string())

        def others(batch: pa.RecordBatch) -> pa.RecordBatch:
            return batch.filter(pc.invert(pc.is_in(batch["patient"], value_set=gone)))

        with self._mutex, self._table.alone():
            self._snapshot = None
            self._table.rewrite(others)
            index.remove(self._folder)
            self._table.drop_older()
            return self._indexed()

    def compact(self) -> int:
        """Fold small files, write files with deleted rows anew, drop versions older than a week.

        A large archive gets its index, over all rows.
        """
        self._writable()
        with self._mutex, self._table.alone():
            self._table.newest()
            if self._table.has_deleted():
                self._table.rewrite(lambda batch: batch)
            self._table.fold(KEPT)
            return self._indexed()

    # reading

    def nearest(self, vectors: Array, k: int, given: Filter = Filter()) -> list[Near]:  # noqa: B008 - frozen
        """Return up to `k` entries near each vector; see `Archive.nearest`."""
        queries = rows.checked_queries(vectors, self.dimension)
        condition = self._condition(k, given)
        return self._read(lambda now: now.nearest(queries, k, condition, given, self._table))

    def worded(self, words: str, k: int, given: Filter = Filter()) -> list[Worded]:  # noqa: B008 - frozen
        """Return up to `k` entries that bear some of the words, the best first."""
        condition = self._condition(k, given)
        return self._read(lambda now: now.worded(words, k, condition, given, self._table))

    def vectors(self, keys: Sequence[str]) -> Array:
        """Return `(n, d)`, a row of NaN for an entry without a vector."""
        if not self.dimension:
            self._rows(keys, ["key"])
            return np.empty((len(keys), 0), np.float32)
        return rows.vectors_of(self._rows(keys, ["vector"])["vector"])

    def entries(self, keys: Sequence[str]) -> list[Entry]:
        """Return entries in the order of `keys`."""
        names = [
            name for name in rows.schema(self.dimension, self.columns).names if name != "terms"
        ]
        return rows.entries(self._rows(keys, names), self.columns)

    def of_cases(self, cases: Sequence[str]) -> dict[str, list[str]]:
        """Return case -> keys of its entries, sorted; an unknown case has none."""

        def read(now: Snapshot) -> dict[str, list[str]]:
            found: dict[str, list[str]] = {case: [] for case in cases}
            for part, places in now.find("case", cases):
                named = zip(part.texts("case", places), part.keys(places), strict=True)
                for case, key in named:
                    found[case].append(key)
            return {case: sorted(keys) for case, keys in found.items()}

        return self._read(read)

    def held(self) -> dict[str, str]:
        """Return key -> patient of every entry."""

        def read(now: Snapshot) -> dict[str, str]:
            found: dict[str, str] = {}
            for part in now.parts:
                places = np.flatnonzero(part.alive)
                found.update(zip(part.keys(places), part.texts("patient", places), strict=True))
            return found

        return self._read(read)

    def condition(self) -> Condition:
        """Say how the archive is."""
        return self._read(
            lambda now: care.condition(
                now, self._table, self._folder, indexed_from=INDEXED_FROM, kept=KEPT
            )
        )

    # within

    def _indexed(self) -> int:
        """Make the index if the archive is large; return the version. Needs that nobody writes."""
        version = self._table.newest()
        if self._table.count() >= INDEXED_FROM:
            names = list(rows.filterable(self.columns))
            index.build(self._folder, version, self._table, self.dimension, names)
        else:
            index.remove(self._folder)
        return version

    def _writable(self) -> None:
        if self._pinned is not None:
            raise UsageError(
                f"version {self._pinned} of {self._folder} was opened, which is past: open the "
                "archive without a version to write"
            )

    def _condition(self, k: int, given: Filter) -> where.Condition | None:
        if k < 1:
            raise UsageError(f"{k} entries were asked for: ask for one or more")
        return where.parse(given.where, rows.filterable(self.columns))

    def _rows(self, keys: Sequence[str], names: Sequence[str]) -> pa.Table:
        """Return columns of entries in the order of keys."""

        def read(now: Snapshot) -> pa.Table:
            found: list[str] = []
            addresses = [np.empty(0, np.uint64)]
            for part, places in now.find("key", keys):
                found += part.keys(places)
                addresses.append(part.addresses[places])
            order = rows.of_keys(keys, found)
            return self._table.read(names, np.concatenate(addresses)[order])

        return self._read(read)

    def _read(self, read: Callable[[Snapshot], _T]) -> _T:
        """Answer from the newest version; once more if that was dropped while it was read."""
        with self._mutex:
            for attempt in (1, 2):
                try:
                    return read(self._now())
                except ENGINE_ERRORS as error:
                    self._snapshot = None
                    if attempt == 2:
                        raise DataError(
                            f"the archive {self._folder} cannot be read: {error}; if a patient was "
                            "erased, open it again without a version"
                        ) from error
        raise AssertionError("unreachable")

    def _now(self) -> Snapshot:
        """Return the rows in memory, brought up to the version that is asked."""
        version = self._pinned or self._table.newest()
        names = list(rows.filterable(self.columns))
        held = index.newest(self._folder, version)
        if self._snapshot is None or held != self._index:
            self._snapshot = Snapshot([index.load(held)] if held else [], 0)
            self._index = held
        if self._snapshot.version != version:
            self._snapshot.follow(
                version,
                self._table.addresses(),
                lambda new: Part.of(self._table.read(names, new), new),
            )
        return self._snapshot
