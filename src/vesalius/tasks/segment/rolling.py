# SPDX-License-Identifier: Apache-2.0
"""Weighted sums of overlapping windows, kept for the planes that later windows still touch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from vesalius.types import Shape3

# take(block, corner): logits `(classes, i, j, k)` float32, and the voxel where they begin
Take: TypeAlias = Callable[[Tensor, Shape3], None]


class RollingSum:
    """Logits of a box of the image, a few planes at a time along one axis.

    Args:
        low: first voxel of the box.
        high: last voxel of the box, plus one.
        axis: along which windows come in order.
        depth: planes that one window covers.
        classes: of the logits.
        device: where they are summed.
    """

    def __init__(
        self,
        low: Sequence[int],
        high: Sequence[int],
        *,
        axis: int,
        depth: int,
        classes: int,
        device: torch.device | str,
    ) -> None:
        self.low, self.high, self.axis = list(low), list(high), axis
        wide = [b - a for n, (a, b) in enumerate(zip(low, high, strict=True)) if n != axis]
        # Plane 0 is the last finished one; the rest begin with plane `done` of the image.
        self.total = torch.zeros((classes, depth + 1, *wide), device=device)
        self.weight = torch.zeros((depth + 1, *wide), device=device)
        self.done = low[axis]

    def add(self, place: Shape3, logits: Tensor, weight: Tensor) -> None:
        """Add what a window has inside the box; none of it may be finished.

        Args:
            place: the window's first voxel.
            logits: `(classes, *patch)`.
            weight: `(*patch)`.
        """
        begin = [max(p, a) for p, a in zip(place, self.low, strict=True)]
        end = [min(p + size, b) for p, size, b in zip(place, weight.shape, self.high, strict=True)]
        window = [slice(a - p, b - p) for a, b, p in zip(begin, end, place, strict=True)]
        origin = self.low.copy()
        origin[self.axis] = self.done - 1
        inside = [slice(a - o, b - o) for a, b, o in zip(begin, end, origin, strict=True)]
        inside.insert(0, inside.pop(self.axis))
        there = weight[tuple(window)].movedim(self.axis, 0)
        values = logits[(slice(None), *window)].movedim(self.axis + 1, 1)
        self.total[(slice(None), *inside)].addcmul_(values, there)
        self.weight[tuple(inside)] += there

    def finish(self, stop: int, take: Take) -> None:
        """Hand on the planes before `stop`, with the one before them, and make room for later ones.

        No window that is added later may touch a plane before `stop`.
        """
        count = stop - self.done
        if count <= 0:
            return
        self.total[:, 1 : 1 + count] /= self.weight[1 : 1 + count]
        known = int(self.done > self.low[self.axis])
        corner = self.low.copy()
        corner[self.axis] = self.done - known
        i, j, k = corner
        take(self.total[:, 1 - known : 1 + count].movedim(1, self.axis + 1), (i, j, k))
        for planes in (self.total, self.weight[None]):
            kept = planes.shape[1] - count
            for first in range(0, kept, count):  # pieces that do not overlap where they go
                size = min(count, kept - first)
                planes[:, first : first + size] = planes[:, first + count : first + count + size]
            planes[:, kept:] = 0
        self.done = stop
