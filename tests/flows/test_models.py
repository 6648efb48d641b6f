# SPDX-License-Identifier: Apache-2.0
"""The list of networks says what they cost, as the papers do."""

from __future__ import annotations

from vesalius.flows.models import models
from vesalius.networks import NETWORKS


def test_every_network_is_listed_with_its_cost() -> None:
    rows = {row["name"]: row for row in models(side=224)}
    assert tuple(rows) == tuple(NETWORKS)
    assert rows["vgg16"]["multiply_adds"] > 15e9  # one channel less than the paper's 15.5 G
    assert rows["resnet18"]["multiply_adds"] < rows["resnet50"]["multiply_adds"]
    pretrained = [name for name, row in rows.items() if row["pretrained"]]
    assert pretrained == ["efficientnet_lite0", "light-unet"]
    small = {row["name"]: row for row in models(side=28, volume=True)}
    assert small["resnet18"]["stem"] == "small"
    assert small["resnet18"]["parameters"] > rows["resnet18"]["parameters"]
    assert not small["light-unet"]["pretrained"]


def test_networks_that_segment_are_counted_at_a_size_that_they_take() -> None:
    rows = {row["name"]: row for row in models(side=28) if row["task"] == "segment"}
    assert tuple(rows) == ("unet", "fcn", "resenc-unet", "light-unet")
    assert {row["side"] for row in rows.values()} == {32}
    assert rows["fcn"]["stem"] == rows["light-unet"]["stem"] == "small"
    large = {row["name"]: row for row in models(side=256)}
    assert large["unet"]["side"] == 256
    # Of the convolutions alone, as classifiers have them too; the scores are next to nothing.
    convolutions = large["vgg16"]["multiply_adds"] - 4096 * (25088 + 4096 + 2)
    assert 0 < large["fcn"]["multiply_adds"] - convolutions < 1e7
