# SPDX-License-Identifier: Apache-2.0
"""U-Net for images and volumes, with strides and kernels per axis for anisotropic voxels.

Ronneberger, Fischer, Brox: U-Net, MICCAI 2015; Cicek et al.: 3D U-Net, MICCAI 2016; instance
normalization, leaky ReLU and strided convolutions as in Isensee et al.: nnU-Net, Nature Methods
2021.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vesalius.errors import UsageError
from vesalius.networks.layers import Conv, ConvTranspose, InstanceNorm

SLOPE = 0.01  # of the leaky ReLU


class UNet(nn.Module):
    """Encoder and decoder with skips; logits on the input's own grid.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels.
        out_channels: labels, background included.
        widths: channels of each level, finest first.
        strides: step onto each level from the one above, one number an axis; the first is all 1.
        kernels: kernel of each level, one odd number an axis.

    The input's size along an axis must be a multiple of the product of its strides, and leave
    more than one voxel at the coarsest level.
    """

    def __init__(
        self,
        *,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int] = (16, 32, 64, 128),
        strides: Sequence[Sequence[int]] | None = None,
        kernels: Sequence[Sequence[int]] | None = None,
    ) -> None:
        super().__init__()
        levels = len(widths)
        strides = strides or [[1 if level == 0 else 2] * spatial_dims for level in range(levels)]
        kernels = kernels or [[3] * spatial_dims] * levels
        _validate(spatial_dims, widths, strides, kernels)
        self.down = nn.ModuleList()
        for level, width in enumerate(widths):
            inputs = widths[level - 1] if level else in_channels
            self.down.append(_pair(spatial_dims, inputs, width, kernels[level], strides[level]))
        self.rise = nn.ModuleList()
        self.up = nn.ModuleList()
        one = [1] * spatial_dims
        for level in range(levels - 2, -1, -1):
            step = tuple(strides[level + 1])
            width = widths[level]
            self.rise.append(ConvTranspose[spatial_dims](widths[level + 1], width, step, step))
            self.up.append(_pair(spatial_dims, 2 * width, width, kernels[level], one))
        self.head = Conv[spatial_dims](widths[0], out_channels, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
                nn.init.kaiming_normal_(module.weight, a=SLOPE)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits: `(N, in_channels, ...)` -> `(N, out_channels, ...)`."""
        skips: list[Tensor] = []
        for block in self.down:
            x = block(x)
            skips.append(x)
        skips.pop()
        for rise, block in zip(self.rise, self.up, strict=True):
            x = block(torch.cat([rise(x), skips.pop()], dim=1))
        logits: Tensor = self.head(x)
        return logits


def _pair(
    dims: int, inputs: int, width: int, kernel: Sequence[int], stride: Sequence[int]
) -> nn.Sequential:
    padding = tuple(size // 2 for size in kernel)
    layers: list[nn.Module] = []
    for index in range(2):
        layers += [
            Conv[dims](
                width if index else inputs,
                width,
                tuple(kernel),
                1 if index else tuple(stride),
                padding,
                bias=False,
            ),
            InstanceNorm[dims](width, affine=True),
            nn.LeakyReLU(SLOPE, inplace=True),
        ]
    return nn.Sequential(*layers)


def _validate(
    dims: int,
    widths: Sequence[int],
    strides: Sequence[Sequence[int]],
    kernels: Sequence[Sequence[int]],
) -> None:
    if not len(widths) == len(strides) == len(kernels):
        raise UsageError(
            "widths, strides and kernels need one entry a level, got "
            f"{len(widths)}, {len(strides)} and {len(kernels)}"
        )
    if any(len(item) != dims for item in (*strides, *kernels)):
        raise UsageError(f"strides and kernels need {dims} numbers a level")
    if any(size % 2 == 0 for kernel in kernels for size in kernel):
        raise UsageError(f"kernels must be odd, got {kernels}")
    if any(step != 1 for step in strides[0]):
        raise UsageError(f"the first level keeps the input's grid (stride 1), got {strides[0]}")
