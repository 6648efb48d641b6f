# SPDX-License-Identifier: Apache-2.0
"""The slices beside a slice as further channels of a network with two axes (2.5D).

A thin volume is learned slice by slice; what lies above and below tells a structure's end from its
middle at nearly no cost, since only the first layer sees more. Beyond the first and last slice
stand these themselves.
"""

from __future__ import annotations

import numpy as np

from vesalius.types import Array, Json

BESIDE = 1  # slices on each side
_FEWEST = 3  # slices of the median image, from which there are neighbors to speak of


def plan_neighbors(found: Json, *, color: bool) -> int:
    """Return how many slices on each side a network sees beside its own; 0 for single images.

    Args:
        found: of `fingerprint`.
        color: whether the channels are colors.
    """
    if found["spatial_dims"] != 2 or color or found["median_shape"][2] < _FEWEST:
        return 0
    return BESIDE


def neighbors(decisions: Json) -> int:
    """Return how many slices on each side a plan's network sees beside its own."""
    count: int = decisions.get("neighbors", 0)
    return count


def image_channels(decisions: Json) -> int:
    """Return the channels of a plan's images: the network's, without its neighbors'."""
    count: int = decisions["network"]["in_channels"] // (1 + 2 * neighbors(decisions))
    return count


def with_neighbors(image: Array, place: int, count: int) -> Array:
    """Return `(C * (1 + 2 count), i, j, 1)`: each channel's slices from below to above.

    Args:
        image: `(C, i, j, k)`.
        place: of the slice along k.
        count: slices on each side.
    """
    beside = np.clip(np.arange(place - count, place + count + 1), 0, image.shape[3] - 1)
    slices = np.moveaxis(image[..., beside], 3, 1)  # (C, 1 + 2 count, i, j)
    return slices.reshape(-1, *slices.shape[2:], 1)
