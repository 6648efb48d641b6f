# SPDX-License-Identifier: Apache-2.0
"""The index of a large archive on disk: rows ordered by cell, postings of words, opened in place.

```
index/<version>/
├── index.json       number of rows and cells, cells looked at, recall with and without filters
├── vectors.npy      (rows, d) float32, cell after cell; rows without a vector last
├── addresses.npy  centroids.npy  offsets.npy
├── columns.arrow    what a filter may name
└── vocabulary.arrow  rows.npy  counts.npy  starts.npy  lengths.npy      postings
```
Files are mapped, not read: a process that asks once touches what it looks at. The index covers the
rows at the addresses it was made from; others are compared one by one until it is made anew. It is
written under another name, flushed and renamed: it is there whole, or not.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from vesalius.files import fsync_folder, fsync_tree, read_json, write_json
from vesalius.store import bm25, cells, rows
from vesalius.store.parts import Part, Source
from vesalius.types import Array, Json

FOLDER = "index"
_PARTIAL = "partial-"
_SEED = 0


def newest(folder: Path, version: int) -> Path | None:
    """Return the newest index of an archive that is not newer than a version."""
    held = folder / FOLDER
    found = [int(name) for name in os.listdir(held) if name.isdigit()] if held.is_dir() else []
    fitting = [one for one in found if one <= version]
    return held / str(max(fitting)) if fitting else None


def load(path: Path) -> Part:
    """Open an index as a part."""
    about = read_json(path / "index.json")
    part = Part(_array(path, "addresses"), _columns(path, "columns"))
    looked = {float(share): int(one["cells"]) for share, one in about["looked"].items()}
    part.cells = cells.Cells(np.array(_array(path, "centroids")), np.array(_array(path, "offsets")),
                             looked)  # fmt: skip
    vectors = _array(path, "vectors")
    has = np.arange(len(part)) < part.cells.offsets[-1]
    part.give(
        (vectors, has),
        bm25.Postings(
            _columns(path, "vocabulary")["term"], np.array(_array(path, "starts")),
            _array(path, "rows"), _array(path, "counts"), _array(path, "lengths"),
        ),
    )  # fmt: skip
    return part


def remove(folder: Path, keep: Path | None = None) -> None:
    """Remove the indexes of an archive, but for one."""
    held = folder / FOLDER
    for path in sorted(held.iterdir()) if held.is_dir() else ():
        if path != keep:
            shutil.rmtree(path)
    if held.is_dir():
        fsync_folder(held)


def build(folder: Path, version: int, source: Source, dimension: int, names: list[str]) -> Path:
    """Make the index of all rows of a version; needs that nobody writes.

    Args:
        folder: of the archive.
        version: that `source` reads.
        source: its rows.
        dimension: of vectors, 0 for none.
        names: columns that a filter may name.
    """
    held = folder / FOLDER
    held.mkdir(exist_ok=True)
    fsync_folder(folder)
    remove(folder, newest(folder, version))  # what a killed process left, too
    target = held / str(version)
    if target.exists():
        return target
    partial = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=held))
    rng = np.random.default_rng(_SEED)
    addresses, centroids, cell = _divided(source, dimension, rng)
    order, found, offsets = cells.arranged(cell)
    centroids, placed = centroids[found], addresses[order]
    vectors = np.lib.format.open_memmap(
        partial / "vectors.npy", "w+", np.float32, (len(order), dimension)
    )
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    for at, batch in source.batches(["vector"]) if dimension else ():
        of_batch = place[np.searchsorted(addresses, at)]
        vectors[of_batch] = np.nan_to_num(rows.vectors_of(batch["vector"]))
    looked = cells.measured(vectors, centroids, offsets, rng) if len(found) else {}
    del vectors
    facts = Part.of(source.read(names, placed), placed)
    _write_columns(partial, "columns", facts.columns)
    postings = bm25.postings(source.read(["terms"], placed)["terms"])
    _write_columns(partial, "vocabulary", {"term": postings.vocabulary})
    for name, array in (
        ("addresses", placed), ("centroids", centroids), ("offsets", offsets),
        ("starts", postings.offsets), ("rows", postings.rows), ("counts", postings.counts),
        ("lengths", postings.lengths),
    ):  # fmt: skip
        np.save(partial / f"{name}.npy", array)
    about: Json = {
        "entries": len(order), "vectors": int(offsets[-1]), "cells": len(centroids),
        "looked": {str(share): {"cells": number, "recall_at_10": recall}
                   for share, (number, recall) in looked.items()},
        "compared_whole_up_to": cells.GATHERED,
    }  # fmt: skip
    write_json(partial / "index.json", about)
    partial.chmod(0o755)
    fsync_tree(partial)
    os.replace(partial, target)
    fsync_folder(held)
    remove(folder, target)
    return target


def _divided(
    source: Source, dimension: int, rng: np.random.Generator
) -> tuple[Array, Array, Array]:
    """Return all addresses, rising, the centers of cells, and each row's cell or -1."""
    held = [at for at, _ in source.batches(["key"])]
    addresses = np.sort(np.concatenate(held or [np.empty(0, np.uint64)]))
    cell = np.full(len(addresses), -1, np.int32)
    if not dimension or not len(addresses):
        return addresses, np.empty((0, dimension), np.float32), cell
    share = cells.sample_share(len(addresses))
    sample = []
    for _, batch in source.batches(["vector"]):
        vectors = rows.vectors_of(batch["vector"])
        sample.append(vectors[(rng.random(len(vectors)) < share) & ~np.isnan(vectors[:, 0])])
    drawn = np.concatenate(sample)
    if not len(drawn):
        return addresses, np.empty((0, dimension), np.float32), cell
    wanted = min(cells.number_of_cells(len(addresses)), len(drawn))
    centroids = cells.centroids_of(drawn, wanted, rng)
    for at, batch in source.batches(["vector"]):
        vectors = rows.vectors_of(batch["vector"])
        has = ~np.isnan(vectors[:, 0])
        cell[np.searchsorted(addresses, at[has])] = cells.nearest_cell(vectors[has], centroids)
    return addresses, centroids, cell


def _array(path: Path, name: str) -> Array:
    found: Array = np.load(path / f"{name}.npy", mmap_mode="r")
    return found


def _columns(path: Path, name: str) -> dict[str, Any]:
    with pa.memory_map(str(path / f"{name}.arrow")) as mapped:
        batch = pa.ipc.open_file(mapped).get_batch(0)
    return dict(zip(batch.schema.names, batch.columns, strict=True))


def _write_columns(path: Path, name: str, columns: dict[str, Any]) -> None:
    batch = pa.record_batch(list(columns.values()), names=list(columns))
    target = str(path / f"{name}.arrow")
    with pa.OSFile(target, "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)
