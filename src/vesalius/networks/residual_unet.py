# SPDX-License-Identifier: Apache-2.0
"""U-Net with a residual encoder and a light decoder, for images and volumes.

Isensee et al.: nnU-Net Revisited, MICCAI 2024 (arXiv 2404.09556), the "ResEnc" presets, as in
github.com/MIC-DKFZ/dynamic-network-architectures: more residual blocks the coarser the level, one
convolution a level on the way up. Shortcuts average before they project, as in ResNet-D (He et
al.: Bag of Tricks for Image Classification, CVPR 2019).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from vesalius.errors import UsageError
from vesalius.networks.deep_supervision import all_logits, coarser_heads
from vesalius.networks.layers import AvgPool, Conv
from vesalius.networks.segmentation_network import check_size
from vesalius.networks.u_shape import (
    SLOPE,
    Sizes,
    contract,
    convolution,
    convolutions,
    expand,
    expanding_path,
    initialize_leaky,
    whole_levels,
)

_BLOCKS = (1, 3, 4, 6)  # of each level, finest first; the last number for all that follow


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut; the branch starts at zero gain."""

    def __init__(
        self, dims: int, inputs: int, width: int, kernel: Sequence[int], stride: Sequence[int]
    ) -> None:
        super().__init__()
        one = [1] * dims
        self.branch = nn.Sequential(
            *convolutions(dims, inputs, width, kernel, stride, 1),
            *convolution(dims, width, width, kernel, one),
        )
        shortcut: list[nn.Module] = []
        if any(step != 1 for step in stride):
            shortcut.append(AvgPool[dims](tuple(stride), tuple(stride)))
        if inputs != width:
            shortcut += convolution(dims, inputs, width, one, one)
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(N, inputs, ...)` to `(N, width, ... / stride)`."""
        return functional.leaky_relu(self.branch(x) + self.shortcut(x), SLOPE)


class ResidualUNet(nn.Module):
    """Residual encoder and plain decoder with skips; logits on the input's own grid.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels.
        out_channels: labels, background included.
        widths: channels of each level, finest first.
        strides: step onto each level from the one above, one number an axis; the first is all 1.
        kernels: kernel of each level, one odd number an axis.
        blocks: residual blocks of each level; by default 1, 3, 4, 6, 6, ...
        deep_supervision: in training mode, return the logits of all levels but the two coarsest.

    The input's size along an axis must be a multiple of the product of its strides (`multiple`),
    and leave more than one voxel at the coarsest level.
    """

    def __init__(
        self,
        *,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int] = (16, 32, 64, 128),
        strides: Sizes | None = None,
        kernels: Sizes | None = None,
        blocks: Sequence[int] | None = None,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        dims = spatial_dims
        strides, kernels = whole_levels(dims, widths, strides, kernels)
        self.multiple = tuple(math.prod(steps) for steps in zip(*strides, strict=True))
        blocks = blocks or [_BLOCKS[min(n, len(_BLOCKS) - 1)] for n in range(len(widths))]
        if len(blocks) != len(widths) or min(blocks) < 1:
            raise UsageError(f"blocks need a number of 1 or more for each level, got {blocks}")
        self.stem = convolutions(dims, in_channels, widths[0], kernels[0], [1] * dims, 1)
        self.down = nn.ModuleList()
        inputs = widths[0]
        for width, kernel, stride, count in zip(widths, kernels, strides, blocks, strict=True):
            level: list[nn.Module] = []
            for index in range(count):
                step = [1] * dims if index else stride
                level.append(ResidualBlock(dims, inputs, width, kernel, step))
                inputs = width
            self.down.append(nn.Sequential(*level))
        self.rise, self.up = expanding_path(dims, widths, strides, kernels, 1)
        self.head = Conv[dims](widths[0], out_channels, 1)
        self.deep_supervision = deep_supervision
        if deep_supervision:
            self.heads = coarser_heads(dims, widths, out_channels)
        initialize_leaky(self)
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                nn.init.zeros_(module.branch[-1].weight)  # type: ignore[arg-type]  # of a norm

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Return logits: `(N, in_channels, ...)` -> `(N, out_channels, ...)`."""
        check_size(x, self.multiple, fewest=2)
        maps = expand(contract(self.stem(x), self.down), self.rise, self.up)
        if self.training and self.deep_supervision:
            return all_logits(maps, self.head, self.heads)
        logits: Tensor = self.head(maps[0])
        return logits
