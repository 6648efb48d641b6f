# SPDX-License-Identifier: Apache-2.0
"""A label map that came back against the truth: the scores of each structure of a plan."""

from __future__ import annotations

import numpy as np

from vesalius.metrics import compare_masks
from vesalius.metrics.overlap import dice
from vesalius.tasks.segment.structures import Structures
from vesalius.types import Array
from vesalius.volume import LabelMap


def compare(predicted: LabelMap, codes: Array, structures: Structures) -> dict[str, float]:
    """Return the scores of `metrics.compare_masks`; ignored voxels count in neither map.

    Args:
        predicted: as a run answers.
        codes: of the truth `(i, j, k)`, on the same grid, see `structures`.
        structures: of the plan.
    """
    found = np.where(structures.ignores(codes), np.uint8(0), structures.places_in(predicted))
    labels = dict(enumerate(structures.sources, 1))
    return compare_masks(found, structures.places(codes), predicted.spacing, labels)


def dice_scores(predicted: LabelMap, codes: Array, structures: Structures) -> dict[str, float]:
    """Return the Dice score of each structure alone, for arguments as of `compare`."""
    counted = ~structures.ignores(codes)
    return {
        name: dice((predicted.data == value).any(0) & counted, structures.members(codes, index))
        for index, (name, value) in enumerate(
            zip(structures.sources, structures.values, strict=True), 1
        )
    }
