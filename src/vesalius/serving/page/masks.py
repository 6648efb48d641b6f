# SPDX-License-Identifier: Apache-2.0
"""A mask that a person drew, checked against its image and kept; runs beside the server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from vesalius import io
from vesalius.errors import DataError
from vesalius.geometry import same_grid
from vesalius.serving.page.convert import OWN, structure_names, volumes_ml
from vesalius.types import Array, Json
from vesalius.volume import LabelMap

_PLACE = 0.05  # of the spacing: how far a voxel may lie from its place, for browsers' float32


def keep_mask(drawn: str, image: str, before: str, out: str) -> Json:
    """Check a drawn mask and write it on its image's grid.

    Args:
        drawn: NIfTI file as the page sent it.
        image: the view that it was drawn on.
        before: the view of the label map that it corrects.
        out: NIfTI file to write, with the structures' names.

    Returns:
        `{"volumes_ml": …, "changed_voxels": n, "dice": {structure: with what was there before}}`.

    Raises:
        DataError: another grid, or values that name no structure. ReadError: no image.
    """
    reference = io.read(image, limits=OWN)
    try:
        found = io.read_labels(drawn, limits=replace(OWN, floor=_most(reference.data)))
    finally:
        Path(drawn).unlink(missing_ok=True)
    old = io.read_labels(before, limits=OWN)
    if found.data.shape != (1, *reference.shape):
        raise DataError(
            f"the mask has {_by(found.data.shape)} voxels, its image {_by((1, *reference.shape))}; "
            "draw on the image as it was loaded"
        )
    if not same_grid(found.affine, found.shape, reference.affine, reference.shape,
                     tolerance_mm=_PLACE * min(reference.spacing)):  # fmt: skip
        raise DataError("the mask lies elsewhere than its image; draw on the image as loaded")
    names = structure_names(old)
    strange = sorted({int(one) for one in np.unique(found.data)} - {0, *names})
    if strange:
        raise DataError(
            f"the mask holds {', '.join(map(str, strange[:10]))}; the structures are "
            f"{', '.join(f'{value} {name}' for value, name in names.items())}"
        )
    kept = LabelMap(found.data.astype(np.uint8), reference.affine, names=names)
    io.write(kept, out)
    return {
        "volumes_ml": volumes_ml(kept, names),
        "changed_voxels": int(np.count_nonzero(kept.data != old.data)),
        "dice": {name: _dice(kept.data == value, old.data == value)
                 for value, name in names.items()},
    }  # fmt: skip


def _dice(one: Array, other: Array) -> float | None:
    """Return the Dice score of two masks, None where both are empty."""
    size = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / size if size else None


def _most(data: Array) -> int:
    return 16 * int(data[0].size) + (96 << 20)


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(f"{one:,}" for one in shape)
