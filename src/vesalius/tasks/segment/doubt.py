# SPDX-License-Identifier: Apache-2.0
"""How sure a network is of each structure: the Dice score that its own probabilities expect.

Of a structure with probability `p` in each voxel, and the voxels `A` where it is the largest, the
score is `2 sum_A p / (sum p + |A|)` (Borges, Pacheco, Silva: Soft Dice Confidence, 2024, arXiv
2402.10665). It needs no truth. It orders images by their true Dice score, as far as the
probabilities are right, but need not have its level: `quality` maps it there.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vesalius.types import Array, Shape3


class Doubt:
    """Sums over finished logits, plane by plane, in memory of a few planes.

    Args:
        classes: of the logits, background included.
    """

    def __init__(self, classes: int) -> None:
        self.total = np.zeros(classes)
        self.inside = np.zeros(classes)
        self.voxels = np.zeros(classes)
        self.highest = np.zeros(classes)

    def take(self, block: Tensor, corner: Shape3) -> None:
        """Add a block `(classes, i, j, k)`; planes that earlier blocks ended with are not new."""
        new = tuple(slice(int(first > 0), None) for first in corner)
        for plane in block[(slice(None), *new)].unbind(1):
            table = torch.softmax(plane.flatten(1), dim=0)  # (classes, voxels)
            chosen = table.argmax(0)
            own = table.gather(0, chosen[None])[0]
            count = len(table)
            self.total += table.sum(1, dtype=torch.float64).cpu().numpy()
            self.inside += _sums(own, chosen, count)
            self.voxels += _sums(torch.ones_like(own), chosen, count)
            self.highest = np.maximum(self.highest, table.amax(1).cpu().numpy())

    def expected_dice(self) -> Array:
        """Return `(structures,)`; of one that was nowhere found, how sure that is."""
        found = 2 * self.inside / np.maximum(self.total + self.voxels, 1e-9)
        scores: Array = np.where(self.voxels > 0, found, 1 - self.highest)[1:]
        return scores


def _sums(values: Tensor, classes: Tensor, count: int) -> Array:
    sums = torch.zeros(count, dtype=torch.float64, device=values.device)
    return np.asarray(sums.index_add_(0, classes, values.double()).cpu().numpy())
