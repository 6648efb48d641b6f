# SPDX-License-Identifier: Apache-2.0
"""Logits at several levels of a decoder while it learns.

Lee et al.: Deeply-Supervised Nets, AISTATS 2015; in the manner of Isensee et al.: nnU-Net, Nature
Methods 2021: at every level but the two coarsest. `training.loss.deep_supervision_loss` weighs
them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from vesalius.networks.layers import Conv


def coarser_heads(dims: int, widths: Sequence[int], out_channels: int) -> nn.ModuleList:
    """Return one convolution of kernel 1 for each level between the finest and the two coarsest.

    Args:
        dims: 2 or 3.
        widths: channels of each level, finest first, the coarsest (the bottleneck) included.
        out_channels: labels, background included.
    """
    return nn.ModuleList(Conv[dims](width, out_channels, 1) for width in widths[1:-2])


def all_logits(maps: Sequence[Tensor], head: nn.Module, heads: Iterable[nn.Module]) -> list[Tensor]:
    """Return the logits of a decoder's maps, finest first: of `head`, then of `coarser_heads`."""
    return [head(maps[0]), *(coarser(x) for coarser, x in zip(heads, maps[1:], strict=False))]
