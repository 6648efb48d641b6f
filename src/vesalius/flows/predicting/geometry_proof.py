# SPDX-License-Identifier: Apache-2.0
"""Proof that a written label map lies on its image: the file is read back and compared."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vesalius.errors import DataError
from vesalius.types import Array, Json

if TYPE_CHECKING:
    from vesalius.volume import LabelMap, Volume

TOLERANCE_MM = 1e-3
CONTOURS = "rtstruct"  # polygons around voxels: the same voxels but for their rims


def prove(path: Path, found: LabelMap, image: Volume, written_as: str) -> Json:
    """Read a label map back and return how far it is from what was meant, on the image's grid.

    Args:
        path: what was written.
        found: what was to be written, on the image's grid.
        image: that was segmented.
        written_as: the format.

    Returns:
        `off_grid_mm`, the largest distance of the file's voxels from voxels of the image;
        `voxels_changed` over all structures; `voxels`, of all structures; of contours
        `lowest_dice` of what they enclose, and no `off_grid_mm`.

    Raises:
        DataError: the file does not say what was meant.
    """
    from vesalius import io
    from vesalius.io.dicom.segmentation import on_reference

    contours = written_as == CONTOURS
    back = io.read_labels(path, reference=image if contours else None)
    proof: Json = {"voxels": int(np.count_nonzero(found.data))}
    if not contours:
        proof["off_grid_mm"] = round(_off_grid(back, image), 6)
        if image.calibrated and proof["off_grid_mm"] > TOLERANCE_MM:
            raise DataError(
                f"'{path.name}' lies {proof['off_grid_mm']:.3g} mm off the image's voxels when it "
                "is read back; write another --format, and report this"
            )
        back = on_reference(back, image, path=path.name)
    pairs = list(_structures(found, back))
    proof["voxels_changed"] = sum(int(np.count_nonzero(a != b)) for a, b in pairs)
    if contours:
        scores = [2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs if a.any() or b.any()]
        proof["lowest_dice"] = round(float(min(scores)), 4) if scores else None
    elif proof["voxels_changed"]:
        raise DataError(
            f"'{path.name}' holds {proof['voxels_changed']} voxels of other structures than were "
            "written, when it is read back; write another --format, and report this"
        )
    return proof


def _structures(found: LabelMap, back: LabelMap) -> list[tuple[Array, Array]]:
    """Return each structure's mask as it was meant and as it was read."""
    values = {name: value for value, name in back.names.items()}
    pairs = []
    for value, name in found.names.items():
        meant = (found.data == value).any(axis=0)
        read = (back.data == values.get(name, value if not values else -1)).any(axis=0)
        pairs.append((meant, read))
    return pairs


def _off_grid(back: LabelMap, image: Volume) -> float:
    """Return how far the file's outermost voxels lie from the nearest voxels of the image, mm."""
    ends = itertools.product(*((0, n - 1) for n in back.shape))
    corners = np.array([[*end, 1] for end in ends], float).T
    index = (np.linalg.inv(image.affine) @ back.affine @ corners)[:3]
    gaps = image.affine[:3, :3] @ (index - index.round())
    return float(np.linalg.norm(gaps, axis=0).max())
