# SPDX-License-Identifier: Apache-2.0
"""Names of published tensors: known translations, and nothing else is touched."""

from __future__ import annotations

import pytest

from vesalius.networks import IMAGE_NETWORKS, build
from vesalius.networks.published_names import own_names


def test_names_of_residual_blocks() -> None:
    published = {
        "conv1.weight": "stem.0.weight",
        "bn1.running_mean": "stem.1.running_mean",
        "layer1.0.conv1.weight": "stages.0.branch.0.weight",
        "layer1.0.bn2.bias": "stages.0.branch.4.bias",
        "layer1.1.conv2.weight": "stages.1.branch.3.weight",
        "layer2.0.conv3.weight": "stages.2.branch.6.weight",
        "layer2.0.bn3.weight": "stages.2.branch.7.weight",
        "layer2.0.downsample.1.running_var": "stages.2.shortcut.1.running_var",
        "fc.bias": "head.bias",
    }
    assert own_names("resnet50", published) == published


def test_names_of_plain_networks() -> None:
    published = {
        "features.10.weight": "convolutions.10.weight",
        "classifier.4.bias": "hidden.4.bias",
        "classifier.6.bias": "head.bias",
    }
    assert own_names("alexnet", published) == published


@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_own_names_stay(name: str) -> None:
    network = build(name, spatial_dims=2, in_channels=1, out_channels=2, width=8)
    names = list(network.state_dict())
    assert own_names(name, names) == {key: key for key in names}
