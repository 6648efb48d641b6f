# SPDX-License-Identifier: Apache-2.0
"""Channels innermost change no answer and no gradient, and networks that cannot be so stay."""

from __future__ import annotations

import copy

import pytest
import torch

from vesalius.networks import SEGMENTATION_NETWORKS, build
from vesalius.networks.memory_format import channels_innermost, innermost, ready_to_answer


@pytest.mark.parametrize("name", ["resnet10", "efficientnet_lite0"])
def test_training_is_the_same(name: str) -> None:
    torch.manual_seed(0)
    plain = build(name, spatial_dims=2, in_channels=1, out_channels=2, stem="small", width=16)
    near = copy.deepcopy(plain)
    assert channels_innermost(near)
    x = torch.randn(4, 1, 12, 12)
    for network, given in ((plain, x), (near, x.to(memory_format=torch.channels_last))):
        network(given).square().mean().backward()
    for (key, one), two in zip(plain.named_parameters(), near.parameters(), strict=True):
        assert one.grad is not None, key
        torch.testing.assert_close(one.grad, two.grad, rtol=2e-2, atol=1e-4)


def test_what_pytorch_cannot_train_stays_as_it_is() -> None:
    narrow = build("resnet10", spatial_dims=2, in_channels=1, out_channels=2, width=4)
    assert not channels_innermost(narrow)
    assert all(p.is_contiguous() for p in narrow.parameters())
    assert not channels_innermost(build("cnn", spatial_dims=3, in_channels=1, out_channels=2))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", SEGMENTATION_NETWORKS)
def test_a_network_that_is_ready_answers_as_before(name: str, dims: int) -> None:
    torch.manual_seed(0)
    plain = build(name, spatial_dims=dims, in_channels=2, out_channels=3).eval()
    x = torch.randn(3, 2, *[32] * dims)
    with torch.inference_mode():
        expected = plain(x)
        near = ready_to_answer(copy.deepcopy(plain), half=False)
        torch.testing.assert_close(near(innermost(x)), expected, rtol=1e-3, atol=1e-4)
        assert any(p.ndim > 3 and not p.is_contiguous() for p in near.parameters())
        with torch.autocast("cpu", torch.bfloat16):
            autocast = near(innermost(x)).float()
            half = ready_to_answer(copy.deepcopy(near), half=True)(innermost(x)).float()
        # Where a kernel is deeper than the map, autocast computes in 32 bits.
        if dims == 2 or name in ("unet", "resenc-unet"):
            assert torch.equal(half, autocast)
        assert (half - autocast).abs().mean() < 0.01 * expected.std()
