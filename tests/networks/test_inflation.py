# SPDX-License-Identifier: Apache-2.0
"""Inflated weights against the law of Carreira and Zisserman: a constant axis changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vesalius.errors import RunError, UsageError
from vesalius.networks import IMAGE_NETWORKS, build
from vesalius.networks.inflation import inflate

COMMON = {"in_channels": 2, "out_channels": 3, "stem": "small", "width": 8}


def pair(name: str, how: str) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    flat = build(name, spatial_dims=2, **COMMON).double()
    for module in flat.modules():  # normalizations that do something, zero-gain ones too
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    deep = build(name, spatial_dims=3, **COMMON).double()
    deep.load_state_dict(inflate(flat.state_dict(), deep, how=how))
    return flat.eval(), deep.eval()


def wrap_around(network: nn.Module) -> None:
    """Give all convolutions periodic borders: then a constant axis has no end."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            module.padding_mode = "circular"


@pytest.mark.parametrize("name", ["cnn", "alexnet", "vgg11", "resnet18", "resnet50"])
def test_repeated_kernels_see_a_constant_axis_as_the_image(name: str) -> None:
    flat, deep = pair(name, "repeat")
    wrap_around(flat)
    wrap_around(deep)
    x = torch.randn(2, 2, 16, 16, dtype=torch.float64)
    volume = x[..., None].expand(*x.shape, 16)
    torch.testing.assert_close(deep.encode(volume), flat.encode(x))
    torch.testing.assert_close(deep(volume), flat(x))


@pytest.mark.parametrize("name", ["cnn", "alexnet", "vgg11", "resnet18", "resnet50"])
def test_centered_kernels_need_no_wrapping(name: str) -> None:
    flat, deep = pair(name, "center")
    x = torch.randn(2, 2, 16, 13, dtype=torch.float64)
    volume = x[..., None].expand(*x.shape, 11)
    torch.testing.assert_close(deep(volume), flat(x))


def test_centered_kernels_filter_slice_by_slice() -> None:
    flat, deep = nn.Conv2d(2, 3, 3, padding=1), nn.Conv3d(2, 3, 3, padding=1)
    deep.load_state_dict(inflate(flat.state_dict(), deep, how="center"))
    x = torch.randn(1, 2, 6, 5, 4)
    slices = torch.stack([flat(x[..., k]) for k in range(4)], dim=-1)
    torch.testing.assert_close(deep(x), slices)


def test_repeated_kernels_average_the_slices_of_their_window() -> None:
    flat, deep = nn.Conv2d(2, 3, 3), nn.Conv3d(2, 3, 3)
    deep.load_state_dict(inflate(flat.state_dict(), deep))
    x = torch.randn(1, 2, 6, 5, 3)
    torch.testing.assert_close(deep(x)[..., 0], flat(x.mean(-1)))


@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_every_image_network_can_be_inflated(name: str) -> None:
    torch.manual_seed(0)
    flat = build(name, spatial_dims=2, **COMMON)
    deep = build(name, spatial_dims=3, **COMMON)
    state = inflate(flat.state_dict(), deep)
    sums = {key: value.double().sum() for key, value in flat.state_dict().items()}
    for key, value in state.items():
        torch.testing.assert_close(value.double().sum(), sums[key], rtol=1e-4, atol=1e-4)
    deep.load_state_dict(state)


def test_what_is_inflated_shares_no_memory() -> None:
    flat, deep = nn.Conv2d(1, 1, 1), nn.Conv3d(1, 1, 1)
    bias = flat.bias.detach().clone()
    inflate(flat.state_dict(), deep)["bias"].add_(1)
    torch.testing.assert_close(flat.bias.detach(), bias)


def test_another_architecture_is_refused_by_name() -> None:
    deep = build("resnet10", spatial_dims=3, **COMMON)
    flat = build("resnet18", spatial_dims=2, **COMMON).state_dict()
    with pytest.raises(RunError, match=r"only one of them has stages\.1\.shortcut\.0\.weight"):
        inflate(flat, deep)
    flat = build("resnet10", spatial_dims=2, **{**COMMON, "width": 4}).state_dict()
    with pytest.raises(RunError, match=r"'stem\.0\.weight' of shape .* cannot be inflated"):
        inflate(flat, deep)
    with pytest.raises(UsageError, match="how must be 'repeat' or 'center', got 'mean'"):
        inflate(flat, deep, how="mean")
