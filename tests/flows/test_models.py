# SPDX-License-Identifier: Apache-2.0
"""The list of networks says what they cost, as the papers do."""

from __future__ import annotations

from vesalius.flows.models import models
from vesalius.networks import IMAGE_NETWORKS


def test_every_network_is_listed_with_its_cost() -> None:
    rows = {row["name"]: row for row in models(side=224)}
    assert tuple(rows) == IMAGE_NETWORKS
    assert rows["vgg16"]["multiply_adds"] > 15e9  # one channel less than the paper's 15.5 G
    assert rows["resnet18"]["multiply_adds"] < rows["resnet50"]["multiply_adds"]
    assert [name for name, row in rows.items() if row["pretrained"]] == ["efficientnet_lite0"]
    small = {row["name"]: row for row in models(side=28, volume=True)}
    assert small["resnet18"]["stem"] == "small"
    assert small["resnet18"]["parameters"] > rows["resnet18"]["parameters"]
