# SPDX-License-Identifier: Apache-2.0
"""U-Net for images and volumes, with strides and kernels per axis for anisotropic voxels.

Ronneberger, Fischer, Brox: U-Net, MICCAI 2015; Cicek et al.: 3D U-Net, MICCAI 2016; instance
normalization, leaky ReLU and strided convolutions as in Isensee et al.: nnU-Net, Nature Methods
2021.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from vesalius.networks.deep_supervision import all_logits, coarser_heads
from vesalius.networks.layers import Conv
from vesalius.networks.segmentation_network import check_size
from vesalius.networks.u_shape import (
    Sizes,
    contract,
    convolutions,
    expand,
    expanding_path,
    initialize_leaky,
    whole_levels,
)

_CONVOLUTIONS = 2  # of each level, on the way down and on the way up


class UNet(nn.Module):
    """Encoder and decoder with skips; logits on the input's own grid.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels.
        out_channels: labels, background included.
        widths: channels of each level, finest first.
        strides: step onto each level from the one above, one number an axis; the first is all 1.
        kernels: kernel of each level, one odd number an axis.
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
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        strides, kernels = whole_levels(spatial_dims, widths, strides, kernels)
        self.multiple = tuple(math.prod(steps) for steps in zip(*strides, strict=True))
        self.down = nn.ModuleList(
            convolutions(spatial_dims, inputs, width, kernel, stride, _CONVOLUTIONS)
            for inputs, width, kernel, stride in zip(
                (in_channels, *widths), widths, kernels, strides, strict=False
            )
        )
        self.rise, self.up = expanding_path(spatial_dims, widths, strides, kernels, _CONVOLUTIONS)
        self.head = Conv[spatial_dims](widths[0], out_channels, 1)
        self.deep_supervision = deep_supervision
        if deep_supervision:
            self.heads = coarser_heads(spatial_dims, widths, out_channels)
        initialize_leaky(self)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Return logits: `(N, in_channels, ...)` -> `(N, out_channels, ...)`."""
        check_size(x, self.multiple, fewest=2)
        maps = expand(contract(x, self.down), self.rise, self.up)
        if self.training and self.deep_supervision:
            return all_logits(maps, self.head, self.heads)
        logits: Tensor = self.head(maps[0])
        return logits
