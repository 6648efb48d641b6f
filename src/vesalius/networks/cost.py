# SPDX-License-Identifier: Apache-2.0
"""What one image costs a network: parameters, multiply-adds and bytes of weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Cost:
    """The cost of one input: what papers print as parameters and FLOPs (multiply-adds)."""

    parameters: int
    multiply_adds: int  # of convolutions and matrix products; what is done voxel by voxel is free
    bytes: int  # parameters and buffers, as they are held in memory

    def __str__(self) -> str:
        return (
            f"{self.parameters / 1e6:.2f} M parameters, "
            f"{self.multiply_adds / 1e9:.3g} G multiply-adds per image, "
            f"{self.bytes / 2**20:.1f} MiB of weights"
        )


def network_cost(network: nn.Module, shape: Sequence[int]) -> Cost:
    """Return the cost of `network` in evaluation mode for one input of `shape` `(C, ...)`.

    Shapes are followed through the network without computing on values, so that large volumes
    cost neither memory nor time. The network is left as it was, each layer's mode included.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            torch.func.functional_call(
                network,
                {name: tensor.to("meta") for name, tensor in tensors.items()},
                (torch.empty(1, *shape, device="meta"),),
            )
    finally:
        for module, mode in modes.items():
            module.training = mode
    return Cost(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        multiply_adds=counter.get_total_flops() // 2,  # it counts a multiply-add as two
        bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()),
    )
