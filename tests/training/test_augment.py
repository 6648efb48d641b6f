# SPDX-License-Identifier: Apache-2.0
"""What is only mirrored or stays is copied, not sampled, and comes out as if it had been."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from vesalius.training.augment import Augmentation, _matrices, _moved


def sampled(images: torch.Tensor, matrices: np.ndarray, mode: str) -> torch.Tensor:
    """The plain way: every item through PyTorch's sampler."""
    grid = functional.affine_grid(
        torch.as_tensor(matrices, dtype=torch.float32), list(images.shape), align_corners=False
    )
    return functional.grid_sample(
        images, grid, mode=mode, padding_mode="border", align_corners=False
    )


@pytest.mark.parametrize("shape", [(12, 2, 15, 12), (10, 1, 8, 9, 7)])
def test_a_batch_of_items_that_move_and_do_not(shape: tuple[int, ...]) -> None:
    axes = len(shape) - 2
    settings = Augmentation(flips=tuple(range(axes)), planes=((0, 1),))
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    y = (4 * x[:, 0]).long()
    for seed in range(4):
        matrices = _matrices(len(x), x.shape[2:], settings, np.random.default_rng(seed), None)
        images, labels = _moved(x, y, matrices)
        torch.testing.assert_close(images, sampled(x, matrices, "bilinear"), atol=1e-4, rtol=0)
        plain = sampled(y[:, None].float(), matrices, "nearest")[:, 0].long()
        assert (labels == plain).float().mean() > 0.999
        assert labels.dtype == y.dtype
        copied = [
            any(torch.equal(one, other.flip(some)) for some in flips(axes))
            for one, other in zip(images, x, strict=True)
        ]
        assert 0 < sum(copied) < len(x)
        for item in np.flatnonzero(copied):
            assert torch.equal(labels[item], (4 * images[item, 0]).long())
    assert torch.equal(x, torch.rand(shape, generator=torch.Generator().manual_seed(0)))


def flips(axes: int) -> list[list[int]]:
    return [[-1 - n for n in range(axes) if code >> n & 1] for code in range(2**axes)]
