# SPDX-License-Identifier: Apache-2.0
"""Losses: weighted cross-entropy for cases, Dice plus cross-entropy for voxels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def class_weights(counts: Sequence[int], *, power: float = 0.5) -> list[float]:
    """Return one weight per class, `count ** -power`, scaled to mean 1 over the cases."""
    raw = [max(1, count) ** -power for count in counts]
    mean = sum(w * n for w, n in zip(raw, counts, strict=True)) / max(1, sum(counts))
    return [w / mean for w in raw]


def cross_entropy(
    logits: Tensor, truth: Tensor, weights: Tensor | None = None, *, smoothing: float = 0.0
) -> Tensor:
    """Return the mean weighted cross-entropy of `(N, classes)` logits and `(N,)` indices.

    Each case's loss is multiplied by its class's weight; the sum is divided by N, so that a batch
    does not change its scale with the classes that it happens to hold.
    """
    losses = functional.cross_entropy(
        logits.float(), truth, weights, reduction="none", label_smoothing=smoothing
    )
    return losses.mean()


def dice_cross_entropy(logits: Tensor, truth: Tensor) -> Tensor:
    """Return soft Dice loss plus cross-entropy.

    Args:
        logits: `(N, labels, ...)`, background first.
        truth: `(N, ...)` label indices.

    The Dice of each structure is taken over the whole batch (Milletari et al.: V-Net, 3DV 2016),
    so that patches without the structure do not dominate.
    """
    logits = logits.float()
    entropy = functional.cross_entropy(logits, truth)
    probability = torch.softmax(logits, dim=1)[:, 1:]
    hot = functional.one_hot(truth, logits.shape[1]).movedim(-1, 1)[:, 1:].to(probability.dtype)
    axes = (0, *range(2, logits.ndim))
    shared = (probability * hot).sum(axes)
    total = probability.sum(axes) + hot.sum(axes)
    dice = (2 * shared + 1) / (total + 1)
    return entropy + 1 - dice.mean()
