# SPDX-License-Identifier: Apache-2.0
"""Costs against published multiply-adds and against sums by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vesalius.networks import build
from vesalius.networks.acs import to_acs
from vesalius.networks.cost import Cost, network_cost


@pytest.mark.parametrize(
    ("name", "published"),  # as torchvision lists them for 224 x 224, in 1e9 multiply-adds
    [("alexnet", 0.71), ("vgg11", 7.61), ("vgg16", 15.47), ("resnet18", 1.81), ("resnet50", 4.09)],
)
def test_multiply_adds_are_the_published_ones(name: str, published: float) -> None:
    with torch.device("meta"):
        network = build(name, spatial_dims=2, in_channels=3, out_channels=1000)
    assert round(network_cost(network, (3, 224, 224)).multiply_adds / 1e9, 2) == published


def test_a_network_summed_by_hand() -> None:
    network = nn.Sequential(
        nn.Conv3d(2, 4, 3, padding=1, groups=2),  # 4 * 1 * 27 for each of 5 * 6 * 7 voxels
        nn.BatchNorm3d(4),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )
    parameters = 4 * 27 + 4 + 8 + 12 + 3
    buffers = 4 + 4  # means and variances; one int64 counts the batches
    assert network_cost(network, (2, 5, 6, 7)) == Cost(
        parameters=parameters,
        multiply_adds=4 * 27 * 5 * 6 * 7 + 12,
        bytes=4 * (parameters + buffers) + 8,
    )


def test_the_network_is_left_as_it_was() -> None:
    network = build("cnn", spatial_dims=2, in_channels=1, out_channels=2, width=8).train()
    network.convolutions[1].eval()  # a frozen normalization
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network_cost(network, (1, 32, 32))
    assert network.training
    assert not network.convolutions[1].training
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_flat_convolutions_over_a_volume_cost_as_many_as_they_have_weights() -> None:
    flat = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1, bias=False))
    assert network_cost(to_acs(flat), (2, 4, 5, 6)).multiply_adds == 2 * 6 * 9 * 4 * 5 * 6


def test_a_large_volume_is_counted_without_being_computed() -> None:
    network = build("resnet10", spatial_dims=3, in_channels=1, out_channels=2, stem="small")
    cost = network_cost(network, (1, 512, 512, 512))  # 32 GiB a layer, were it computed
    assert cost.multiply_adds > 1e13
    assert "M parameters" in str(cost)
