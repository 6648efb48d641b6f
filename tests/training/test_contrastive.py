# SPDX-License-Identifier: Apache-2.0
"""Losses of twins: known answers, an independent way to count, and what they lead to."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from vesalius.training.contrastive import contrastive, pairs_of_words, supcon, triplet


def on_circle(*degrees: float) -> torch.Tensor:
    angles = torch.tensor(degrees) * math.pi / 180
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def others(n: int) -> torch.Tensor:
    return ~torch.eye(n, dtype=torch.bool)


def together(*labels: str) -> torch.Tensor:
    return torch.tensor([[float(a == b) for b in labels] for a in labels])


def test_contrastive_by_hand() -> None:
    z = on_circle(0, 60, 90)  # distances: 1 between the first two, sqrt 2, 2 sin 15 degrees
    found = contrastive(z, z, together("a", "a", "b"), others(3), 1.5)
    drawn = 1.0
    pushed = ((1.5 - math.sqrt(2)) ** 2 + (1.5 - 2 * math.sin(math.pi / 12)) ** 2) / 2
    assert float(found) == pytest.approx((drawn + pushed) / 2, abs=1e-5)


def test_triplet_takes_the_semi_hard_negative() -> None:
    # from 0: its partner at 60 (squared 1); strangers at 30 (nearer), 90 (squared 2), 180 (4)
    z = on_circle(0, 60, 30, 90, 180)
    positive = torch.zeros(5, 5)
    positive[0, 1] = 1
    assert float(triplet(z, z, positive, others(5), 1.2)) == pytest.approx(1 - 2 + 1.2, abs=1e-5)
    assert float(triplet(z, z, positive, others(5), 0.5)) == 0
    hard = z[:3]  # no stranger is farther than the partner: the farthest one
    squared = 2 - 2 * math.cos(math.pi / 6)
    expected = 1 - squared + 0.2
    assert float(triplet(hard, hard, positive[:3, :3], others(3), 0.2)) == pytest.approx(
        expected, abs=1e-5
    )


def test_supcon_by_hand_and_as_cross_entropy() -> None:
    z = on_circle(0, 60, 180)
    found = supcon(z, z, together("a", "a", "b"), others(3), 0.5)
    one = -math.log(math.exp(1) / (math.exp(1) + math.exp(-2)))
    two = -math.log(math.exp(1) / (math.exp(1) + math.exp(2 * math.cos(2 * math.pi / 3))))
    assert float(found) == pytest.approx((one + two) / 2, abs=1e-5)
    a, b = (functional.normalize(torch.randn(6, 4), dim=1) for _ in range(2))
    everyone = torch.ones(6, 6, dtype=torch.bool)
    plain = functional.cross_entropy(a @ b.T / 0.1, torch.arange(6))  # InfoNCE: one positive each
    torch.testing.assert_close(supcon(a, b, torch.eye(6), everyone, 0.1), plain)
    back = functional.cross_entropy(b @ a.T / 0.1, torch.arange(6))
    torch.testing.assert_close(pairs_of_words(a, b, torch.eye(6), 0.1), (plain + back) / 2)


@pytest.mark.parametrize("loss", [contrastive, triplet, supcon])
def test_pairs_that_do_not_count_teach_nothing(loss) -> None:
    torch.manual_seed(0)
    z = functional.normalize(torch.randn(5, 3), dim=1)
    positive = together("a", "a", "b", "b", "a")
    counted = others(5)
    counted[:, 4] = counted[4] = False
    torch.testing.assert_close(
        loss(z, z, positive, counted, 0.4),
        loss(z[:4], z[:4], positive[:4, :4], others(4), 0.4),
    )


@pytest.mark.parametrize("loss", [contrastive, triplet, supcon])
def test_without_positives_there_is_a_slope_of_nothing(loss) -> None:
    z = nn.Parameter(on_circle(0, 5))
    value = loss(z, z, torch.zeros(2, 2), torch.zeros(2, 2, dtype=torch.bool), 0.3)
    value.backward()
    assert float(value.detach()) == 0
    assert z.grad is not None
    assert not z.grad.any()


@pytest.mark.parametrize(("loss", "setting"), [(contrastive, 1.0), (triplet, 0.2), (supcon, 0.1)])
def test_descent_brings_classes_together(loss, setting: float) -> None:
    torch.manual_seed(1)
    labels = torch.arange(24) % 3
    points = nn.Parameter(torch.randn(24, 4))
    positive = (labels[:, None] == labels[None]).float()
    optimizer = torch.optim.Adam([points], lr=0.05)
    for _ in range(150):
        z = functional.normalize(points, dim=1)
        value = loss(z, z, positive, others(24), setting)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    z = functional.normalize(points.detach(), dim=1)
    likeness = (z @ z.T).masked_fill(torch.eye(24, dtype=torch.bool), -2)
    assert (labels[likeness.argmax(1)] == labels).all()
    assert likeness[positive.bool() & others(24)].mean() > likeness[~positive.bool()].mean() + 0.8
