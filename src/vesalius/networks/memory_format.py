# SPDX-License-Identifier: Apache-2.0
"""Channels innermost in memory: faster on CPUs, where PyTorch can do it."""

from __future__ import annotations

import torch
from torch import nn

# PyTorch 2.13 crashes on CPUs without AVX-512 in the gradient of a strided convolution of kernel 1
# over fewer channels than a register holds.
_FEWEST = 8


def channels_innermost(network: nn.Module) -> bool:
    """Bring a 2D network's weights to channels-last; return whether its inputs should be, too.

    A network with a convolution that PyTorch cannot train so is left as it is.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv3d) or (
            isinstance(module, nn.Conv2d)
            and max(module.kernel_size) == 1 < max(module.stride)
            and module.in_channels < _FEWEST
        ):
            return False
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return True
