# SPDX-License-Identifier: Apache-2.0
"""Losses against a teacher: least where the student answers as it does, at any temperature."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, rel_entr, softmax

from vesalius.training.distill import taught_classes, taught_labels, taught_overlap

SEEDS = st.integers(0, 2**31 - 1)
TEMPERATURES = st.floats(0.5, 8)


@given(SEEDS, TEMPERATURES)
@settings(max_examples=25, deadline=None)
def test_the_loss_is_zero_only_at_the_teachers_answer(seed: int, temperature: float) -> None:
    rng = np.random.default_rng(seed)
    logits = torch.tensor(rng.normal(size=(5, 3)), dtype=torch.float32)
    other = logits + torch.tensor(rng.uniform(0.5, 1, (5, 3)) * [1, -1, 0])
    for loss, answer in ((taught_classes, torch.softmax), (taught_labels, None)):
        taught = torch.sigmoid(logits) if answer is None else answer(logits, 1)
        assert float(loss(logits, taught, temperature=temperature)) == pytest.approx(0, abs=2e-4)
        assert float(loss(other, taught, temperature=temperature)) > 1e-3


@given(SEEDS, TEMPERATURES)
@settings(max_examples=15, deadline=None)
def test_classes_are_compared_by_divergence_of_softened_probabilities(
    seed: int, temperature: float
) -> None:
    rng = np.random.default_rng(seed)
    logits, sure = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    expected = rel_entr(softmax(sure / temperature, 1), softmax(logits / temperature, 1))
    found = taught_classes(
        torch.tensor(logits), torch.tensor(softmax(sure, 1)), temperature=temperature
    )
    assert float(found) == pytest.approx(temperature**2 * expected.sum(1).mean(), rel=1e-3)


def test_labels_are_compared_each_alone() -> None:
    logits, sure = np.array([[0.5, -2.0]]), np.array([[1.5, 1.0]])
    parts = []
    for a, b in zip(expit(sure[0] / 3), expit(logits[0] / 3), strict=True):
        parts.append(rel_entr([a, 1 - a], [b, 1 - b]).sum())
    found = taught_labels(torch.tensor(logits), torch.tensor(expit(sure)), temperature=3.0)
    assert float(found) == pytest.approx(9 * np.mean(parts), rel=1e-4)


@given(SEEDS)
@settings(max_examples=25, deadline=None)
def test_a_student_as_unsure_as_its_teacher_loses_no_overlap(seed: int) -> None:
    rng = np.random.default_rng(seed)
    taught = torch.tensor(rng.uniform(size=(2, 3, 4, 5)))
    assert float(taught_overlap(taught, taught)) == pytest.approx(0, abs=1e-9)
    surer = (taught > 0.5).double()
    assert float(taught_overlap(surer, taught)) > 0.01
    # of hard maps it is one less the Dice score of each structure
    other = torch.tensor(rng.integers(0, 2, (2, 3, 4, 5)), dtype=torch.float64)
    shared, total = (surer * other).sum((0, 2, 3)), (surer + other).sum((0, 2, 3))
    expected = 1 - ((2 * shared + 1) / (total + 1)).mean()
    assert float(taught_overlap(surer, other)) == pytest.approx(float(expected))


def test_an_impossible_teacher_gives_a_finite_loss() -> None:
    sure = torch.tensor([[1.0, 0.0]])
    logits = torch.tensor([[-30.0, 30.0]], requires_grad=True)
    for loss in (taught_classes, taught_labels):
        value = loss(logits, sure, temperature=1.0)
        value.backward()
        assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()
