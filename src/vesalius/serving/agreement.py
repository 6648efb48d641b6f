# SPDX-License-Identifier: Apache-2.0
"""Answers to an exam as folders, and how far two of them agree.

An answer is `prediction.json` and, of a segmenter, `segmentation-N.nii.gz` for image N. They are
compared by workers and by the command line; the server's own process never does.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vesalius.errors import DataError
from vesalius.files import fsync_folder, fsync_tree, read_json
from vesalius.types import Json

if TYPE_CHECKING:
    from vesalius.volume import LabelMap

LABEL_MAPS = "segmentation-*.nii.gz"
_KEPT = ("prediction.json", LABEL_MAPS)
_MOST_MM = 1e-3


class Answer(Protocol):
    """Applies a run to an exam and writes the answer, as this file says, to `out`."""

    def __call__(self, run: Path, exam: Path, out: Path) -> None:
        """Answer for the files in the folder `exam`."""


def keep(out: Path, folder: Path) -> None:
    """Copy an answer to a new folder, durably, whole or not at all; its pictures are left out."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = folder.with_name(f".{folder.name}")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    for pattern in _KEPT:
        for path in out.glob(pattern):
            shutil.copyfile(path, made / path.name)
    fsync_tree(made)
    os.rename(made, folder)
    fsync_folder(folder.parent)
    fsync_folder(folder.parent.parent)


def of_answers(one: Path, two: Path) -> Json:
    """Return how far two answers agree; both are folders.

    Returns:
        Of classifiers what `of_classes` gives; of segmenters `dice`: for each image that both
        have a label map of, structure -> score; `images`: how many have one in either.
    """
    first, second = (read_json(folder / "prediction.json") for folder in (one, two))
    if first.get("task") == "classify":
        return of_classes(first, second)
    names = [{path.name for path in each.glob(LABEL_MAPS)} for each in (one, two)]
    both = sorted(names[0] & names[1])
    scores = [dice_of_files(one / name, two / name) for name in both]
    return {"dice": scores, "images": len(names[0] | names[1])}


def dice_of_files(one: Path, two: Path) -> dict[str, float]:
    """Return structure -> Dice score of two label maps.

    Raises:
        DataError: they lie on different grids.
    """
    from vesalius import io

    first, second = io.read_labels(one), io.read_labels(two)
    apart = abs(first.affine - second.affine).max()  # mm
    if first.data.shape[1:] != second.data.shape[1:] or not apart <= _MOST_MM:
        raise DataError("its label map lies on another grid than the one it is compared with")
    return dice_by_structure(first, second)


def dice_by_structure(first: LabelMap, second: LabelMap) -> dict[str, float]:
    """Return structure -> Dice score of two label maps on one grid; both empty: 1."""
    from vesalius.metrics.overlap import dice

    names = sorted({*first.names.values(), *second.names.values()})
    found = {}
    for name in names:
        masks = []
        for one in (first, second):
            values = [value for value, held in one.names.items() if held == name]
            mask = (one.data == values[0]) if values else (one.data != one.data)
            masks.append(mask.any(axis=0))
        found[name] = dice(*masks)
    return found


def of_classes(first: Mapping[str, object], second: Mapping[str, object]) -> Json:
    """Return how far two classifiers' answers agree.

    Returns:
        `same`: whether they say the same class (or both abstain); `largest_difference` of
        probabilities, where both have any; `difference` of the numbers of two regressions.
    """
    found: Json = {"same": first.get("predicted") == second.get("predicted")}
    one, two = first.get("probabilities") or {}, second.get("probabilities") or {}
    if isinstance(one, Mapping) and isinstance(two, Mapping) and one and set(one) == set(two):
        found["largest_difference"] = max(abs(float(one[n]) - float(two[n])) for n in one)
    values = [answer.get("value") for answer in (first, second)]
    if all(isinstance(value, int | float) for value in values):
        found["difference"] = abs(float(str(values[0])) - float(str(values[1])))
    return found
