# SPDX-License-Identifier: Apache-2.0
"""U-Net: the sizes that it takes, levels of its own, and deep supervision by its levels."""

from __future__ import annotations

import pytest
import torch

from vesalius.errors import UsageError
from vesalius.networks import build


def unet(dims: int, **options) -> torch.nn.Module:
    torch.manual_seed(0)
    return build("unet", spatial_dims=dims, in_channels=1, out_channels=2, **options)


def test_the_multiple_is_the_product_of_the_strides() -> None:
    network = unet(
        3,
        widths=(2, 2, 2),
        strides=[[1, 1, 1], [2, 3, 1], [2, 2, 1]],
    )
    assert network.multiple == (4, 6, 1)
    assert network(torch.randn(1, 1, 4, 12, 3)).shape == (1, 2, 4, 12, 3)
    with pytest.raises(UsageError, match=r"multiples of 4 x 6 x 1 .*pad the image to 8 x 12 x 3"):
        network(torch.randn(1, 1, 5, 12, 3))


def test_the_names_of_the_weights_are_those_of_earlier_runs() -> None:
    names = set(unet(2, widths=(2, 3)).state_dict())
    pair = {"0.weight", "1.weight", "1.bias", "3.weight", "4.weight", "4.bias"}
    assert names == {
        *(f"down.{level}.{name}" for level in (0, 1) for name in pair),
        *(f"up.0.{name}" for name in pair),
        *("rise.0.weight", "rise.0.bias", "head.weight", "head.bias"),
    }


@pytest.mark.parametrize(("levels", "answers"), [(1, 1), (2, 1), (3, 1), (4, 2), (6, 4)])
def test_deep_supervision_leaves_out_the_two_coarsest_levels(levels: int, answers: int) -> None:
    network = unet(2, widths=(2,) * levels, deep_supervision=True).train()
    outputs = network(torch.randn(1, 1, 64, 32))
    assert [tuple(logits.shape[2:]) for logits in outputs] == [
        (64 >> level, 32 >> level) for level in range(answers)
    ]


def test_each_levels_logits_come_from_its_own_maps() -> None:
    network = unet(2, widths=(2, 3, 4, 5, 6), deep_supervision=True).train()
    seen: list[torch.Tensor] = []
    for merge in network.up:
        merge.register_forward_hook(lambda _m, _x, out: seen.append(out))
    outputs = network(torch.randn(1, 1, 32, 32))
    wanted = [network.head(seen[-1]), network.heads[0](seen[-2]), network.heads[1](seen[-3])]
    assert len(outputs) == 3
    for found, expected in zip(outputs, wanted, strict=True):
        torch.testing.assert_close(found, expected)
