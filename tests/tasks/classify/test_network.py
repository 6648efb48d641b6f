# SPDX-License-Identifier: Apache-2.0
"""A network's lessons: what is drawn of a case for one step, and what validation sees of it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vesalius.tasks.cases import Case
from vesalius.tasks.classify.batch import Image
from vesalius.tasks.classify.ensemble import losses
from vesalius.tasks.classify.model import SetClassifier, new_model
from vesalius.tasks.classify.network import Lesson, _step_loss, _validation, draw_images, logits_of
from vesalius.tasks.classify.store import Store

sys.path.insert(0, str(Path(__file__).parent))
from sets import TARGETS

SPEC = {
    "network": {
        "name": "resnet10", "spatial_dims": 2, "in_channels": 1,
        "options": {"stem": "small", "width": 4}, "weights": "random", "volumes": "",
    },
    "facts": {"modality": ["CT", "MR"], "plane": ["axial"], "scanner": []},
    "size": 8, "pooling": "mean", "dropout": 0.0, "mirror": False, "views": 4, "batch": 1,
    "augmentation": {"rotation": 5.0}, "label_smoothing": 0.0,
}  # fmt: skip
CPU = torch.device("cpu")


def several(count: int, *, views: int = 1, kinds: int = 1) -> list[Image]:
    """Return the images of one case; views of image `n` hold the value `n`."""
    return [
        Image(np.full((views, 1, 4, 4), n, np.float16), (1 + n % kinds, 1, 0)) for n in range(count)
    ]


@pytest.fixture
def lesson() -> Lesson:
    """24 cases of one image; the plan knows what each is."""
    rng = np.random.default_rng(0)
    keys = [f"{n:02}" for n in range(24)]
    store = Store(
        rng.normal(size=(24, 1, 8, 8)).astype(np.float16),
        {key: (n, 1) for n, key in enumerate(keys)},
        {},
        {key: (1 + n % 2, 1, 0) for n, key in enumerate(keys)},
    )
    cases = [
        Case(key, ({"key": key},), f"p{key}", ("no", "yes")[n // 2 % 2])
        for n, key in enumerate(keys)
    ]
    return Lesson(SPEC, store, cases[:16], cases[16:], TARGETS["binary"], None, 0)


def test_half_precision_reaches_the_layers_and_not_the_batch(lesson: Lesson) -> None:
    """Fabric casts the tensors of a collection: facts' weights and resizing need 32 bit."""
    from vesalius.training import device

    smaller = {**SPEC, "size": 6, "batch": 4}  # views are 8 wide: the network resizes them
    fabric = device.start("bf16-mixed")
    model = fabric.setup_module(new_model(smaller, TARGETS["binary"].outputs, 0))
    step_loss = _step_loss(replace(lesson, spec=smaller), CPU)
    loss = step_loss(model, 0)
    fabric.backward(loss)
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert all(p.grad is not None for p in model.module.encoder.parameters())


def told() -> SetClassifier:
    """Return a network whose facts matter."""
    model = new_model(SPEC, 2, 0)
    torch.manual_seed(0)
    for table in model.facts:
        torch.nn.init.normal_(table.weight)
        table.weight.data[0] = 0
    return model


def test_every_fifth_case_comes_without_its_facts() -> None:
    case = several(3, kinds=2)
    rng = np.random.default_rng(0)
    drawn = [draw_images(case, 8, rng) for _ in range(1000)]
    blank = [all(image.facts == (0, 0, 0) for image in images) for images in drawn]
    assert 150 < sum(blank) < 250  # 200, four standard deviations of 13
    known = {image.facts for images, none in zip(drawn, blank, strict=True) if not none
             for image in images}  # fmt: skip
    assert known == {(1, 1, 0), (2, 1, 0)}  # told of all of its images, or of none
    lengths = {len(images) for images, none in zip(drawn, blank, strict=True) if none}
    assert lengths == {1, 2, 3}  # whether a modality is lost as well
    assert [image.facts for image in case] == [(1, 1, 0), (2, 1, 0), (1, 1, 0)]  # not in place


def test_views_are_spread_over_the_images() -> None:
    rng = np.random.default_rng(0)
    for count, views, most, wanted in ((2, 9, 8, [4, 4]), (3, 2, 8, [2, 2, 2]), (1, 9, 4, [4])):
        drawn = draw_images(several(count, views=views), most, rng)
        assert [len(image.views) for image in drawn] == wanted
        assert [float(image.views.mean()) for image in drawn] == list(range(count))
    many = [draw_images(several(9), 4, rng) for _ in range(200)]
    assert {len(images) for images in many} == {4}
    assert {float(image.views.mean()) for images in many for image in images} == set(range(9))


def test_a_step_learns_nothing_of_facts_that_were_not_told(lesson: Lesson) -> None:
    model, step_loss = told().eval(), _step_loss(lesson, CPU)
    silent = 0
    for step in range(150):
        model.zero_grad()
        step_loss(model, step).backward()
        slopes = [model.facts[place].weight.grad.abs().sum() for place in (0, 1)]
        assert (slopes[0] == 0) == (slopes[1] == 0)
        assert model.encoder.head.bias.grad.abs().sum() > 0
        silent += int(slopes[0] == 0)
    assert 12 <= silent <= 48  # 30, of steps with one case each


def test_a_step_depends_on_its_number_alone(lesson: Lesson) -> None:
    model = told().eval()
    with torch.inference_mode():
        first = [float(_step_loss(lesson, CPU)(model, step)) for step in range(6)]
        again = [float(_step_loss(lesson, CPU)(model, step)) for step in reversed(range(6))]
    assert first == pytest.approx(again[::-1], rel=1e-6)
    assert len(set(first)) > 3


def test_validation_is_told_all_facts(lesson: Lesson) -> None:
    model, target = told().eval(), lesson.target
    images = [lesson.store.images(case) for case in lesson.val]
    codes = target.encode([case.truth for case in lesson.val])
    with torch.inference_mode():
        found = [_validation(lesson, CPU)(model)["loss"] for _ in range(5)]

    def loss(cases: list[list[Image]]) -> float:
        table = target.probabilities(logits_of(model, cases, CPU))
        return float(losses(table, codes, target).mean())

    blank = [[Image(image.views, (0, 0, 0)) for image in case] for case in images]
    assert found == pytest.approx([loss(images)] * 5, rel=1e-5)
    assert found[0] != pytest.approx(loss(blank), rel=1e-2)
