# SPDX-License-Identifier: Apache-2.0
"""Masks that deserve a look: the network was sure of its answer, and the mask says otherwise.

Labels are wrong more often than is thought (Northcutt, Athalye, Mueller: Pervasive label errors in
test sets, NeurIPS 2021): a mask beside its organ, a structure that was forgotten, one drawn on
another slice. A model that is right elsewhere shows them by its contradiction; so may a rare
anatomy that it never saw. Which it is, a person says.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vesalius.tasks.segment.quality import LEVEL
from vesalius.types import Json

LEAST_GAP = 0.3  # of the Dice score, between what was expected and what the mask gives
SPREADS = 5.0  # the gap's distance from the subset's median, in robust standard deviations
MOST = 50
_SD_OF_MAD = 1.4826


def suspect_masks(rows: Sequence[Json], labels: Sequence[str]) -> list[Json]:
    """Return `{key, label, predicted, dice}` of the masks that contradict a sure answer.

    Args:
        rows: one an image, with `failed`, `dice_<label>` and `predicted_dice_<label>`.
        labels: the structures.

    Returns:
        At most `MOST`, the largest contradiction first.
    """
    found = []
    for name in labels:
        known = [
            row for row in rows
            if not row["failed"] and row[f"predicted_dice_{name}"] is not None
            and row[f"dice_{name}"] is not None
        ]  # fmt: skip
        if not known:
            continue
        predicted = np.array([row[f"predicted_dice_{name}"] for row in known], float)
        dice = np.array([row[f"dice_{name}"] for row in known], float)
        gap = predicted - dice
        middle = float(np.median(gap))
        spread = _SD_OF_MAD * float(np.median(np.abs(gap - middle)))
        limit = max(LEAST_GAP, middle + SPREADS * spread)
        found += [
            {
                "key": known[place]["key"],
                "label": name,
                "predicted": float(predicted[place]),
                "dice": float(dice[place]),
            }
            for place in np.flatnonzero((predicted >= LEVEL) & (gap > limit))
        ]
    return sorted(found, key=lambda one: one["dice"] - one["predicted"])[:MOST]
