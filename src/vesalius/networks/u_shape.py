# SPDX-License-Identifier: Apache-2.0
"""What U-Nets have in common, whatever their encoder: levels, and the expanding path.

Instance normalization, leaky ReLU and transposed convolutions as in Isensee et al.: nnU-Net,
Nature Methods 2021.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from vesalius.errors import UsageError
from vesalius.networks.layers import Conv, ConvTranspose, InstanceNorm

SLOPE = 0.01  # of the leaky ReLU

Sizes = Sequence[Sequence[int]]  # one entry a level, of one number an axis


def whole_levels(
    dims: int, widths: Sequence[int], strides: Sizes | None, kernels: Sizes | None
) -> tuple[Sizes, Sizes]:
    """Return strides and kernels: those given, or steps of 2 and kernels of 3 along every axis.

    Raises:
        UsageError: they do not fit each other or the number of axes.
    """
    levels = len(widths)
    strides = strides or [[1 if level == 0 else 2] * dims for level in range(levels)]
    kernels = kernels or [[3] * dims] * levels
    if not levels == len(strides) == len(kernels):
        raise UsageError(
            "widths, strides and kernels need one entry a level, got "
            f"{levels}, {len(strides)} and {len(kernels)}"
        )
    if any(len(item) != dims for item in (*strides, *kernels)):
        raise UsageError(f"strides and kernels need {dims} numbers a level")
    if any(size % 2 == 0 for kernel in kernels for size in kernel):
        raise UsageError(f"kernels must be odd, got {kernels}")
    if any(step != 1 for step in strides[0]):
        raise UsageError(f"the first level keeps the input's grid (stride 1), got {strides[0]}")
    return strides, kernels


def convolution(
    dims: int, inputs: int, width: int, kernel: Sequence[int], stride: Sequence[int]
) -> list[nn.Module]:
    """Return a convolution that keeps the grid but for its stride, and its normalization."""
    padding = tuple(size // 2 for size in kernel)
    return [
        Conv[dims](inputs, width, tuple(kernel), tuple(stride), padding, bias=False),
        InstanceNorm[dims](width, affine=True),
    ]


def convolutions(
    dims: int, inputs: int, width: int, kernel: Sequence[int], stride: Sequence[int], count: int
) -> nn.Sequential:
    """Return `count` convolutions with normalization and leaky ReLU, the stride on the first."""
    layers: list[nn.Module] = []
    for index in range(count):
        step = [1] * dims if index else stride
        layers += convolution(dims, width if index else inputs, width, kernel, step)
        layers.append(nn.LeakyReLU(SLOPE, inplace=True))
    return nn.Sequential(*layers)


def expanding_path(
    dims: int, widths: Sequence[int], strides: Sizes, kernels: Sizes, count: int
) -> tuple[nn.ModuleList, nn.ModuleList]:
    """Return what rises to each level but the coarsest, coarsest first, and what merges there.

    Args:
        dims: 2 or 3.
        widths: channels of each level, finest first.
        strides: step onto each level from the one above.
        kernels: of each level.
        count: convolutions that merge.
    """
    rise, up = nn.ModuleList(), nn.ModuleList()
    for level in range(len(widths) - 2, -1, -1):
        step = tuple(strides[level + 1])
        width = widths[level]
        rise.append(ConvTranspose[dims](widths[level + 1], width, step, step))
        up.append(convolutions(dims, 2 * width, width, kernels[level], [1] * dims, count))
    return rise, up


def contract(x: Tensor, down: Iterable[nn.Module]) -> list[Tensor]:
    """Return the maps of each level, finest first."""
    found: list[Tensor] = []
    for block in down:
        x = block(x)
        found.append(x)
    return found


def expand(skips: Sequence[Tensor], rise: nn.ModuleList, up: nn.ModuleList) -> list[Tensor]:
    """Return the merged maps of each level but the coarsest, finest first; of one level, its own.

    Args:
        skips: of `contract`.
        rise: of `expanding_path`.
        up: of `expanding_path`.
    """
    *finer, x = skips
    found = [] if finer else [x]
    for to_level, merge, skip in zip(rise, up, reversed(finer), strict=True):
        x = merge(torch.cat([to_level(x), skip], dim=1))
        found.insert(0, x)
    return found


def initialize_leaky(network: nn.Module) -> None:
    """Draw weights by He et al. 2015 for leaky ReLU, biases zero."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
            nn.init.kaiming_normal_(module.weight, a=SLOPE)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
