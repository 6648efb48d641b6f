# SPDX-License-Identifier: Apache-2.0
"""A U-Net for CPUs, for images and volumes: EfficientNet-Lite0 down, separable convolutions up.

Ronneberger, Fischer, Brox: U-Net, MICCAI 2015, on the encoder of Tan, Le: EfficientNet, ICML 2019
(`efficientnet_lite`); the decoder's convolutions are depthwise and then pointwise (Howard et al.:
MobileNets, arXiv 1704.04861, 2017), and maps rise by linear interpolation. Batch normalization
and ReLU6 throughout, so that normalization folds into the convolutions and eight bits suffice.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vesalius.networks.deep_supervision import all_logits, coarser_heads
from vesalius.networks.efficientnet_lite import EfficientNetLite
from vesalius.networks.layers import BatchNorm, Conv, Stem, enlarge, initialize_by_fan_out
from vesalius.networks.segmentation_network import check_size

_MOST = 64  # channels of a level of the decoder, at most
_FINEST = 8  # channels of the level on the input's own grid, where the encoder has none


class LightUNet(nn.Module):
    """EfficientNet-Lite0 and a narrow decoder with skips; logits on the input's own grid.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels.
        out_channels: labels, background included.
        stem: of the encoder: its coarsest maps are at 1/32 with "large", 1/16 with "medium", 1/8
            with "small", whose wide layers work on the input's own grid: dear for large inputs.
        width: channels of the encoder's first layer, to which the others are in proportion.
        input_scale: factor on the input: `pretrained.INPUT_SCALE` where the weights of ImageNet
            are loaded into `encoder` (2D, stem "large", width 32).
        deep_supervision: in training mode, return the logits of all levels but the two coarsest.

    `encoder` is the very network that classifies, without its classifier: the state of a trained
    one loads into it, and `pretrained.load_pretrained` takes it. Where its finest maps are
    coarser than the input, the input itself is the finest skip. The input's size along an axis
    must be a multiple of the coarsest maps' stride (`multiple`).
    """

    def __init__(
        self,
        *,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        stem: Stem = "large",
        width: int = 32,
        input_scale: float = 1.0,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        dims = spatial_dims
        self.input_scale = input_scale
        self.encoder = EfficientNetLite(
            spatial_dims=dims, in_channels=in_channels, out_channels=0, stem=stem, width=width
        )
        self.multiple = (self.encoder.pyramid_strides[-1],) * dims
        *skips, coarsest = self.encoder.pyramid_widths
        widths = [min(_MOST, wide) for wide in skips]
        self.from_input = self.encoder.pyramid_strides[0] > 1
        if self.from_input:
            skips.insert(0, in_channels)
            widths.insert(0, _FINEST)
        self.narrow, self.merge = nn.ModuleList(), nn.ModuleList()
        below = coarsest
        for skip, wide in zip(reversed(skips), reversed(widths), strict=True):
            self.narrow.append(nn.Sequential(*_convolution(dims, below, wide, 1)))
            self.merge.append(_separable(dims, wide + skip, wide))
            below = wide
        self.head = Conv[dims](widths[0], out_channels, 1)
        self.deep_supervision = deep_supervision
        if deep_supervision:
            self.heads = coarser_heads(dims, [*widths, coarsest], out_channels)
        for part in (self.narrow, self.merge):
            initialize_by_fan_out(part)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Return logits: `(N, in_channels, ...)` -> `(N, out_channels, ...)`."""
        check_size(x, self.multiple, fewest=2 if self.training and len(x) == 1 else 1)
        maps = self._decode(x * self.input_scale)
        if self.training and self.deep_supervision:
            return all_logits(maps, self.head, self.heads)
        logits: Tensor = self.head(maps[0])
        return logits

    def _decode(self, x: Tensor) -> list[Tensor]:
        """Return the merged maps of each level but the coarsest, finest first."""
        *skips, below = self.encoder.pyramid(x)
        if self.from_input:
            skips.insert(0, x)
        found: list[Tensor] = []
        for narrow, merge, skip in zip(self.narrow, self.merge, reversed(skips), strict=True):
            below = merge(torch.cat([enlarge(narrow(below), 2), skip], dim=1))
            found.insert(0, below)
        return found


def _convolution(
    dims: int, inputs: int, outputs: int, kernel: int, groups: int = 1
) -> list[nn.Module]:
    return [
        Conv[dims](inputs, outputs, kernel, 1, kernel // 2, groups=groups, bias=False),
        BatchNorm[dims](outputs),
        nn.ReLU6(inplace=True),
    ]


def _separable(dims: int, inputs: int, outputs: int) -> nn.Sequential:
    """Filter each channel alone, then mix them."""
    return nn.Sequential(
        *_convolution(dims, inputs, inputs, 3, inputs), *_convolution(dims, inputs, outputs, 1)
    )
