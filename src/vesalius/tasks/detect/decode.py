# SPDX-License-Identifier: Apache-2.0
"""From the network's maps to boxes: peaks of the heat maps, then soft non-maximum suppression.

Zhou et al. 2019 (peaks of a 3 x 3 neighborhood); Bodla, Singh, Chellappa, Davis: Soft-NMS, ICCV
2017 (the Gaussian form: a box loses score with its overlap with a better one, and is not dropped).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vesalius.metrics.detection import overlaps
from vesalius.tasks.detect.boxes import Boxes
from vesalius.types import Array

FLOOR = 0.03  # scores below are no candidates
MOST = 1000  # candidates of one class in one image


def peaks(heat: Tensor, size: Tensor, offset: Tensor, stride: int) -> Boxes:
    """Return the peaks of one image as boxes in pixels of the network's input, best first.

    Args:
        heat: `(classes, i, j)` probabilities.
        size: `(2, i, j)` logarithm of the extent in cells.
        offset: `(2, i, j)` from a cell's middle to the object's center, in cells.
        stride: pixels along the edge of a cell.
    """
    top = functional.max_pool2d(heat[None], 3, 1, 1)[0]
    place = torch.nonzero((heat == top) & (heat >= FLOOR))  # (n, 3): class, i, j
    scores = heat[tuple(place.T)]
    order = torch.argsort(scores, descending=True, stable=True)
    place, scores = place[order], scores[order]
    i, j = place[:, 1], place[:, 2]
    center = place[:, 1:] + 0.5 + offset[:, i, j].T
    half = torch.exp(size[:, i, j].T.clamp(max=10)) / 2
    corners = torch.cat([center - half, center + half], dim=1) * stride
    found = Boxes(
        corners.double().cpu().numpy(), place[:, 0].cpu().numpy(), scores.double().cpu().numpy()
    )
    kept = [np.flatnonzero(found.labels == label)[:MOST] for label in np.unique(found.labels)]
    return found.chosen(np.sort(np.concatenate(kept))) if kept else found


def suppress(found: Boxes, *, sigma: float) -> Boxes:
    """Return the boxes with scores lowered where a better one of their class overlaps, best first.

    A score is multiplied by `exp(-overlap ** 2 / sigma)` for each better box, overlap being
    intersection over union; boxes that fall below the floor are dropped.
    """
    scores = found.scores.copy()
    for label in np.unique(found.labels):
        members = np.flatnonzero(found.labels == label)
        scores[members] = _soften(found.corners[members], scores[members], sigma)
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= FLOOR]
    return Boxes(found.corners[order], found.labels[order], scores[order])


def _soften(corners: Array, scores: Array, sigma: float) -> Array:
    shared = overlaps(corners, corners)
    scores, left = scores.copy(), np.ones(len(scores), bool)
    for _ in range(len(scores)):
        best = int(np.argmax(np.where(left, scores, -1.0)))
        left[best] = False
        scores[left] *= np.exp(-(shared[best, left] ** 2) / sigma)
    return scores


def within(found: Boxes, shape: tuple[int, int]) -> Boxes:
    """Return the boxes cut at the borders of an image of `shape` pixels along i and j."""
    limit = np.array([*shape, *shape])
    cut = Boxes(found.corners.clip(0, limit), found.labels, found.scores)
    sides = cut.corners[:, 2:] - cut.corners[:, :2]
    return cut.chosen(np.asarray((sides > 0).all(axis=1)))
