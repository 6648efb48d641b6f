# SPDX-License-Identifier: Apache-2.0
"""The residual-encoder U-Net against nnU-Net's published count and its block written out."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from vesalius.errors import UsageError
from vesalius.networks import build
from vesalius.networks.residual_unet import ResidualBlock

NNUNET = (32, 64, 128, 256, 320, 320)


@pytest.mark.parametrize(
    ("name", "published"),  # documentation/primus.md of nnU-Net: nnU-Net and its ResEnc-L preset
    [("unet", 31.2e6), ("resenc-unet", 102.4e6)],
)
def test_parameters_are_those_of_the_published_networks(name: str, published: float) -> None:
    with torch.device("meta"):
        network = build(
            name, spatial_dims=3, in_channels=1, out_channels=16, widths=NNUNET,
            deep_supervision=True,
        )  # fmt: skip
    # theirs have biases before normalization, which do nothing, and one more head: far below this
    found = sum(parameter.numel() for parameter in network.parameters())
    assert found == pytest.approx(published, abs=0.06e6)


@pytest.mark.parametrize(
    ("inputs", "kernel", "stride"),
    [(6, (3, 3, 3), (1, 1, 1)), (4, (3, 3, 1), (2, 2, 1)), (6, (3, 3, 3), (2, 2, 2))],
)
def test_a_block_is_that_of_resnet_d(inputs, kernel, stride) -> None:
    torch.manual_seed(0)
    block = ResidualBlock(3, inputs, 6, kernel, stride)
    norms = [m for m in block.modules() if isinstance(m, nn.InstanceNorm3d)]
    for norm in norms:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    weights = [m.weight for m in block.modules() if isinstance(m, nn.Conv3d)]
    pads = [size // 2 for size in kernel]
    x = torch.randn(2, inputs, 8, 8, 4)

    def normed(y: torch.Tensor, norm: nn.Module) -> torch.Tensor:
        mean = y.mean((2, 3, 4), keepdim=True)
        spread = (y.var((2, 3, 4), unbiased=False, keepdim=True) + 1e-5).sqrt()
        return (y - mean) / spread * norm.weight[:, None, None, None] + norm.bias[
            :, None, None, None
        ]

    y = normed(functional.conv3d(x, weights[0], stride=stride, padding=pads), norms[0])
    y = torch.where(y > 0, y, 0.01 * y)
    y = normed(functional.conv3d(y, weights[1], padding=pads), norms[1])
    past = x
    if stride != (1, 1, 1):
        past = functional.avg_pool3d(past, stride, stride)
    if inputs != 6:
        past = normed(functional.conv3d(past, weights[2]), norms[2])
    y = y + past
    torch.testing.assert_close(block(x), torch.where(y > 0, y, 0.01 * y), rtol=1e-4, atol=1e-5)
    assert len(weights) == (3 if inputs != 6 else 2)


def test_before_training_the_encoder_is_its_shortcuts() -> None:
    torch.manual_seed(0)
    network = build("resenc-unet", spatial_dims=2, in_channels=1, out_channels=2, widths=(4, 8))
    x = torch.randn(1, 1, 16, 16)
    maps = network.stem(x)
    torch.testing.assert_close(network.down[0](maps), functional.leaky_relu(maps, 0.01))
    assert [len(level) for level in network.down] == [1, 3]


def test_blocks_per_level_are_those_of_the_presets_unless_given() -> None:
    with torch.device("meta"):
        network = build(
            "resenc-unet", spatial_dims=2, in_channels=1, out_channels=2, widths=[4] * 7
        )
        few = build(
            "resenc-unet", spatial_dims=2, in_channels=1, out_channels=2, widths=(4, 4),
            blocks=(2, 1),
        )  # fmt: skip
    assert [len(level) for level in network.down] == [1, 3, 4, 6, 6, 6, 6]
    assert [len(level) for level in few.down] == [2, 1]
    for blocks in ((1,), (1, 0)):
        with pytest.raises(UsageError, match="blocks need a number of 1 or more for each level"):
            build(
                "resenc-unet", spatial_dims=2, in_channels=1, out_channels=2, widths=(4, 4),
                blocks=blocks,
            )  # fmt: skip


def test_anisotropic_levels_are_taken() -> None:
    network = build(
        "resenc-unet",
        spatial_dims=3,
        in_channels=1,
        out_channels=2,
        widths=(4, 6, 8),
        strides=[[1, 1, 1], [2, 2, 1], [2, 2, 2]],
        kernels=[[3, 3, 1], [3, 3, 1], [3, 3, 3]],
    )
    assert network.multiple == (4, 4, 2)
    assert network(torch.randn(1, 1, 16, 12, 6)).shape == (1, 2, 16, 12, 6)
    with pytest.raises(UsageError, match="pad the image to 16 x 12 x 6"):
        network(torch.randn(1, 1, 16, 12, 5))
