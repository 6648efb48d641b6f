# SPDX-License-Identifier: Apache-2.0
"""Folding normalization into convolutions changes no answer, and leaves no normalization behind."""

from __future__ import annotations

import pytest
import torch

from vesalius.networks import build
from vesalius.networks.fusion import fused


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18", "cnn"])
def test_answers_stay_and_normalization_goes(name: str) -> None:
    torch.manual_seed(0)
    network = build(name, spatial_dims=2, in_channels=1, out_channels=3, stem="small", width=8)
    for module in network.modules():  # as after training
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 2)
    network.eval()
    x = torch.randn(2, 1, 24, 24)
    copied = fused(network)
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in network.modules())  # not in place
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in copied.modules())
    with torch.inference_mode():
        expected = network.encode(x)
        found = copied.encode(x)
    assert float(expected.abs().max()) > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
