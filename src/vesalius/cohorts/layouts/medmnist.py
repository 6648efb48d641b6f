# SPDX-License-Identifier: Apache-2.0
"""MedMNIST: `train_images`, `train_labels`, `val_images`, … in one NPZ (Yang et al. 2023).

Each array of images is cut into runs of at most `RUN` images, one unit of the scan each. Its split
is the first word of its name; its labels are the array of the same name with `labels` in it, one
column (`label`) or several (`label_0`, …).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vesalius.cohorts.index import Entry
from vesalius.cohorts.layouts.facts import SPLITS
from vesalius.errors import CorruptFile
from vesalius.io import zipped
from vesalius.io.limits import Limits
from vesalius.types import Array, Json

RUN = 256


def runs(entry: Entry) -> Iterator[Json]:
    """Yield `{array, start, stop, label_array, split}` for each run of images of an NPZ file."""
    arrays = {name: shape for name, shape, _ in json.loads(entry.facts)}
    for name, shape in sorted(arrays.items()):
        if len(shape) < 3:
            continue
        labels = name.replace("images", "labels") if "images" in name else ""
        if labels == name or not _fits(arrays.get(labels), shape[0]):
            labels = ""
        split = SPLITS.get(name.split("_")[0].lower(), "")
        for start in range(0, shape[0], RUN):
            stop = min(start + RUN, shape[0])
            yield {"array": name, "start": start, "stop": stop, "label_array": labels,
                   "split": split}  # fmt: skip


def read_labels(path: Path, array: str, limits: Limits) -> Array:
    """Return the labels `(n, columns)` of an NPZ file; nothing is ever unpickled.

    Raises:
        CorruptFile: the array is no table of numbers or text.
        LimitExceeded: it is larger than the file may take.
    """
    with zipped.opened(path, limits) as archive:
        entry = archive.getinfo(f"{array}.npy")
        limits.check(entry.file_size, path.stat().st_size, what=f"array '{array}'", path=str(path))
        with zipped.member(archive, entry, path=str(path)) as stream:
            try:
                table = np.lib.format.read_array(stream, allow_pickle=False)
            except (ValueError, EOFError) as error:
                raise CorruptFile(f"array '{array}' is damaged: {error}", path=str(path)) from error
    flat: Array = table.reshape(len(table), -1)
    if flat.dtype.kind not in "iufbU":
        raise CorruptFile(f"array '{array}' of type {table.dtype} holds no labels", path=str(path))
    return flat


def _fits(shape: list[int] | None, count: int) -> bool:
    return shape is not None and 1 <= len(shape) <= 2 and shape[0] == count
