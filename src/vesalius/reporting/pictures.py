# SPDX-License-Identifier: Apache-2.0
"""Pictures of a cohort's rows, one image in memory at a time; what cannot be shown says so.

An image that may bear burned-in text is not shown: the text may be a patient's name (law 10).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vesalius.errors import DataError, GeometryError, ReadError
from vesalius.geometry import resample, same_grid
from vesalius.reporting.box_picture import boxes_picture
from vesalius.reporting.html import Html, image, tag
from vesalius.reporting.thumbnails import slice_picture, telling_slice
from vesalius.tasks.detect.boxes import Boxes
from vesalius.types import Array
from vesalius.volume import LabelMap, Volume

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort

_WITHHELD = "burned-in-text-suspected"
_KEY = re.compile(r"[0-9A-Za-z_-]+")


def rows_of(cohort: Cohort, keys: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the full rows of some keys, in the table's order."""
    plain = [key for key in keys if _KEY.fullmatch(key)]
    if plain:
        listed = ", ".join(f"'{key}'" for key in plain)
        yield from cohort.filter(f"key IN ({listed})").iter_rows()


def picture(cohort: Cohort, row: dict[str, Any], k: int | None = None) -> Html:
    """Return one slice of a row's image (`k`, default the middle one) with its caption.

    Of a series whose slices do not form a grid, that slice's file is shown alone.
    """
    if _WITHHELD in list(row.get("findings", ())):
        return _no_picture(_WITHHELD)
    try:
        volume, place, slices = _slice(cohort, row, k)
        uri = slice_picture(volume, min(place, volume.shape[2] - 1))
    except DataError as error:
        return _no_picture(_reason(error))
    where = f"slice {place} (0 to {slices - 1})" if slices > 1 else ""
    words = " · ".join(part for part in (str(row.get("modality") or ""), where) if part)
    alt = f"image {row['key']} {words}".strip()
    return tag("figure", image(uri, alt), tag("figcaption", words) if words else None)


def overlay(cohort: Cohort, row: dict[str, Any], predicted: Path | None) -> Html:
    """Return the slice where truth and prediction differ most, with both contours.

    `predicted` is the label map that the run wrote, or None where the case failed.
    """
    from vesalius.io import read_labels

    if _WITHHELD in list(row.get("findings", ())):
        return _no_picture(_WITHHELD)
    try:
        volume = cohort.read(row)
        truth = _on_grid(cohort.read_mask(row), volume)
        found = None if predicted is None else _on_grid(read_labels(predicted), volume)
        k = telling_slice(truth, found)
        uri = slice_picture(volume, k, truth=truth, prediction=found)
    except DataError as error:
        return _no_picture(_reason(error))
    where = f"slice {k} (0 to {volume.shape[2] - 1})" if volume.shape[2] > 1 else "2D image"
    alt = f"image {row['key']}, {where}, contours of truth and prediction"
    return tag("figure", image(uri, alt), tag("figcaption", where))


def boxed(cohort: Cohort, row: dict[str, Any], truth: Boxes, found: Boxes) -> Html:
    """Return a row's 2D image with its true boxes (dashed) and those that were found (solid)."""
    if _WITHHELD in list(row.get("findings", ())):
        return _no_picture(_WITHHELD)
    try:
        uri = boxes_picture(cohort.read(row), truth, found)
    except DataError as error:
        return _no_picture(_reason(error))
    return tag("figure", image(uri, f"image {row['key']}, boxes of truth and prediction"))


def _slice(cohort: Cohort, row: dict[str, Any], k: int | None) -> tuple[Volume, int, int]:
    """Return the image, or where it is no grid a single file of it; the slice; their number."""
    files = row["files"]
    volume: Volume | None
    try:
        volume = cohort.read(row)
        slices = volume.shape[2]
    except GeometryError:
        if len(files) < 2:
            raise
        volume, slices = None, len(files)
    place = slices // 2 if k is None else min(max(int(k), 0), slices - 1)
    if volume is None:
        volume = cohort.read({**row, "files": files[place : place + 1]})
    return volume, place, slices


def _on_grid(labels: LabelMap, volume: Volume) -> Array:
    """Return a label map as `(i, j, k)` on the volume's grid, layers laid over one another."""
    if not same_grid(labels.affine, labels.shape, volume.affine, volume.shape):
        labels = resample(labels, volume.affine, volume.shape)
    flat: Array = np.max(labels.data, axis=0)
    return flat


def _reason(error: DataError) -> str:
    return error.finding if isinstance(error, ReadError) else "the image cannot be read"


def _no_picture(reason: str) -> Html:
    return tag("div", f"no picture: {reason}", class_="missing")
