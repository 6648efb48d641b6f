# SPDX-License-Identifier: Apache-2.0
"""Channels that are left out in training, so that a network answers where one is missing."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def drop_channels(
    images: Tensor, probability: float, rng: np.random.Generator, *, slices: int = 1
) -> Tensor:
    """Return the batch with channels at 0, each with a probability; never all of an image.

    Args:
        images: `(N, C, ...)`, normalized, so that 0 says nothing.
        probability: of a channel.
        rng: the step's generator.
        slices: neighboring `C` that are one channel, seen in several slices.

    Neverova et al.: ModDrop, IEEE TPAMI 38, 2016.
    """
    count, channels = len(images), images.shape[1] // slices
    kept = rng.random((count, channels)) >= probability
    spared = rng.integers(channels, size=count)
    rows = np.flatnonzero(~kept.any(axis=1))
    kept[rows, spared[rows]] = True
    held = torch.as_tensor(kept.repeat(slices, axis=1), dtype=images.dtype, device=images.device)
    return images * held.view(count, channels * slices, *[1] * (images.ndim - 2))
