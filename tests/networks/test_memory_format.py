# SPDX-License-Identifier: Apache-2.0
"""Channels innermost change no answer and no gradient, and networks that cannot be so stay."""

from __future__ import annotations

import copy

import pytest
import torch

from vesalius.networks import build
from vesalius.networks.memory_format import channels_innermost


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
