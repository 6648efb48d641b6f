# SPDX-License-Identifier: Apache-2.0
"""A batch as a poorer scanner would have taken it: blurred, or on a coarser grid.

Both are linear along each axis, so each is one small matrix an axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from vesalius.types import Array

_REACH = 3  # standard deviations of the Gaussian


def blur(
    images: Tensor, most: float, axes: Sequence[int], chance: float, rng: np.random.Generator
) -> Tensor:
    """Return images `(N, C, ...)`, some of them blurred by a Gaussian.

    Args:
        images: on any scale.
        most: largest standard deviation in voxels; the smallest is half of it.
        axes: spatial axes to blur along, 0 the first.
        chance: for each image to be blurred.
        rng: the step's generator.
    """
    sigmas = rng.uniform(most / 2, most, len(images))
    return _applied(images, sigmas, axes, rng.random(len(images)) < chance, gaussian)


def coarsen(
    images: Tensor, most: float, axes: Sequence[int], chance: float, rng: np.random.Generator
) -> Tensor:
    """Return images `(N, C, ...)`, some of them as if they had been taken in larger voxels.

    Args:
        images: on any scale.
        most: largest factor on the voxel's edges, at least 1.
        axes: spatial axes along which the voxels grow, 0 the first.
        chance: for each image to be taken through a coarser grid.
        rng: the step's generator.
    """
    factors = 1 / rng.uniform(1 / most, 1, len(images))
    return _applied(images, factors, axes, rng.random(len(images)) < chance, coarser)


def gaussian(length: int, sigma: float) -> Array:
    """Return the `(length, length)` matrix that blurs a line; its ends go on beyond it."""
    reach = int(np.ceil(_REACH * sigma))
    steps = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (steps / sigma) ** 2)
    out = np.zeros((length, length))
    places = np.arange(length)
    for step, weight in zip(steps, weights / weights.sum(), strict=True):
        np.add.at(out, (places, np.clip(places + step, 0, length - 1)), weight)
    return out


def coarser(length: int, factor: float) -> Array:
    """Return the `(length, length)` matrix that takes a line to larger voxels and back.

    There by the nearest voxel, back by linear interpolation between centers.
    """
    count = max(1, round(length / factor))
    nearest = ((np.arange(count) + 0.5) * length / count).astype(int)
    centers = np.clip((np.arange(length) + 0.5) * count / length - 0.5, 0, count - 1)
    below = np.minimum(centers.astype(int), max(0, count - 2))
    part = centers - below
    out = np.zeros((length, length))
    places = np.arange(length)
    np.add.at(out, (places, nearest[below]), 1 - part)
    np.add.at(out, (places, nearest[np.minimum(below + 1, count - 1)]), part)
    return out


def _applied(
    images: Tensor,
    amounts: Array,
    axes: Sequence[int],
    chosen: Array,
    matrix_of: Callable[[int, float], Array],
) -> Tensor:
    """Return the batch with the chosen images multiplied by their matrices along the axes."""
    out = images.clone() if chosen.any() else images
    for place in np.flatnonzero(chosen):
        item = images[place]
        for axis in axes:
            matrix = matrix_of(item.shape[1 + axis], float(amounts[place]))
            held = torch.as_tensor(matrix, dtype=item.dtype, device=item.device)
            item = (item.movedim(1 + axis, -1) @ held.T).movedim(-1, 1 + axis)
        out[place] = item
    return out
