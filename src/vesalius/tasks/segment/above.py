# SPDX-License-Identifier: Apache-2.0
"""Where the logit of each structure is above 0, on a grid that divides the same box otherwise.

For structures that may overlap; interpolated and taken tile by tile as the largest class is
(`argmax`), so that nothing but the label map has the size of the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vesalius.tasks.segment.argmax import Argmax, axes_of, between, not_a_number, tiles
from vesalius.types import Array, Shape3


class Above:
    """Writes each structure's value into its layer of `out`, voxel by voxel.

    Args:
        out: `(structure, i, j, k)` zeros, along the logits' axes; a view will do.
        values: what is written for each structure.
        shape: of the whole of the logits, `(i, j, k)`.
    """

    def __init__(self, out: Array, values: Sequence[int], shape: Shape3) -> None:
        self.out = out
        self.values = np.array(values, out.dtype)
        self.axes = axes_of(shape, out.shape[1:])

    def take(self, block: Tensor, corner: Shape3) -> None:
        """Write every voxel whose neighbors among the logits' voxels are in the block.

        Args:
            block: `(structures, i, j, k)` float32.
            corner: its first voxel in the whole of the logits.

        Raises:
            DataError: a logit is not a number.
        """
        for into, logits, weights in tiles(self.axes, block, corner):
            low, high = logits.amin((1, 2, 3)), logits.amax((1, 2, 3))
            if bool(torch.isnan(low).any()):
                raise not_a_number()
            for index in (high > 0).nonzero().flatten().tolist():
                place = (index, *into)
                if low[index] > 0:
                    self.out[place] = self.values[index]
                else:
                    inside = (between(logits[index], weights) > 0).cpu().numpy()
                    np.multiply(inside, self.values[index], out=self.out[place], casting="unsafe")


def labeler(out: Array, values: Sequence[int], shape: Shape3, *, regions: bool) -> Argmax | Above:
    """Return what turns a network's logits into labels.

    Args:
        out: `(layer, i, j, k)` zeros: one layer, or one a structure where they may overlap.
        values: what is written for each structure.
        shape: of the whole of the logits.
        regions: whether structures may overlap; else the first logit is the background's.
    """
    return Above(out, values, shape) if regions else Argmax(out[0], [0, *values], shape)
