# SPDX-License-Identifier: Apache-2.0
"""One Lance table with what an archive asks of it: one writer at a time, and files on disk.

LanceDB commits by renaming a manifest and flushes nothing. Here each commit is followed by an fsync
of every file and folder that it touched, before its version is told to anyone. Writers of several
processes wait for each other at a lock that the system frees when its holder dies; a commit that
meets another one all the same (on a shared disk that knows no locks) is tried again.

A row's address (fragment and place in it) is never used again for another content: what was once
read from an address may be kept in memory for as long as the address is in the table.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from vesalius.errors import DataError, UnavailableError
from vesalius.files import fsync_file, fsync_folder
from vesalius.types import Array

NAME = "rows"
LOCK = "writers.lock"
_ADDRESS = "_rowid"
_TRIES = 8
_TAKEN = 0.2  # of the rows: above, all are read rather than taken one by one
_BATCH = 16384
_NO_VECTOR = "null"  # what the engine does with an entry that has none
ENGINE_ERRORS = (ValueError, OSError, RuntimeError)


class LanceTable:
    """The table of rows of an archive's folder, at its newest version or at a given one."""

    def __init__(self, folder: Path, version: int | None) -> None:
        import lancedb

        self._folder = folder
        try:
            database = lancedb.connect(folder)
            self._reader = database.open_table(NAME)
            self._writer = database.open_table(NAME)
        except ENGINE_ERRORS as error:
            raise DataError(
                f"the archive {folder} cannot be opened: {_first(error)}; restore the folder from "
                "a backup, or index again"
            ) from error
        if version is not None:
            try:
                self._reader.checkout(version)
            except (*ENGINE_ERRORS, OverflowError) as error:
                kept = [one["version"] for one in self._writer.list_versions()]
                raise DataError(
                    f"version {version} of the archive {folder} cannot be opened: versions from "
                    f"{min(kept)} to {max(kept)} can; earlier ones were dropped by a compaction or "
                    "by the erasure of a patient"
                ) from error

    @staticmethod
    def create(folder: Path, shape: pa.Schema) -> None:
        """Make an empty table in a folder, on disk."""
        import lancedb

        options = {"new_table_enable_stable_row_ids": "false"}  # an address is a place
        lancedb.connect(folder, storage_options=options).create_table(NAME, schema=shape)
        _flush(folder, {})

    # reading

    def newest(self) -> int:
        """Move to the newest version and return it."""
        self._reader.checkout_latest()
        return self.version

    @property
    def version(self) -> int:
        """The version that is read."""
        return int(self._reader.version)

    def addresses(self) -> Array:
        """Return `(rows,)` uint64, rising."""
        found = self._reader.search().with_row_id(True).select(["key"]).to_batches(_BATCH)
        parts = [np.asarray(batch[_ADDRESS], np.uint64) for batch in found]
        return np.sort(np.concatenate(parts)) if parts else np.empty(0, np.uint64)

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[Array, pa.RecordBatch]]:
        """Yield the addresses and the columns of all rows, a batch at a time."""
        query = self._reader.search().with_row_id(True).select(list(columns))
        for batch in query.to_batches(_BATCH):
            yield np.asarray(batch[_ADDRESS], np.uint64), batch.drop_columns([_ADDRESS])

    def read(self, columns: Sequence[str], addresses: Array) -> pa.Table:
        """Return columns of the rows at addresses, in their order; all must be in the table."""
        names = list(columns)
        if len(addresses) <= _TAKEN * self._reader.count_rows():
            query = self._reader.take_row_ids(addresses.tolist()).with_row_id()
            found = query.select(names).to_arrow()
        else:
            found = self._reader.search().with_row_id(True).select(names).to_arrow()
        at = np.asarray(found[_ADDRESS], np.uint64)
        order = np.argsort(at)
        places = np.searchsorted(at[order], addresses)
        if len(addresses) and (len(at) == 0 or (at[order][places % len(at)] != addresses).any()):
            raise DataError(f"rows of version {self.version} of {self._folder} are not there")
        return found.select(names).take(pa.array(order[places]))

    def count(self) -> int:
        """Return the number of rows."""
        return int(self._reader.count_rows())

    def versions(self) -> list[int]:
        """Return the versions that can be opened."""
        return [int(one["version"]) for one in self._writer.list_versions()]

    def live_bytes(self) -> int:
        """Return how many bytes the rows of the newest version take."""
        return int(self._writer.stats()["total_bytes"])

    # writing

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other process writes, and keep others from writing."""
        with open(self._folder / LOCK, "ab") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield

    def upsert(self, rows: pa.Table) -> int:
        """Put rows in place of those of the same keys, in one commit; return its version."""

        def merge() -> None:
            builder = self._writer.merge_insert("key")
            both = builder.when_matched_update_all().when_not_matched_insert_all()
            both.execute(rows, on_bad_vectors=_NO_VECTOR)

        with self.alone():
            return self._commit(merge)

    def delete(self, condition: str) -> int:
        """Delete rows by a condition in the engine's SQL, in one commit."""
        with self.alone():
            return self._commit(lambda: self._writer.delete(condition))

    def rewrite(self, keep: Callable[[pa.RecordBatch], pa.RecordBatch]) -> int:
        """Write all rows anew, of each batch those that are kept; needs `alone`.

        Afterwards no file of the newest version holds anything of the others.
        """

        def write() -> None:
            self._writer.checkout_latest()
            shape = self._writer.schema
            batches = self._writer.search().select(shape.names).to_batches(_BATCH)
            kept = (keep(batch).cast(shape) for batch in batches)
            reader = pa.RecordBatchReader.from_batches(shape, kept)
            self._writer.add(reader, mode="overwrite", on_bad_vectors=_NO_VECTOR)

        return self._commit(write)

    def fold(self, keep: timedelta) -> int:
        """Merge small files and drop versions older than `keep`; needs `alone`."""
        return self._commit(lambda: self._writer.optimize(cleanup_older_than=keep))

    def drop_older(self) -> int:
        """Drop every version but the newest, with the files that it alone held; needs `alone`."""
        import warnings

        def drop() -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # that others lose them: meant
                self._writer.optimize(cleanup_older_than=timedelta(0), delete_unverified=True)

        return self._commit(drop)

    def has_deleted(self) -> bool:
        """Return whether files of the newest version still hold rows that are deleted."""
        held = self._folder / f"{NAME}.lance" / "_deletions"
        fragments = set((self.addresses() >> np.uint64(32)).tolist())
        names = os.listdir(held) if held.is_dir() else []
        return any(int(name.split("-")[0]) in fragments for name in names)

    def _commit(self, write: Callable[[], object]) -> int:
        """Write, try again where another process came first, and put all on disk."""
        rows = self._folder / f"{NAME}.lance"  # what lies beside it is others' to write
        before = _listing(rows)
        for attempt in range(1, _TRIES + 1):
            self._writer.checkout_latest()
            try:
                write()
                break
            except ENGINE_ERRORS as error:
                if "conflict" not in str(error).lower() and "concurrent" not in str(error).lower():
                    raise
                if attempt == _TRIES:
                    raise UnavailableError(
                        f"other processes wrote to {self._folder} each of {_TRIES} times: nothing "
                        "of this was written; try again"
                    ) from error
                time.sleep(0.05 * 2**attempt)
        version = int(self._writer.version)
        _flush(rows, before)
        return version


def _listing(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return what tells whether a file or a folder below has changed."""
    found = {}
    for root, _, names in os.walk(folder):
        for path in (root, *(os.path.join(root, name) for name in names)):
            state = os.stat(path)
            found[path] = state.st_ino, state.st_mtime_ns, state.st_size
    return found


def _flush(folder: Path, before: dict[str, tuple[int, int, int]]) -> None:
    """Put on disk the files and folders that are not as they were."""
    for path, state in _listing(folder).items():
        if before.get(path) != state:
            (fsync_folder if os.path.isdir(path) else fsync_file)(path)


def _first(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else repr(error)
