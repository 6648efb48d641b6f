# SPDX-License-Identifier: Apache-2.0
"""Gradients of 3D convolutions in bfloat16, where the kernel is deeper than the map."""

from __future__ import annotations

import pytest
import torch

from vesalius.networks.layers import Conv


@pytest.mark.parametrize("shape", [(2, 2, 2), (2, 4, 3), (1, 4, 4), (4, 2, 2)])
@pytest.mark.parametrize("kernel", [3, 5])
def test_the_gradient_of_the_weights_is_that_of_32_bits(
    shape: tuple[int, int, int], kernel: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = Conv[3](8, 8, kernel, 1, kernel // 2)
    plain = torch.nn.Conv3d(8, 8, kernel, 1, kernel // 2)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(4, 8, *shape, generator=generator)
    weight = torch.randn(4, 8, *shape, generator=generator)
    for _ in range(3):
        dirt = torch.full((8 * 8 * kernel**3,), 3e30)  # what the memory held before
        del dirt
        layer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            answer = layer(x)
        (answer.float() * weight).sum().backward()
        plain.zero_grad()
        (plain(x) * weight).sum().backward()
        assert layer.weight.grad is not None
        assert plain.weight.grad is not None
        largest = plain.weight.grad.abs().max()
        torch.testing.assert_close(
            layer.weight.grad, plain.weight.grad, rtol=0.05, atol=0.05 * float(largest)
        )
