# SPDX-License-Identifier: Apache-2.0
"""Losses of structures that overlap, and of voxels that are to be ignored."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from vesalius.training.loss import (
    deep_supervision_loss,
    dice_binary_cross_entropy,
    dice_cross_entropy,
)

IGNORED = 255


def case(seed: int, shape: tuple[int, ...] = (2, 3, 5, 4)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(shape, generator=generator)
    return logits, torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)


def gradient(loss, logits: torch.Tensor, truth: torch.Tensor) -> tuple[float, torch.Tensor]:
    leaf = logits.clone().requires_grad_()
    value = loss(leaf, truth)
    value.backward()
    return float(value.detach()), leaf.grad


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), share=st.floats(0, 1), regions=st.booleans())
def test_ignored_voxels_change_neither_loss_nor_gradient(seed, share, regions) -> None:
    logits, truth = case(seed)
    out = torch.rand(truth.shape, generator=torch.Generator().manual_seed(seed + 1)) < share
    if regions:
        codes = torch.where(out, 1, 2 * truth)
        loss = dice_binary_cross_entropy
    else:
        codes = torch.where(out, IGNORED, truth)

        def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return dice_cross_entropy(x, y, ignored=IGNORED)

    value, slope = gradient(loss, logits, codes)
    assert np.isfinite(value)
    other = torch.where(out[:, None], torch.randn_like(logits) * 9, logits)
    again, slope_again = gradient(loss, other, codes)
    assert again == pytest.approx(value, rel=1e-5)
    torch.testing.assert_close(slope_again, slope)
    assert (slope.movedim(1, -1)[out] == 0).all()


def test_without_ignored_voxels_it_is_the_plain_loss() -> None:
    logits, truth = case(0)
    torch.testing.assert_close(
        dice_cross_entropy(logits, truth, ignored=IGNORED), dice_cross_entropy(logits, truth)
    )


def test_a_batch_that_is_all_ignored_says_nothing() -> None:
    logits, truth = case(0)
    _, slope = gradient(dice_binary_cross_entropy, logits, torch.ones_like(truth))
    assert (slope == 0).all()
    _, slope = gradient(
        lambda x, y: dice_cross_entropy(x, y, ignored=IGNORED),
        logits,
        torch.full_like(truth, IGNORED),
    )
    assert (slope == 0).all()


def test_each_structure_is_judged_alone() -> None:
    logits, _ = case(3)
    member = torch.rand(2, 3, 5, 4, generator=torch.Generator().manual_seed(1)) < 0.4
    codes = (member * torch.tensor([2, 4, 8]).view(1, 3, 1, 1)).sum(1)
    p = torch.sigmoid(logits)
    dice = [(2 * (p[:, n] * member[:, n]).sum() + 1) / (p[:, n].sum() + member[:, n].sum() + 1)
            for n in range(3)]  # fmt: skip
    by_hand = functional.binary_cross_entropy(p, member.float()) + 1 - sum(dice) / 3
    torch.testing.assert_close(dice_binary_cross_entropy(logits, codes), by_hand)


def test_coarser_levels_are_judged_by_the_same_codes() -> None:
    codes = torch.zeros(1, 8, 8, dtype=torch.int64)
    codes[:, :4] = 0b110  # both structures
    right = torch.where(codes[:, None] > 0, 20.0, -20.0).expand(1, 2, 8, 8)
    coarse = right[..., ::2, ::2]
    assert float(deep_supervision_loss(dice_binary_cross_entropy, [right, coarse], codes)) < 0.02
    wrong = deep_supervision_loss(dice_binary_cross_entropy, [right, -coarse], codes)
    assert float(wrong) > 5
