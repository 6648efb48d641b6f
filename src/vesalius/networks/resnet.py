# SPDX-License-Identifier: Apache-2.0
"""Residual networks for images and volumes.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, CVPR 2016 (projection
shortcuts, "option B"); each branch ends in a normalization that starts at zero gain, as in
Goyal et al. 2017 (arXiv 1706.02677). The small stem (3x3, stride 1, no pooling) is the paper's own
for 32-pixel images; the medium one (3x3, stride 2, no pooling) lies between.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn

from vesalius.networks.layers import BatchNorm, Conv, Dropped, MaxPool, Stem

_STEMS = {"small": (3, 1), "medium": (3, 2), "large": (7, 2)}  # kernel, stride


class BasicBlock(nn.Module):
    """Two 3-wide convolutions and a shortcut."""

    expansion = 1

    def __init__(self, dims: int, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            Conv[dims](inputs, width, 3, stride, 1, bias=False),
            BatchNorm[dims](width),
            nn.ReLU(inplace=True),
            Conv[dims](width, width, 3, 1, 1, bias=False),
            BatchNorm[dims](width),
        )
        self.shortcut = _shortcut(dims, inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(N, inputs, ...)` to `(N, width, ... / stride)`."""
        return torch.relu(self.branch(x) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1-, 3- and 1-wide convolutions (the stride on the middle one) and a shortcut."""

    expansion = 4

    def __init__(self, dims: int, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            Conv[dims](inputs, width, 1, bias=False),
            BatchNorm[dims](width),
            nn.ReLU(inplace=True),
            Conv[dims](width, width, 3, stride, 1, bias=False),
            BatchNorm[dims](width),
            nn.ReLU(inplace=True),
            Conv[dims](width, width * 4, 1, bias=False),
            BatchNorm[dims](width * 4),
        )
        self.shortcut = _shortcut(dims, inputs, width * 4, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(N, inputs, ...)` to `(N, 4 * width, ... / stride)`."""
        return torch.relu(self.branch(x) + self.shortcut(x))


class ResNet(nn.Module):
    """Residual network over `(N, in_channels, ...)` with 2 or 3 spatial axes.

    `features` is the number of channels that `encode` returns per image.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: Sequence[int],
        *,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        stem: Stem = "large",
        width: int = 64,
    ) -> None:
        super().__init__()
        dims = spatial_dims
        size, stride = _STEMS[stem]
        layers: list[nn.Module] = [
            Conv[dims](in_channels, width, size, stride, size // 2, bias=False)
        ]
        layers += [BatchNorm[dims](width), nn.ReLU(inplace=True)]
        if stem == "large":
            layers.append(MaxPool[dims](3, 2, 1))
        self.stem = nn.Sequential(*layers)
        fall = stride * (2 if stem == "large" else 1)
        self.pyramid_strides = tuple(fall * 2**level for level in range(len(depths)))
        self.pyramid_widths = tuple(
            width * 2**level * block.expansion for level in range(len(depths))
        )
        self._ends = list(accumulate(depths))
        channels = width
        stages: list[nn.Module] = []
        for level, depth in enumerate(depths):
            wide = width * 2**level
            for index in range(depth):
                stages.append(block(dims, channels, wide, 2 if level and not index else 1))
                channels = wide * block.expansion
        self.stages = nn.Sequential(*stages)
        self.features = channels
        self.head: nn.Module = nn.Linear(channels, out_channels) if out_channels else Dropped()
        _initialize(self)

    def maps(self, x: Tensor) -> Tensor:
        """Return the last maps: `(N, in_channels, ...)` -> `(N, features, ...)`."""
        maps: Tensor = self.stages(self.stem(x))
        return maps

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """Return the last maps of each resolution, finest first (see `Encoder`)."""
        found: list[Tensor] = []
        x = self.stem(x)
        for number, block in enumerate(self.stages, 1):
            x = block(x)
            if number in self._ends:
                found.append(x)
        return found

    def encode(self, x: Tensor) -> Tensor:
        """Return one embedding per image: `(N, in_channels, ...)` -> `(N, features)`."""
        return self.maps(x).flatten(2).mean(2)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits: `(N, in_channels, ...)` -> `(N, out_channels)`."""
        logits: Tensor = self.head(self.encode(x))
        return logits


def resnet10(
    *, spatial_dims: int, in_channels: int, out_channels: int, stem: Stem = "large", width: int = 64
) -> ResNet:
    """Build the network with one basic block a stage: for tiny volumes and tests."""
    return ResNet(
        BasicBlock,
        (1, 1, 1, 1),
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        out_channels=out_channels,
        stem=stem,
        width=width,
    )


def resnet18(
    *, spatial_dims: int, in_channels: int, out_channels: int, stem: Stem = "large", width: int = 64
) -> ResNet:
    """Build the 18-layer network: 11,689,512 parameters for 2D, 3 channels, 1000 classes."""
    return ResNet(
        BasicBlock,
        (2, 2, 2, 2),
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        out_channels=out_channels,
        stem=stem,
        width=width,
    )


def resnet34(
    *, spatial_dims: int, in_channels: int, out_channels: int, stem: Stem = "large", width: int = 64
) -> ResNet:
    """Build the 34-layer network: 21,797,672 parameters for 2D, 3 channels, 1000 classes."""
    return ResNet(
        BasicBlock,
        (3, 4, 6, 3),
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        out_channels=out_channels,
        stem=stem,
        width=width,
    )


def resnet50(
    *, spatial_dims: int, in_channels: int, out_channels: int, stem: Stem = "large", width: int = 64
) -> ResNet:
    """Build the 50-layer network: 25,557,032 parameters for 2D, 3 channels, 1000 classes."""
    return ResNet(
        Bottleneck,
        (3, 4, 6, 3),
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        out_channels=out_channels,
        stem=stem,
        width=width,
    )


def _shortcut(dims: int, inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(
        Conv[dims](inputs, outputs, 1, stride, bias=False), BatchNorm[dims](outputs)
    )


def _initialize(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(module, BasicBlock | Bottleneck):
            last = module.branch[-1]
            assert isinstance(last.weight, Tensor)  # noqa: S101 - tells the type checker
            nn.init.zeros_(last.weight)
