# SPDX-License-Identifier: Apache-2.0
"""Only the largest piece of a structure: what is around it becomes background."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vesalius.errors import RunError
from vesalius.files import read_json
from vesalius.types import Array
from vesalius.volume import LabelMap

FILE = "postprocessing.json"


def keep_largest(labels: LabelMap, values: Sequence[int]) -> None:
    """Set every piece of some structures but the largest to background, in place.

    Voxels that touch, be it by a corner, are one piece; of equal pieces the first along the axes
    stays. One structure is looked at at a time, inside its box, in 5 bytes for each voxel of it.

    Args:
        labels: of any grid; structures that overlap in layers of their own.
        values: of the structures.
    """
    for value, box in _boxes(labels, values).items():
        part = labels.data[box]
        pieces, count = _pieces(part, value)
        sizes = np.zeros(1 + count, np.int64)
        for plane in pieces:
            sizes += np.bincount(plane.ravel(), minlength=1 + count)
        largest = 1 + int(sizes[1:].argmax())
        for planes, plane in zip(part.swapaxes(0, 1), pieces, strict=True):
            planes[(planes == value) & (plane != largest)] = 0


def _pieces(part: Array, value: int) -> tuple[Array, int]:
    """Return the number, from 1, of the piece of each voxel `(i, j, k)`, 0 elsewhere; how many."""
    from scipy import ndimage

    mask = part[0] == value
    for layer in part[1:]:
        mask |= layer == value
    pieces, count = ndimage.label(mask, np.ones((3, 3, 3), bool))
    return pieces, int(count)


def kept_labels(folder: Path) -> list[str]:
    """Return the structures of a run of which only the largest piece is kept.

    A run that an earlier version trained has no record of it, and none.

    Raises:
        RunError: the record cannot be read.
    """
    path = folder / FILE
    if not path.exists():
        return []
    try:
        return [str(one["label"]) for one in read_json(path)["largest_piece"] if one["kept"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"'{path}' cannot be read ({error}); `vesalius evaluate --split val` writes it again"
        ) from error


def _boxes(labels: LabelMap, values: Sequence[int]) -> dict[int, tuple[slice, ...]]:
    """Return for each structure that is there the box, in all layers, that holds it."""
    from scipy import ndimage

    found = [ndimage.find_objects(layer, max(values, default=0)) for layer in labels.data]
    out: dict[int, tuple[slice, ...]] = {}
    for value in values:
        own = [boxes[value - 1] for boxes in found if boxes[value - 1] is not None]
        if own:
            out[value] = (
                slice(None),
                *(
                    slice(min(b[axis].start for b in own), max(b[axis].stop for b in own))
                    for axis in range(3)
                ),
            )
    return out
