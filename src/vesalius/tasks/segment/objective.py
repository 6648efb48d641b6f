# SPDX-License-Identifier: Apache-2.0
"""What a training step makes smaller, of structures that are apart or overlap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from vesalius.tasks.segment.structures import IGNORED, Structures
from vesalius.training.loss import (
    deep_supervision_loss,
    dice_binary_cross_entropy,
    dice_cross_entropy,
)


def objective(outputs: Tensor | Sequence[Tensor], codes: Tensor, structures: Structures) -> Tensor:
    """Return the loss of a batch.

    Args:
        outputs: logits `(N, answers, ...)`, or those of several levels, finest first.
        codes: `(N, ...)`, see `structures`.
        structures: of the plan.
    """
    loss: Callable[[Tensor, Tensor], Tensor] = dice_cross_entropy
    if structures.regions:
        loss = dice_binary_cross_entropy
    elif structures.ignored:
        loss = partial(dice_cross_entropy, ignored=IGNORED)
    if isinstance(outputs, Tensor):
        return loss(outputs, codes)
    return deep_supervision_loss(loss, outputs, codes)


def described(structures: Structures) -> str:
    """Return the loss in words, for the plan."""
    if structures.regions:
        return "soft Dice over the batch plus binary cross-entropy, each structure alone"
    return "soft Dice over the batch plus cross-entropy"
