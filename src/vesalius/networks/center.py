# SPDX-License-Identifier: Apache-2.0
"""Center detector for images and volumes: heat maps of object centers, size, offset, density.

Zhou, Wang, Krähenbühl: Objects as Points, 2019 (CenterNet). The encoder is any of the registry
that ends in blocks of falling resolution; a top-down path (Lin et al.: Feature Pyramid Networks,
CVPR 2017) brings its levels back to the stride of the answer, beginning with the image's mean
features (Liu et al.: ParseNet, 2015), since how densely objects are marked depends on the whole
picture. The density adds up to the number of objects (Lempitsky, Zisserman, NIPS 2010).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from vesalius.errors import UsageError
from vesalius.networks.layers import BatchNorm, Conv
from vesalius.networks.pretrained import load_pretrained
from vesalius.networks.registry import build

PRIOR = 0.01  # probability that the untrained heat map states everywhere (Lin et al., ICCV 2017)
_SPARSE = -6.0  # untrained density: an object in four hundred cells
_ENCODERS = ("resnet10", "resnet18", "resnet34", "resnet50", "efficientnet_lite0")


class Answer(NamedTuple):
    """What the network says of each cell of its coarse grid.

    Attributes:
        heat: `(N, classes, ...)` logits: here is the center of an object of the class.
        density: `(N, classes, ...)` objects of the class in the cell, before `softplus`.
        size: `(N, axes, ...)` natural logarithm of the object's extent, in cells.
        offset: `(N, axes, ...)` from the middle of the cell to the object's center, in cells.
    """

    heat: Tensor
    density: Tensor
    size: Tensor
    offset: Tensor

    @classmethod
    def of(cls, maps: Tensor) -> Self:
        """Part the network's output `(N, 2 * classes + 2 * axes, ...)`."""
        axes = maps.ndim - 2
        classes = maps.shape[1] // 2 - axes
        heat, density, shape = (
            maps[:, :classes],
            maps[:, classes : 2 * classes],
            maps[:, -2 * axes :],
        )
        return cls(heat, density, shape[:, :axes], shape[:, axes:])


class CenterNet(nn.Module):
    """Encoder, top-down path and heads over `(N, in_channels, ...)` with 2 or 3 spatial axes.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels.
        out_channels: classes of objects.
        encoder: name of a residual network or EfficientNet-Lite of the registry.
        options: what the encoder takes.
        pretrained: start from the weights that came with a package (2D alone).
        scale: factor on the image, so that its values spread as the encoder knows them.
        width: channels of the top-down path.
        stride: pixels of the image along the edge of one cell of the answer, a power of 2.

    Raises:
        UsageError: an encoder without levels, or one that never has the stride.
    """

    def __init__(
        self,
        *,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        encoder: str = "efficientnet_lite0",
        options: Mapping[str, Any] | None = None,
        pretrained: bool = False,
        scale: float = 1.0,
        width: int = 64,
        stride: int = 4,
    ) -> None:
        super().__init__()
        if encoder not in _ENCODERS:
            raise UsageError(f"encoder must be one of {', '.join(_ENCODERS)}, got '{encoder}'")
        dims = spatial_dims
        network = build(
            encoder,
            spatial_dims=dims,
            in_channels=in_channels,
            out_channels=1,
            **dict(options or {}),
        )
        if pretrained:
            load_pretrained(network, encoder, in_channels=in_channels)
        self.scale = scale
        blocks = network.blocks if hasattr(network, "blocks") else network.stages
        self.stem: nn.Module = network.stem  # type: ignore[assignment]  # both encoders' layout
        self.blocks: nn.Sequential = blocks  # type: ignore[assignment]
        levels = _levels(self, dims, in_channels)
        used = [(step, channels) for step, channels in levels if step >= stride]
        if not used or used[0][0] != stride:
            raise UsageError(
                f"stride must be one of {', '.join(str(step) for step, _ in levels)} for the "
                f"encoder '{encoder}', got {stride}"
            )
        self.skipped = len(levels) - len(used)
        self.lateral = nn.ModuleList([_unit(dims, channels, width, 1) for _, channels in used])
        self.smooth = nn.ModuleList([_unit(dims, width, width, 3) for _ in used[:-1]])
        self.context = nn.Linear(width, width)
        self.heat = _head(dims, width, out_channels, math.log(PRIOR / (1 - PRIOR)))
        self.density = _head(dims, width, out_channels, _SPARSE)
        self.shape = _head(dims, width, 2 * dims, 0.0)

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """Return the encoder's maps, one a resolution, finest first."""
        x = self.stem(x * self.scale)
        levels: list[Tensor] = []
        for block in self.blocks:
            y = block(x)
            if y.shape[2:] != x.shape[2:]:
                levels.append(x)
            x = y
        return [*levels, x]

    def forward(self, x: Tensor) -> Tensor:
        """Return `(N, 2 * classes + 2 * axes, ...)` on the coarse grid; `Answer.of` parts it."""
        levels = [
            lateral(level)
            for lateral, level in zip(self.lateral, self.pyramid(x)[self.skipped :], strict=True)
        ]
        y = levels.pop()
        y = y + self.context(y.flatten(2).mean(2)).reshape(*y.shape[:2], *[1] * (y.ndim - 2))
        for smooth, level in zip(reversed(self.smooth), reversed(levels), strict=True):
            y = smooth(level + functional.interpolate(y, level.shape[2:], mode="nearest"))
        return torch.cat([self.heat(y), self.density(y), self.shape(y)], dim=1)


def _unit(dims: int, inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    conv = Conv[dims](inputs, outputs, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")  # type: ignore[arg-type]  # a Tensor
    return nn.Sequential(conv, BatchNorm[dims](outputs), nn.ReLU(inplace=True))


def _head(dims: int, width: int, outputs: int, bias: float) -> nn.Sequential:
    last = Conv[dims](width, outputs, 1)
    nn.init.constant_(last.bias, bias)  # type: ignore[arg-type]  # a Tensor
    return nn.Sequential(_unit(dims, width, width, 3), last)


def _levels(network: CenterNet, dims: int, channels: int) -> list[tuple[int, int]]:
    """Return `(stride, channels)` of each level, by trying them on a small image."""
    side = 64
    training = network.training
    with torch.no_grad():
        maps = network.eval().pyramid(torch.zeros(1, channels, *[side] * dims))
    network.train(training)
    return [(side // level.shape[2], level.shape[1]) for level in maps]
