# SPDX-License-Identifier: Apache-2.0
"""What the network is to answer for given boxes, and the loss between both.

Heat maps and their focal loss: Law, Deng: CornerNet, ECCV 2018, as used by Zhou et al. 2019; size
and offset are learned around each center, weighted by its bump (Liu et al.: Training-Time-Friendly
Network, AAAI 2020), which needs far fewer steps than the center's cell alone. The density is held
to the number of centers in the whole window, its quarters and sixteenths (in the spirit of the
MESA distance of Lempitsky & Zisserman 2010), by absolute error, whose best answer is the median.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vesalius.networks.center import Answer
from vesalius.tasks.detect.boxes import Boxes
from vesalius.types import Array

SPREAD = 0.1  # of an object's extent: standard deviation of its bump
LEAST_SPREAD = 0.7  # cells
SIZE_WEIGHT = 0.5
COUNT_WEIGHT = 0.1
PARTS = (1, 2, 4)  # parts of a window along each axis in which objects are counted
NEAR = 0.1  # of a bump's height: below it, size and offset are not learned


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """Targets of a batch on the network's coarse grid.

    Attributes:
        heat: `(N, classes, i, j)`, 1 at each center, a Gaussian around it.
        shape: `(N, 4, i, j)`: logarithm of the extent along i and j, offset along i and j, of the
            object whose bump is highest there.
        weight: `(N, 1, i, j)`: that bump's height.
        centers: `(N, classes, i, j)` objects whose center lies in the cell.
        known: `(N, classes, 1, 1)`: 0 where an image says nothing of a class.
    """

    heat: Tensor
    shape: Tensor
    weight: Tensor
    centers: Tensor
    known: Tensor


def make_targets(
    boxes: Sequence[Boxes], known: Array, shape: tuple[int, int], stride: int
) -> Targets:
    """Return the targets of a batch.

    Args:
        boxes: of each image, in pixels of the network's input.
        known: `(N, classes)` Boolean: whether the image was annotated for the class.
        shape: cells along i and j.
        stride: pixels along the edge of a cell.
    """
    count, classes = known.shape
    heat = np.zeros((count, classes, *shape), np.float32)
    geometry = np.zeros((count, 4, *shape), np.float32)
    weight = np.zeros((count, 1, *shape), np.float32)
    centers = np.zeros_like(heat)
    x, y = np.arange(shape[0]) + 0.5, np.arange(shape[1]) + 0.5
    for n, found in enumerate(boxes):
        for (x0, y0, x1, y1), label in zip(found.corners / stride, found.labels, strict=True):
            size = np.array([x1 - x0, y1 - y0])
            center = np.array([x0 + x1, y0 + y1]) / 2
            # The bump is 1 at the middle of the center's cell, so that every object has a cell.
            cell = np.floor(center).clip(0, np.array(shape) - 1).astype(int)
            middle = cell + 0.5
            centers[n, label, cell[0], cell[1]] += 1
            sigma = np.maximum(SPREAD * size, LEAST_SPREAD)
            bump = np.multiply.outer(
                np.exp(-0.5 * ((x - middle[0]) / sigma[0]) ** 2),
                np.exp(-0.5 * ((y - middle[1]) / sigma[1]) ** 2),
            ).astype(np.float32)
            np.maximum(heat[n, label], bump, out=heat[n, label])
            own = (bump > weight[n, 0]) & (bump > NEAR)
            weight[n, 0][own] = bump[own]
            geometry[n, :2, own] = np.log(np.maximum(size, 0.1))
            geometry[n, 2][own] = np.broadcast_to((center[0] - x)[:, None], shape)[own]
            geometry[n, 3][own] = np.broadcast_to((center[1] - y)[None], shape)[own]
    return Targets(
        torch.from_numpy(heat),
        torch.from_numpy(geometry),
        torch.from_numpy(weight),
        torch.from_numpy(centers),
        torch.from_numpy(known.astype(np.float32))[:, :, None, None],
    )


def detection_loss(maps: Tensor, targets: Targets) -> Tensor:
    """Return the focal loss of the heat maps, with the errors of shapes and of counts.

    Args:
        maps: `(N, 2 * classes + 4, i, j)` of `CenterNet`.
        targets: of the same cells.
    """
    answer = Answer.of(maps.float())
    where = maps.device
    heat, known = targets.heat.to(where), targets.known.to(where)
    center = (heat > 0.9999).float()
    present = torch.sigmoid(answer.heat)
    found = -functional.logsigmoid(answer.heat) * (1 - present) ** 2 * center
    absent = -functional.logsigmoid(-answer.heat) * present**2 * (1 - heat) ** 4 * (1 - center)
    focal = ((found + absent) * known).sum() / (center * known).sum().clamp(min=1)
    weight = targets.weight.to(where)
    geometry = torch.cat([answer.size, answer.offset], dim=1)
    away = functional.smooth_l1_loss(geometry, targets.shape.to(where), reduction="none", beta=0.1)
    shapes = (away * weight).sum() / weight.sum().clamp(min=1)
    counts = _count_error(functional.softplus(answer.density), targets.centers.to(where), known)
    return focal + SIZE_WEIGHT * shapes + COUNT_WEIGHT * counts


def _count_error(density: Tensor, centers: Tensor, known: Tensor) -> Tensor:
    """Return the absolute error of counts, summed over parts and classes, mean over images."""
    total = density.new_zeros(())
    for parts in PARTS:
        sides = [-(-side // parts) for side in density.shape[2:]]
        pads = [place for side, full in zip(sides, density.shape[2:], strict=True)
                for place in (side * parts - full, 0)][::-1]  # fmt: skip
        off = functional.pad((density - centers) * known, pads)
        sums = functional.avg_pool2d(off, sides, ceil_mode=False) * (sides[0] * sides[1])
        total = total + sums.abs().sum() / len(density)
    return total / len(PARTS)
