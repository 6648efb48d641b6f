# SPDX-License-Identifier: Apache-2.0
"""The largest class of finished logits, on a grid that divides the same box otherwise.

Logits are interpolated linearly between voxel centers and hold beyond the outer ones. They are
taken a small tile at a time, class by class, so that nothing but the label map has the size of
the image.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vesalius.errors import DataError
from vesalius.types import Array, Shape3

_TILE = 32  # voxels along an edge: small enough for a processor's cache


class Argmax:
    """Writes the class with the largest logit into `out`, voxel by voxel; the first among equals.

    Args:
        out: `(i, j, k)` integers, along the logits' axes; a view into a larger array will do.
        values: what is written for each class.
        shape: of the whole of the logits.
    """

    def __init__(self, out: Array, values: Sequence[int], shape: Shape3) -> None:
        self.out = out
        self.values = np.array(values, out.dtype)
        self.axes = [_Axis(n, voxels) for n, voxels in zip(shape, out.shape, strict=True)]

    def take(self, block: Tensor, corner: Shape3) -> None:
        """Write every voxel whose neighbors among the logits' voxels are in the block.

        Args:
            block: `(classes, i, j, k)` float32.
            corner: its first voxel in the whole of the logits.

        Raises:
            DataError: a logit is not a number.
        """
        pieces = [
            list(axis.pieces(first, planes, block.device))
            for axis, first, planes in zip(self.axes, corner, block.shape[1:], strict=True)
        ]
        for tile in itertools.product(*pieces):
            into = tuple(piece.voxels for piece in tile)
            logits = block[(slice(None), *(piece.planes for piece in tile))]
            # A class that is nowhere as large as another one everywhere is nowhere the largest.
            able = logits.amax((1, 2, 3)) >= logits.amin((1, 2, 3)).max()
            classes: list[int] = able.nonzero().flatten().tolist()
            if not classes:
                raise DataError(
                    "the network's answer is not a number in places; look for values far out of "
                    "range in the image, or train again"
                )
            if len(classes) == 1:
                self.out[into] = self.values[classes[0]]
            else:
                largest = _largest(logits, classes, [piece.weights for piece in tile])
                self.out[into] = self.values[largest.cpu().numpy()]


@dataclass(frozen=True, slots=True)
class _Piece:
    planes: slice  # of the block
    voxels: slice  # of the output, between these planes
    weights: Tensor | None  # (voxels, planes); None where each voxel is a plane


class _Axis:
    """`voxels` that divide evenly the length which `planes` of logits divide."""

    def __init__(self, planes: int, voxels: int) -> None:
        place = np.clip((np.arange(voxels) + 0.5) * planes / voxels - 0.5, 0, planes - 1)
        self.planes, self.same = planes, planes == voxels
        self.before = np.minimum(np.floor(place).astype(int), max(0, planes - 2))
        self.share = (place - self.before).astype(np.float32)  # of the plane after
        self.step = min(_TILE, max(1, _TILE * planes // voxels))

    def pieces(self, first: int, count: int, device: torch.device) -> Iterator[_Piece]:
        """Yield the voxels between planes `first` and `first + count - 1`, a few at a time."""
        last = first + count - 1 if self.planes > 1 else 1
        for begin in range(first, last, self.step):
            end = min(begin + self.step, last)
            start, stop = (int(n) for n in np.searchsorted(self.before, (begin, end)))
            if self.same and start < stop:
                yield _Piece(slice(start - first, stop - first), slice(start, stop), None)
            elif start < stop:
                until = min(end + 1, self.planes)
                weights = np.zeros((stop - start, until - begin), np.float32)
                row, share = np.arange(stop - start), self.share[start:stop]
                column = self.before[start:stop] - begin
                weights[row, column] = 1 - share
                weights[row, np.minimum(column + 1, until - begin - 1)] += share
                yield _Piece(
                    slice(begin - first, until - first),
                    slice(start, stop),
                    torch.from_numpy(weights).to(device),
                )


def _largest(logits: Tensor, classes: Sequence[int], weights: Sequence[Tensor | None]) -> Tensor:
    """Return which of some classes, in rising order, is the largest in each voxel of a tile."""
    best = _between(logits[classes[0]], weights).clone()
    index = torch.full(best.shape, classes[0], dtype=torch.int16, device=best.device)
    for number in classes[1:]:
        here = _between(logits[number], weights)
        wins = here > best
        torch.maximum(best, here, out=best)
        # Numbers rise: the latest that wins is the largest, and faster found than by a mask.
        torch.maximum(index, wins.to(torch.int16).mul_(number), out=index)
    return index


def _between(values: Tensor, weights: Sequence[Tensor | None]) -> Tensor:
    """Interpolate one class along i, j and k."""
    along_i, along_j, along_k = weights
    if along_k is not None:
        values = values @ along_k.T
    if along_j is not None:
        values = along_j @ values
    if along_i is not None:
        values = (along_i @ values.flatten(1)).view(-1, *values.shape[1:])
    return values
