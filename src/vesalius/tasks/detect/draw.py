# SPDX-License-Identifier: Apache-2.0
"""One training batch: windows of the prepared images, mirrored, scaled, shifted, with their boxes.

Rotations are left out: the box of a turned object is not the turned box.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vesalius.tasks.detect.boxes import Boxes
from vesalius.tasks.detect.images import Prepared
from vesalius.types import Array, Json

LEAST_SHOWN = 0.35  # of an object's area that must lie within the window


def draw(
    prepared: Prepared, keys: Sequence[str], decisions: Json, rng: np.random.Generator
) -> tuple[Tensor, list[Boxes]]:
    """Return `(N, C, i, j)` windows and the boxes in them, in the windows' pixels."""
    images, boxes = [], []
    for key in keys:
        image = prepared.image(key)
        moved, found = move(image, prepared.boxes[key], decisions, rng)
        images.append(moved)
        boxes.append(found)
    return torch.stack(images), boxes


def move(
    image: Array, boxes: Boxes, decisions: Json, rng: np.random.Generator
) -> tuple[Tensor, Boxes]:
    """Return a random window of one image `(C, i, j)` and the boxes that it shows.

    What lies outside the image is 0, the middle of the normalized scale.
    """
    asked = decisions["augmentation"]
    window, shape = np.array(decisions["window"]), np.array(image.shape[1:])
    zoom = np.exp(rng.uniform(-asked["scale"], asked["scale"]))
    stretch = np.exp(rng.uniform(-asked["stretch"], asked["stretch"]))
    factor = zoom * np.array([stretch**0.5, stretch**-0.5])  # window pixels per image pixel
    flips = (rng.random(2) < 0.5) & np.isin([0, 1], asked["flips"])
    turn = bool(rng.random() < 0.5) and asked["transpose"]
    # The window's middle lies where the window stays in the image, or near the image's middle.
    seen = (window[::-1] if turn else window) / factor
    slack = np.maximum(shape - seen, 0) / 2 + asked["shift"] * np.minimum(shape, seen)
    middle = shape / 2 + rng.uniform(-1, 1, 2) * slack
    if turn:
        image, shape, middle = image.transpose(0, 2, 1), shape[::-1], middle[::-1]
        boxes = Boxes(boxes.corners[:, [1, 0, 3, 2]], boxes.labels, boxes.scores)
        factor = factor[::-1]
    sign = np.where(flips, -1.0, 1.0)
    # window position -> image position, both in pixels from the outer corner
    step = sign / factor
    start = middle - step * window / 2
    return _sample(image, start, step, window), _moved(boxes, start, step, window)


def _sample(image: Array, start: Array, step: Array, window: Array) -> Tensor:
    shape = np.array(image.shape[1:])
    axes = []
    for axis in (0, 1):
        place = start[axis] + step[axis] * (np.arange(window[axis]) + 0.5)
        axes.append(torch.as_tensor(2 * place / shape[axis] - 1, dtype=torch.float32))
    across, along = torch.meshgrid(axes[0], axes[1], indexing="ij")
    grid = torch.stack([along, across], dim=-1)[None]  # the last spatial axis comes first
    tensor = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None]
    return functional.grid_sample(
        tensor, grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )[0]


def _moved(boxes: Boxes, start: Array, step: Array, window: Array) -> Boxes:
    corners = (boxes.corners.reshape(-1, 2, 2) - start) / step
    low, high = corners.min(axis=1), corners.max(axis=1)
    area = (high - low).prod(axis=1)
    low, high = low.clip(0, window), high.clip(0, window)
    shown = (high - low).prod(axis=1) / np.maximum(area, 1e-9) >= LEAST_SHOWN
    return Boxes(np.concatenate([low, high], axis=1), boxes.labels, boxes.scores).chosen(shown)
