# SPDX-License-Identifier: Apache-2.0
"""Loss, augmentation, schedule and budget against hand-known answers."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from vesalius.errors import BudgetError
from vesalius.training.augment import Augmentation, augment
from vesalius.training.budget import seconds_per_call, steps_within
from vesalius.training.loss import class_weights, cross_entropy, dice_cross_entropy
from vesalius.training.schedule import learning_rate

STILL = Augmentation(rotation=0, scale=0, shift=0, gain=0, offset=0, gamma=0, noise=0, chance=1.0)


def blob(*shape: int) -> torch.Tensor:
    x = torch.zeros(2, 1, *shape)
    x[:, :, 2 : shape[0] // 2, 3 : shape[1] // 2 + 2] = 1
    return x


@pytest.mark.parametrize("shape", [(12, 20), (12, 20, 6)])
def test_nothing_asked_nothing_changed(shape: tuple[int, ...]) -> None:
    x = blob(*shape)
    planes = ((0, 1),)
    still = Augmentation(**{**{k: getattr(STILL, k) for k in STILL.__slots__}, "planes": planes})
    y, labels = augment(x, still, np.random.default_rng(0), labels=x[:, 0].long())
    torch.testing.assert_close(y, x, atol=1e-4, rtol=0)
    assert torch.equal(labels, x[:, 0].long())


def test_labels_move_with_the_image() -> None:
    x = blob(32, 48)
    far = Augmentation(
        rotation=30,
        scale=0.2,
        shift=0.1,
        flips=(0, 1),
        gain=0,
        offset=0,
        gamma=0,
        noise=0,
        chance=1,
    )
    y, labels = augment(x, far, np.random.default_rng(1), labels=x[:, 0].long())
    moved = (y[:, 0] > 0.5).long()
    assert (moved == labels).float().mean() > 0.98
    assert not torch.equal(labels, x[:, 0].long())


def test_flips_alone_mirror_exactly() -> None:
    x = torch.arange(24.0).reshape(1, 1, 4, 6)
    flip = Augmentation(
        rotation=0, scale=0, shift=0, flips=(0,), gain=0, offset=0, gamma=0, noise=0, chance=0
    )
    seen = {
        tuple(augment(x, flip, np.random.default_rng(seed))[0].round().flatten().int().tolist())
        for seed in range(8)
    }
    assert seen == {
        tuple(x.flatten().int().tolist()), tuple(x.flip(2).flatten().int().tolist())
    }  # fmt: skip


def test_images_are_softened_along_the_axes_that_are_turned() -> None:
    x = torch.randn((2, 1, 16, 12, 10), generator=torch.Generator().manual_seed(0))
    fine = replace(STILL, planes=((0, 1),), chance=0.0)
    same, _ = augment(x, fine, np.random.default_rng(0))
    for name, most in (("blur", 1.0), ("coarse", 2.0)):
        soft, _ = augment(x, replace(fine, seldom=1.0, **{name: most}), np.random.default_rng(0))
        rough = [float(soft.diff(dim=a).abs().mean() / same.diff(dim=a).abs().mean())
                 for a in (2, 3, 4)]  # fmt: skip
        assert max(rough[:2]) < rough[2]
        never, _ = augment(x, replace(fine, seldom=0.0, **{name: most}), np.random.default_rng(0))
        torch.testing.assert_close(never, same)


def test_rotation_is_rigid_in_millimeters() -> None:
    # A square of 8 x 8 mm on voxels of 1 x 4 mm keeps its area under a quarter turn.
    x = torch.zeros(1, 1, 32, 8)
    x[:, :, 12:20, 3:5] = 1
    turn = Augmentation(rotation=90, scale=0, shift=0, gain=0, offset=0, gamma=0, noise=0, chance=1)

    class Quarter:
        def random(self, size=None):
            return np.zeros(size) if size else 0.0

        def uniform(self, low, high, size=None):
            return np.full(size, 90.0 if high == 90 else (low + high) / 2) if size else 0.0

        def integers(self, high):
            return high // 2

    y, _ = augment(x, turn, Quarter(), spacing=(1.0, 4.0))  # type: ignore[arg-type]  # a stand-in
    torch.testing.assert_close(y.sum(), x.sum(), atol=0.6, rtol=0)
    assert y[0, 0, 12:20, 3:5].mean() > 0.8  # soft edges: voxels are 4 mm wide


def test_same_generator_same_batch() -> None:
    x = torch.rand(3, 2, 16, 16)
    a, _ = augment(x, Augmentation(), np.random.default_rng(5))
    b, _ = augment(x, Augmentation(), np.random.default_rng(5))
    c, _ = augment(x, Augmentation(), np.random.default_rng(6))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_colors_are_changed_of_images_of_three_channels_alone() -> None:
    x = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for change in ({"color": 0.5}, {"stain": 0.5}):
        settings = replace(STILL, **change)
        y, _ = augment(x, settings, np.random.default_rng(0))
        assert ((y - x).abs().amax((1, 2, 3)) > 0.01).all()
        unlike = (y - y.mean(1, keepdim=True)) / (x - x.mean(1, keepdim=True))
        assert float(unlike.std()) > 0.01  # no gain that all channels share
        for channels in (1, 2, 4):
            other = torch.cat([x, x], dim=1)[:, :channels]
            y, _ = augment(other, settings, np.random.default_rng(0))
            torch.testing.assert_close(y, other, atol=1e-4, rtol=0)


def test_a_plans_settings_come_back_from_json() -> None:
    held = {"rotation": 180.0, "flips": [0, 1], "planes": [[0, 1], [1, 2]], "stain": 0.3}
    settings = Augmentation.from_json(json.loads(json.dumps(held)))
    assert settings == Augmentation(
        rotation=180.0, flips=(0, 1), planes=((0, 1), (1, 2)), stain=0.3
    )
    assert Augmentation.from_json({}) == Augmentation()
    assert Augmentation().color == Augmentation().stain == 0
    whole = asdict(STILL)
    assert Augmentation.from_json(json.loads(json.dumps(whole))) == STILL
    with pytest.raises(TypeError, match="hue"):
        Augmentation.from_json({"hue": 0.1})


def test_dice_cross_entropy_is_0_for_a_perfect_and_large_for_a_wrong_answer() -> None:
    truth = torch.zeros(2, 8, 8, dtype=torch.long)
    truth[:, 2:6, 2:6] = 1
    right = torch.stack([1 - 2.0 * truth, 2.0 * truth - 1], 1) * 50
    assert dice_cross_entropy(right, truth) < 1e-4
    assert dice_cross_entropy(-right, truth) > 10


def test_weights_balance_and_keep_the_mean() -> None:
    weights = class_weights([90, 10], power=1.0)
    assert weights[1] == pytest.approx(9 * weights[0])
    assert 0.9 * weights[0] + 0.1 * weights[1] == pytest.approx(1)
    logits = torch.zeros(4, 2)
    truth = torch.tensor([0, 0, 0, 1])
    loss = cross_entropy(logits, truth, torch.tensor([1.0, 3.0]))
    assert float(loss) == pytest.approx(np.log(2) * (1 + 1 + 1 + 3) / 4)


def test_schedule_warms_up_then_falls_to_zero() -> None:
    rates = [learning_rate(step, steps=100, peak=1.0, warmup=10) for step in range(101)]
    assert rates[0] == pytest.approx(1 / 11)
    assert max(rates) == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0, abs=1e-12)


def test_minutes_become_steps_or_a_refusal() -> None:
    plan = {"per_step": 0.1, "per_validation": 1.0, "at_the_end": 5.0}
    assert steps_within(100, **plan, most=10_000) == int((90 - 15) / 0.1)
    assert steps_within(100, **plan, most=50) == 50
    with pytest.raises(BudgetError, match="minutes more"):
        steps_within(10, **plan, most=50)


def test_probe_measures() -> None:
    import time

    assert seconds_per_call(lambda _: time.sleep(0.01)) == pytest.approx(0.01, rel=0.3)
