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

_TILE = 1 << 15  # voxels: small enough for a processor's cache


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
        self.axes = axes_of(shape, out.shape)

    def take(self, block: Tensor, corner: Shape3) -> None:
        """Write every voxel whose neighbors among the logits' voxels are in the block.

        Args:
            block: `(classes, i, j, k)` float32.
            corner: its first voxel in the whole of the logits.

        Raises:
            DataError: a logit is not a number.
        """
        for into, logits, weights in tiles(self.axes, block, corner):
            # A class that is nowhere as large as another one everywhere is nowhere the largest.
            able = logits.amax((1, 2, 3)) >= logits.amin((1, 2, 3)).max()
            classes: list[int] = able.nonzero().flatten().tolist()
            if not classes:
                raise not_a_number()
            if len(classes) == 1:
                self.out[into] = self.values[classes[0]]
            else:
                largest = _largest(logits, classes, weights)
                self.out[into] = self.values[largest.cpu().numpy()]


@dataclass(frozen=True, slots=True)
class _Piece:
    planes: slice  # of the block
    voxels: slice  # of the output, between these planes
    weights: Tensor | None  # (voxels, planes); None where each voxel is a plane


class Axis:
    """`voxels` that divide evenly the length which `planes` of logits divide.

    Taken in tiles of at most `edge` voxels.
    """

    def __init__(self, planes: int, voxels: int, edge: int) -> None:
        place = np.clip((np.arange(voxels) + 0.5) * planes / voxels - 0.5, 0, planes - 1)
        self.planes, self.same = planes, planes == voxels
        self.before = np.minimum(np.floor(place).astype(int), max(0, planes - 2))
        self.share = (place - self.before).astype(np.float32)  # of the plane after
        self.step = min(edge, max(1, edge * planes // voxels))

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


def axes_of(shape: Sequence[int], voxels: Sequence[int]) -> list[Axis]:
    """Return the axes of logits of a shape and of the voxels that divide the same box.

    Tiles are cubes as far as the box is wide enough for them, and flat in a flat one.
    """
    edges, room = [0] * len(voxels), _TILE
    for left, axis in zip(range(len(voxels), 0, -1), np.argsort(voxels), strict=True):
        edges[axis] = max(1, min(voxels[axis], round(room ** (1 / left))))
        room //= edges[axis]
    return [Axis(*each) for each in zip(shape, voxels, edges, strict=True)]


def tiles(
    axes: Sequence[Axis], block: Tensor, corner: Shape3
) -> Iterator[tuple[tuple[slice, ...], Tensor, list[Tensor | None]]]:
    """Yield the output's voxels, the logits around them, and each axis' weights, tile by tile.

    Args:
        axes: along i, j and k.
        block: `(classes, i, j, k)`.
        corner: its first voxel in the whole of the logits.
    """
    pieces = [
        list(axis.pieces(first, planes, block.device))
        for axis, first, planes in zip(axes, corner, block.shape[1:], strict=True)
    ]
    for tile in itertools.product(*pieces):
        logits = block[(slice(None), *(piece.planes for piece in tile))]
        yield tuple(p.voxels for p in tile), logits, [p.weights for p in tile]


def not_a_number() -> DataError:
    """Return the error for logits that are no numbers."""
    return DataError(
        "the network's answer is not a number in places; look for values far out of range in the "
        "image, or train again"
    )


def _largest(logits: Tensor, classes: Sequence[int], weights: Sequence[Tensor | None]) -> Tensor:
    """Return which of some classes, in rising order, is the largest in each voxel of a tile."""
    best = between(logits[classes[0]], weights).clone()
    index = torch.full(best.shape, classes[0], dtype=torch.int16, device=best.device)
    for number in classes[1:]:
        here = between(logits[number], weights)
        wins = here > best
        torch.maximum(best, here, out=best)
        # Numbers rise: the latest that wins is the largest, and faster found than by a mask.
        torch.maximum(index, wins.to(torch.int16).mul_(number), out=index)
    return index


def between(values: Tensor, weights: Sequence[Tensor | None]) -> Tensor:
    """Interpolate one class `(i, j, k)` by each axis' weights."""
    along_i, along_j, along_k = weights
    if along_k is not None:
        values = values @ along_k.T
    if along_j is not None:
        values = along_j @ values
    if along_i is not None:
        values = (along_i @ values.flatten(1)).view(-1, *values.shape[1:])
    return values
