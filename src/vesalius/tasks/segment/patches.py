# SPDX-License-Identifier: Apache-2.0
"""Prepared images on disk, and the patches that one training step draws from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vesalius.errors import CohortError, DataError
from vesalius.files import read_json, write_json
from vesalius.normalization import Normalizer
from vesalius.tasks.cases import Case
from vesalius.tasks.segment.grid import mask_to_plan, to_plan
from vesalius.tasks.segment.neighbors import neighbors, with_neighbors
from vesalius.tasks.segment.slide import patch3
from vesalius.tasks.segment.structures import Structures
from vesalius.types import Array, Json, Progress

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort

_SPOTS = 5000  # stored voxels of each label of each image


@dataclass(frozen=True, slots=True)
class Prepared:
    """Images and masks on the plan's grid, as memory-mapped files; none is held in memory."""

    folder: Path
    keys: frozenset[str]
    failures: dict[str, str]  # image key -> why it could not be prepared

    def image(self, key: str) -> Array:
        """Return `(C, i, j, k)` float16, on disk."""
        return _mapped(self.folder / f"{key}.image.npy")

    def label(self, key: str) -> Array:
        """Return `(i, j, k)` codes (see `structures`), on disk."""
        return _mapped(self.folder / f"{key}.label.npy")

    def spots(self, key: str) -> Array:
        """Return `(n, 4)`: a structure's place, from 1 on, and a voxel; of some of its voxels."""
        return _mapped(self.folder / f"{key}.spots.npy")


def prepare(
    folder: Path,
    cohort: Cohort,
    cases: Sequence[Case],
    decisions: Json,
    normalizer: Normalizer,
    progress: Progress | None = None,
) -> Prepared:
    """Write every image and mask on the plan's grid below `folder`, one in memory at a time.

    Raises:
        CohortError: none could be prepared.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / "prepared.json"
    if index.exists():
        record = read_json(index)
        return Prepared(folder, frozenset(record["keys"]), record["failures"])
    structures = Structures.of(decisions)
    keys: list[str] = []
    failures: dict[str, str] = {}
    for done, case in enumerate(cases, 1):
        (row,) = case.rows
        try:
            volume = cohort.read(row)
            if volume.is_2d and len(decisions["patch"]) == 3:
                raise DataError("a single slice, and the plan's network takes volumes")
            label = mask_to_plan(cohort.read_mask(row), volume, decisions)
            image = to_plan(volume, decisions, normalizer).data.astype(np.float16)
        except DataError as error:
            failures[case.key] = str(getattr(error, "reason", error))
            continue
        np.save(folder / f"{case.key}.image.npy", image)
        np.save(folder / f"{case.key}.label.npy", label)
        np.save(folder / f"{case.key}.spots.npy", spots_of(label, structures))
        keys.append(case.key)
        if progress is not None:
            progress("preparing images", done, len(cases))
    if not keys:
        raise CohortError(
            f"none of the {len(cases)} images can be used; the first says: "
            f"{next(iter(failures.values()), 'no case')}"
        )
    write_json(index, {"keys": keys, "failures": failures})
    return Prepared(folder, frozenset(keys), failures)


def draw(
    prepared: Prepared,
    keys: Sequence[str],
    decisions: Json,
    first: int,
    rng: np.random.Generator,
) -> tuple[Array, Array]:
    """Return one patch of each image: `(N, C, ...)` float32 and `(N, ...)` int64.

    Args:
        prepared: the images.
        keys: of the batch.
        decisions: the plan's patch and share of patches that are centered on foreground.
        first: place of the batch's first patch in the whole training, so that the share is kept
            over steps.
        rng: the step's generator.
    """
    patch = patch3(decisions)
    period = round(1 / decisions["forced_foreground"])
    beside = neighbors(decisions)
    images, labels = [], []
    for place, key in enumerate(keys, first):
        image, label = prepared.image(key), prepared.label(key)
        start = _start(prepared, key, label.shape, patch, place % period == 0, rng)
        if beside:
            seen = with_neighbors(image, int(start[2]), beside)
            images.append(_cut(seen, start * (1, 1, 0), patch, fill=None))
        else:
            images.append(_cut(image, start, patch, fill=None))
        labels.append(_cut(label[None], start, patch, fill=0)[0])
    x, y = np.stack(images).astype(np.float32), np.stack(labels).astype(np.int64)
    flat = len(decisions["patch"]) == 2
    return (x[..., 0], y[..., 0]) if flat else (x, y)


def _start(
    prepared: Prepared,
    key: str,
    shape: tuple[int, ...],
    patch: Array,
    forced: bool,
    rng: np.random.Generator,
) -> Array:
    """Return the patch's first voxel; negative where the image is smaller than the patch."""
    lack = np.maximum(0, patch - np.array(shape))
    low, high = -(lack // 2), np.array(shape) - patch + lack - lack // 2
    draws = rng.random(3)
    pick = rng.integers(2**31, size=2)
    start: Array = low + np.floor(draws * (high - low + 1)).astype(int)
    if not forced:
        return start
    spots = prepared.spots(key)
    present = np.unique(spots[:, 0])
    if not len(present):
        return start
    chosen = spots[spots[:, 0] == present[pick[0] % len(present)]]
    center = chosen[pick[1] % len(chosen), 1:]
    centered: Array = np.clip(center - patch // 2, low, np.maximum(low, high))
    return centered


def _cut(array: Array, start: Array, patch: Array, fill: float | None) -> Array:
    """Return `(C, *patch)`; outside the image its smallest value, or `fill`."""
    shape = np.array(array.shape[1:])
    low, high = np.maximum(start, 0), np.minimum(start + patch, shape)
    window = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    inner = np.asarray(array[(slice(None), *window)])
    if inner.shape[1:] == tuple(patch):
        return inner
    value = float(inner.min()) if fill is None else fill
    out = np.full((len(array), *patch), value, array.dtype)
    place = tuple(slice(int(a - s), int(b - s)) for a, b, s in zip(low, high, start, strict=True))
    out[(slice(None), *place)] = inner
    return out


def _mapped(path: Path) -> Array:
    array: Array = np.load(path, mmap_mode="r")
    return array


def spots_of(label: Array, structures: Structures) -> Array:
    """Return `(n, 4)`: of each structure its place, from 1 on, and some of its voxels."""
    rng = np.random.default_rng(0)
    parts = [np.empty((0, 4), np.int32)]
    for index in range(1, len(structures.sources) + 1):
        voxels = np.flatnonzero(structures.members(label, index))
        if len(voxels) > _SPOTS:
            voxels = rng.choice(voxels, _SPOTS, replace=False)
        places = np.stack(np.unravel_index(voxels, label.shape), 1)
        parts.append(np.column_stack([np.full(len(places), index), places]).astype(np.int32))
    return np.concatenate(parts)
