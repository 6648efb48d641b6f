# SPDX-License-Identifier: Apache-2.0
"""The network of `auto`: pretrained where pictures are wide enough for its weights, on a CPU."""

from __future__ import annotations

import pytest
import torch

from vesalius.tasks.segment import plan as planning
from vesalius.tasks.segment.plan import decide

FOUND = {
    "spatial_dims": 2, "channels": 1, "modalities": {"MR": 9}, "labels": {"1": "a"},
    "overlaps": [], "shares": {"1": 0.1}, "median_shape": [256, 256, 1],
    "median_spacing": [1.0, 1.0, 1.0], "fine_spacing": [1.0, 1.0, 1.0],
}  # fmt: skip


def plan(model: str = "auto", **found):
    return decide(FOUND | found, model=model, budget={"steps": 1})


@pytest.mark.parametrize("channels", [1, 3])
def test_wide_pictures_begin_with_pretrained_weights(channels: int) -> None:
    decisions = plan(channels=channels)
    assert decisions["network"]["name"] == "light-unet"
    assert decisions["network"]["weights"] == "imagenet"
    assert decisions["network"]["options"]["stem"] == "large"
    assert decisions["patch"] == [256, 256]  # seen whole, at its own spacing
    assert decisions["spacing"] == [1.0, 1.0]


def test_thin_volumes_have_three_slices_as_channels() -> None:
    decisions = plan(median_shape=[256, 256, 8], median_spacing=[1.0, 1.0, 9.0])
    assert decisions["neighbors"] == 1
    assert decisions["network"]["in_channels"] == 3
    assert decisions["network"]["weights"] == "imagenet"


@pytest.mark.parametrize(
    "found",
    [
        {"median_shape": [120, 120, 1]},  # the coarsest maps would be four pixels wide
        {"median_shape": [400, 90, 1]},
        {"channels": 2},
        {"spatial_dims": 3, "median_shape": [96, 96, 64]},
    ],
)
def test_all_else_is_a_unet(found: dict) -> None:
    decisions = plan(**found)
    assert decisions["network"]["name"] == "unet"
    assert decisions["network"]["weights"] == "random"


def test_a_gpu_has_time_for_a_unet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(planning, "best_precision", lambda: "32-true")
    assert plan()["network"]["name"] == "unet"


def test_what_is_asked_for_is_taken() -> None:
    assert plan("unet")["network"]["name"] == "unet"
    assert plan("unet")["spacing"][0] > 1.2  # a heavier network sees a coarser picture
