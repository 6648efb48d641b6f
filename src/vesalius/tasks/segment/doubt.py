# SPDX-License-Identifier: Apache-2.0
"""How sure a network is of each structure: the Dice score that its own probabilities expect.

Of a structure with probability `p` in each voxel, and the voxels `A` where it is the largest (of
structures that may overlap: above one half), the score is `2 sum_A p / (sum p + |A|)` (Borges,
Pacheco, Silva: Soft Dice Confidence, 2024, arXiv 2402.10665). It needs no truth. It orders images
by their true Dice score, as far as the probabilities are right, but need not have its level:
`quality` maps it there.
"""

from __future__ import annotations

from typing import Self

import numpy as np
import torch
from torch import Tensor

from vesalius.tasks.segment.structures import answers
from vesalius.types import Array, Json, Shape3

_VOXELS = 1 << 16  # summed in 32 bits; sums of these in 64


class Doubt:
    """Sums over finished logits, a few planes at a time, in memory of these.

    Args:
        classes: of the logits, background included.
        regions: whether each of them is a structure of its own, that may overlap the others;
            there is no background then.
    """

    def __init__(self, classes: int, *, regions: bool = False) -> None:
        self.regions = regions
        self.total = np.zeros(classes)
        self.inside = np.zeros(classes)
        self.voxels = np.zeros(classes)
        self.highest = np.zeros(classes)

    @classmethod
    def of(cls, decisions: Json) -> Self:
        """Return one for the answers of a plan's network."""
        return cls(answers(decisions), regions=decisions.get("regions", False))

    def take(self, block: Tensor, corner: Shape3) -> None:
        """Add a block `(classes, i, j, k)`; planes that earlier blocks ended with are not new."""
        fresh = block[(slice(None), *(slice(int(first > 0), None) for first in corner))]
        if not fresh.numel():
            return
        for planes in torch.split(fresh, max(1, _VOXELS // fresh[0, 0].numel()), dim=1):
            logits = planes.flatten(1)
            table = torch.sigmoid(logits) if self.regions else torch.softmax(logits, dim=0)
            self.total += table.sum(1).cpu().numpy()
            if self.regions:
                chosen = table > 0.5  # (structures, voxels)
                self.inside += (table * chosen).sum(1).cpu().numpy()
                self.voxels += chosen.sum(1).cpu().numpy()
            else:
                own, largest = table.max(0)
                count = len(table)
                self.inside += torch.bincount(largest, own.double(), count).cpu().numpy()
                self.voxels += torch.bincount(largest, minlength=count).cpu().numpy()
            self.highest = np.maximum(self.highest, table.amax(1).cpu().numpy())

    def expected_dice(self) -> Array:
        """Return `(structures,)`; of one that was nowhere found, how sure that is."""
        found = 2 * self.inside / np.maximum(self.total + self.voxels, 1e-9)
        scores: Array = np.where(self.voxels > 0, found, 1 - self.highest)
        return scores if self.regions else scores[1:]
