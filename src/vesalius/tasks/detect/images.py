# SPDX-License-Identifier: Apache-2.0
"""Prepared images on disk: normalized, on the plan's spacing, with their boxes there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from vesalius.errors import CohortError, DataError
from vesalius.files import read_json, write_json
from vesalius.normalization import Normalizer
from vesalius.tasks.cases import Case
from vesalius.tasks.detect.boxes import Boxes, boxes_of
from vesalius.types import Array, Json, Progress
from vesalius.volume import Volume

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort


@dataclass(frozen=True, slots=True)
class Prepared:
    """Images on the plan's grid, as memory-mapped files; none is held in memory."""

    folder: Path
    boxes: dict[str, Boxes]  # image key -> truth on the plan's grid
    failures: dict[str, str]  # image key -> why it could not be prepared

    def image(self, key: str) -> Array:
        """Return `(C, i, j)` float16, on disk."""
        return np.asarray(np.load(self.folder / f"{key}.npy", mmap_mode="r"))


def to_plan(volume: Volume, decisions: Json, normalizer: Normalizer) -> tuple[Array, Array]:
    """Return the image normalized, on the plan's spacing, `(C, i, j)`, and the factors on pixels.

    A box in pixels of the image, times the factors along i and j, is one on the plan's grid.

    Raises:
        DataError: the image is no 2D one, or cannot be normalized.
    """
    if not volume.is_2d:
        raise DataError(
            f"detection takes 2D images, got {volume.shape[2]} slices; hand them in one by one"
        )
    wanted = decisions["network"]["in_channels"]
    if len(volume.data) > 3:
        volume = volume.with_data(volume.data[:3])  # alpha
    data = normalizer.apply(volume).data[..., 0]
    if len(data) != wanted:
        data = np.repeat(data.mean(axis=0, keepdims=True), wanted, axis=0)
    spacing = np.asarray(volume.spacing[:2] if volume.calibrated else (1.0, 1.0))
    old = np.array(data.shape[1:])
    new = np.maximum(1, np.round(old * spacing / decisions["spacing"])).astype(int)
    tensor = torch.from_numpy(np.ascontiguousarray(data, dtype=np.float32))[None]
    if (new != old).any():
        tensor = functional.interpolate(
            tensor, tuple(new.tolist()), mode="bilinear", antialias=True, align_corners=False
        )
    return tensor[0].numpy().astype(np.float16), new / old


def prepare(
    folder: Path,
    cohort: Cohort,
    cases: Sequence[Case],
    decisions: Json,
    normalizer: Normalizer,
    progress: Progress | None = None,
) -> Prepared:
    """Write every image on the plan's grid below `folder`, one in memory at a time.

    Raises:
        CohortError: none could be prepared.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / "prepared.json"
    if index.exists():
        record = read_json(index)
    else:
        record = {"factors": {}, "failures": {}}
        for done, case in enumerate(cases, 1):
            (row,) = case.rows
            try:
                image, factors = to_plan(cohort.read(row), decisions, normalizer)
            except DataError as error:
                record["failures"][case.key] = str(getattr(error, "reason", error))
                continue
            np.save(folder / f"{case.key}.npy", image)
            record["factors"][case.key] = factors.tolist()
            if progress is not None:
                progress("preparing images", done, len(cases))
        if not record["factors"]:
            raise CohortError(
                f"none of the {len(cases)} images can be used; the first says: "
                f"{next(iter(record['failures'].values()), 'no case')}"
            )
        write_json(index, record)
    boxes = {
        case.key: boxes_of(case.rows[0], decisions["classes"]).scaled(record["factors"][case.key])
        for case in cases
        if case.key in record["factors"]
    }
    return Prepared(folder, boxes, record["failures"])
