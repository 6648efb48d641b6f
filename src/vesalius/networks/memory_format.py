# SPDX-License-Identifier: Apache-2.0
"""Channels innermost in memory: faster on CPUs, where PyTorch can do it."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

# PyTorch 2.13 crashes on CPUs without AVX-512 in the gradient of a strided convolution of kernel 1
# over fewer channels than a register holds.
_FEWEST = 8

_CONVERTED = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}  # axes -> format

Network = TypeVar("Network", bound=nn.Module)


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


def innermost(x: Tensor) -> Tensor:
    """Return `(N, C, i, j)` or `(N, C, i, j, k)` with channels innermost in memory."""
    return x.contiguous(memory_format=_FORMATS[x.ndim])


def ready_to_answer(network: Network, *, half: bool) -> Network:
    """Bring a network's weights to where a CPU takes them from, to answer `innermost` images.

    To train it so is another matter: with instance normalization it is slower, and see
    `channels_innermost`.

    Args:
        network: loses the precision of its weights in `half`.
        half: it is asked under bfloat16 autocast, which converts the weights of convolutions at
            each call; they are converted here, once.
    """
    for layer in network.modules():
        if half and isinstance(layer, _CONVERTED):
            layer.to(torch.bfloat16)
        for weight in layer.parameters(recurse=False):
            if weight.ndim in _FORMATS:
                weight.data = innermost(weight.data)
    return network
