# SPDX-License-Identifier: Apache-2.0
"""From the index to the published tables: label columns, findings of the whole, Lance commits.

Each batch is one commit of the table `images`, flushed to disk before the index remembers it, so
that a kill at any moment costs one batch. Readers follow `cohort.json`, which names the new
versions only once they are whole.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lancedb
import pyarrow as pa

from vesalius import files
from vesalius.cohorts import schema
from vesalius.cohorts.index import Index
from vesalius.cohorts.labels import Labels
from vesalius.cohorts.schema import COLUMNS, FINDING_COLUMNS, FINDINGS, IMAGES
from vesalius.types import Json

_BATCH = 4000  # rows a commit
_LISTED = 200  # rows of a label table that get a finding of their own
_CHECKED = ("stat_p01", "stat_p99", "mask_files", "kind", "patient_source")
_WIDER = {frozenset({"integer", "double"}): "double"}


class Publisher:
    """Publishes one cohort folder; needs the lock of its scan."""

    def __init__(self, index: Index, folder: Path, labels: Sequence[Labels]) -> None:
        self._index = index
        self._folder = folder
        self._labels = labels
        self._db = lancedb.connect(folder)
        self._types: dict[str, str] = {}
        self._size = (0, 0)
        self._flushed = 0.0

    def publish(self, tick: Any) -> tuple[int, int, list[str], dict[str, int]]:
        """Bring the tables up to date.

        Returns versions of `images` and of `findings`, the label columns, and findings by name.
        """
        from vesalius.cohorts.quality import check_cohort

        self._types = self._label_types()
        whole = self._whole()
        of_cohort = [{**_json_of(one), "root": ""} for one in check_cohort(whole)] + list(
            self._unmatched()
        )
        self._size = (len(whole), len(whole["patient"].unique()))
        del whole
        names: dict[str, set[str]] = defaultdict(set)
        for one in of_cohort:
            for key in {one["key"], *one["evidence"].get("keys", ())} - {""}:
                names[key].add(one["name"])
        version = self._images(names, tick)
        found_version, counts = self._findings(of_cohort)
        return version, found_version, list(self._types), counts

    def size(self) -> tuple[int, int]:
        """Return how many images and patients were published."""
        return self._size

    # rows

    def _rows(self) -> Iterator[Json]:
        """Yield the rows with their label columns, by key."""
        for row in self._index.payloads():
            told = {schema.label_column(k): v for k, v in (row.pop("labels", None) or {}).items()}
            for table in self._labels:
                told |= table.of(row)
            row |= {name: value for name, value in told.items() if name in COLUMNS}
            for name, kind in self._types.items():
                row[name] = _typed(told.get(name), kind)
            yield row

    def _label_types(self) -> dict[str, str]:
        kinds: dict[str, set[str]] = defaultdict(set)
        for row in self._index.payloads():
            for name, value in (row.get("labels") or {}).items():
                kinds[schema.label_column(name)].add(_kind(value))
        for table in self._labels:
            for name, kind in table.report.types.items():
                kinds[name].add(kind)
        return {
            name: found.pop() if len(found) == 1 else _WIDER.get(frozenset(found), "text")
            for name, found in sorted(kinds.items())
        }

    def _whole(self) -> pa.Table:
        """Return what the checks of the whole cohort look at."""
        from vesalius.cohorts.quality.cohort import NEEDED

        wanted = list(dict.fromkeys([*NEEDED, *_CHECKED, *self._types]))
        full = schema.images_schema(self._types)
        shape = pa.schema([full.field(name) for name in wanted])
        batches = [
            pa.RecordBatch.from_pylist([{n: _cell(row, n) for n in wanted} for row in rows], shape)
            for rows in _batched(self._rows())
        ]
        return pa.Table.from_batches(batches, shape)

    def _images(self, names: dict[str, set[str]], tick: Any) -> int:
        table = self._table(IMAGES, schema.images_schema(self._types))
        shape = schema.images_schema(self._types)
        db = self._index.db
        db.execute("CREATE TEMP TABLE IF NOT EXISTS current (key TEXT PRIMARY KEY)")
        db.execute("DELETE FROM current")
        total = db.execute("SELECT count(*) FROM rows").fetchone()[0]
        done = 0
        for rows in _batched(self._rows()):
            keys = [row["key"] for row in rows]
            known = dict(
                db.execute(
                    "SELECT key, final FROM published "
                    "WHERE key IN (SELECT value FROM json_each(?))",
                    (json.dumps(keys),),
                )
            )
            fresh, finals = [], []
            for row in rows:
                row["findings"] = sorted({*row["findings"], *names.get(row["key"], ())})
                final = hashlib.blake2b(json.dumps(row).encode(), digest_size=16).digest()
                if known.get(row["key"]) != final:
                    fresh.append({name: _cell(row, name) for name in shape.names})
                    finals.append((row["key"], final))
            if fresh:
                self._upsert(table, fresh, shape)
                db.execute("BEGIN")
                db.executemany("INSERT OR REPLACE INTO published VALUES (?, ?)", finals)
                db.execute("COMMIT")
            db.executemany("INSERT INTO current VALUES (?)", ((key,) for key in keys))
            done += len(rows)
            tick("publish", done, total)
        self._delete_gone(table)
        return int(table.version)

    def _upsert(self, table: Any, rows: list[Json], shape: pa.Schema) -> None:
        batch = pa.Table.from_pylist(rows, schema=shape)
        merge = table.merge_insert("key").when_matched_update_all().when_not_matched_insert_all()
        merge.execute(batch)
        self._flush(IMAGES)

    def _delete_gone(self, table: Any) -> None:
        db = self._index.db
        while True:
            gone = [
                key
                for (key,) in db.execute(
                    "SELECT key FROM published WHERE key NOT IN (SELECT key FROM current) LIMIT ?",
                    (_BATCH,),
                )
            ]
            if not gone:
                return
            table.delete(f"key IN ({', '.join(repr(key) for key in gone)})")
            self._flush(IMAGES)
            db.execute("BEGIN")
            db.executemany("DELETE FROM published WHERE key = ?", ((key,) for key in gone))
            db.execute("COMMIT")

    # findings

    def _unmatched(self) -> Iterator[Json]:
        from vesalius.cohorts.quality.findings import finding

        for table in self._labels:
            rows = table.unmatched(_LISTED)
            more = table.report.unmatched - len(rows)
            for number in rows:
                also = f" ({more} more rows likewise)" if more and number == rows[-1] else ""
                yield _json_of(
                    finding(
                        "label-without-image",
                        f"row {number} of the table of labels names no image{also}",
                        {"row": number, "unmatched": table.report.unmatched},
                    )
                ) | {"root": ""}

    def _findings(self, of_cohort: list[Json]) -> tuple[int, dict[str, int]]:
        """Write the table of findings unless it is as it was; return version and counts."""
        shape = schema.findings_schema()
        engine = hashlib.blake2b(digest_size=16)
        counts: dict[str, int] = defaultdict(int)
        for one in self._all_findings(of_cohort):
            engine.update(json.dumps(one).encode())
            counts[one["name"]] += 1
        digest = engine.hexdigest()
        remembered = self._index.get("findings")
        if remembered and remembered["digest"] == digest and self._exists(FINDINGS):
            return remembered["version"], dict(counts)
        mode = "overwrite" if self._exists(FINDINGS) else "create"
        table = self._db.create_table(FINDINGS, schema=shape, mode=mode)
        for rows in _batched(self._all_findings(of_cohort)):
            table.add(pa.Table.from_pylist(rows, schema=shape))
        self._flush(FINDINGS)
        self._index.put("findings", {"digest": digest, "version": table.version})
        return int(table.version), dict(counts)

    def _all_findings(self, of_cohort: list[Json]) -> Iterator[Json]:
        """Yield all findings in one order: of files, of units, of the cohort."""
        db = self._index.db
        for root, folder, name, text in db.execute(
            "SELECT r.name, d.path, f.name, f.finding FROM files f "
            "JOIN folders d ON f.folder = d.id JOIN roots r ON d.root = r.id "
            "WHERE f.finding IS NOT NULL ORDER BY r.name, d.path, f.name"
        ):
            yield _flat(json.loads(text) | {"root": root, "file": f"{folder}/{name}".lstrip("/")})
        for root, folder, text in db.execute(
            "SELECT r.name, d.path, d.finding FROM folders d JOIN roots r ON d.root = r.id "
            "WHERE d.finding IS NOT NULL ORDER BY r.name, d.path"
        ):
            yield _flat(json.loads(text) | {"root": root, "file": folder})
        for root, text in db.execute(
            "SELECT u.root, o.payload FROM found o JOIN units u ON o.unit = u.id "
            "ORDER BY o.unit, o.rowid"
        ):
            yield _flat(json.loads(text) | {"root": root})
        for one in of_cohort:
            yield _flat(one)

    # tables

    def _exists(self, name: str) -> bool:
        return (self._folder / f"{name}.lance" / "_versions").is_dir()

    def _table(self, name: str, shape: pa.Schema) -> Any:
        if not self._exists(name):
            self._index.db.execute("DELETE FROM published")
            table = self._db.create_table(name, schema=shape)
            self._flush(name)
            return table
        table = self._db.open_table(name)
        now = table.schema
        gone = [field.name for field in now if field not in shape]
        new = [field for field in shape if field not in now]
        if gone:
            table.drop_columns(gone)
        if new:
            table.add_columns(pa.schema(new))
        db = self._index.db
        if gone or new:
            db.execute("DELETE FROM published")  # every row is written anew
        if not db.execute("SELECT 1 FROM published LIMIT 1").fetchone() and table.count_rows():
            table.delete("true")  # rows that the index knows nothing of
            self._flush(name)
        return table

    def _flush(self, name: str) -> None:
        """Put what the last commit wrote on disk: its files are those not flushed before."""
        folder = self._folder / f"{name}.lance"
        stamp = self._flushed
        newest = max((os.stat(p).st_mtime for p in folder.rglob("*")), default=0.0)
        files.fsync_tree(folder, newer_than=stamp - 1.0)
        files.fsync_folder(self._folder)
        self._flushed = newest


def _batched(rows: Iterator[Json]) -> Iterator[list[Json]]:
    batch: list[Json] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _json_of(one: Any) -> Json:
    from vesalius.cohorts.parsing import packed

    found: Json = json.loads(packed(one))
    return found


def _flat(one: Json) -> Json:
    found = {name: one.get(name) for name in FINDING_COLUMNS}
    found["evidence"] = json.dumps(one.get("evidence") or {}, sort_keys=True)
    return found


def _cell(row: Json, name: str) -> Any:
    value = row.get(name)
    if value is not None and COLUMNS.get(name) == "bytes":
        return bytes.fromhex(value)
    return value


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    return "double" if isinstance(value, float) else "text"


def _typed(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind == "text":
        return str(value)
    return float(value) if kind == "double" else value
