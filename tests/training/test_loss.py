# SPDX-License-Identifier: Apache-2.0
"""Losses against scikit-learn, hand-known answers, analytic gradients; weights that balance."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss
from torch.nn import functional

from vesalius.training.loss import (
    binary_cross_entropy,
    class_weights,
    cross_entropy,
    deep_supervision_loss,
    dice_cross_entropy,
    huber,
    imbalance,
    label_weights,
    ordinal_cross_entropy,
    ordinal_log_probabilities,
)

torch.set_num_threads(1)
NAN = float("nan")


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 2, shape).astype(np.float32))


def gradient(loss, values: torch.Tensor) -> np.ndarray:
    leaf = values.clone().requires_grad_()
    loss(leaf).backward()
    return leaf.grad.numpy()


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_cross_entropy_is_the_log_loss_of_scikit_learn() -> None:
    logits, truth = drawn(40, 4), torch.arange(40) % 4
    p = torch.softmax(logits.double(), 1).numpy()
    expected = log_loss(truth.numpy(), p / p.sum(1, keepdims=True), labels=range(4))
    assert float(cross_entropy(logits, truth)) == pytest.approx(expected, rel=1e-5)
    weights = torch.tensor([0.5, 1.0, 2.0, 3.0])
    hot = np.eye(4)[truth.numpy()]
    np.testing.assert_allclose(
        gradient(lambda x: cross_entropy(x, truth, weights), logits),
        weights.numpy()[truth.numpy()][:, None] * (p - hot) / 40,
        atol=1e-6,
    )


def test_soft_truths_mix_linearly_and_certain_ones_are_indices() -> None:
    logits, truth, other = drawn(12, 3), torch.arange(12) % 3, torch.arange(12) // 4
    weights = torch.tensor([1.0, 2.0, 0.5])

    def hot(index: torch.Tensor) -> torch.Tensor:
        return torch.eye(3)[index]

    def loss(wanted: torch.Tensor) -> float:
        return float(cross_entropy(logits, wanted, weights, smoothing=0.1))

    assert loss(hot(truth)) == pytest.approx(loss(truth), rel=1e-5)
    mixed = loss(0.3 * hot(truth) + 0.7 * hot(other))
    assert mixed == pytest.approx(0.3 * loss(truth) + 0.7 * loss(other), rel=1e-5)


def test_labels_are_judged_alone_and_unknown_ones_not_at_all() -> None:
    logits = drawn(30, 3)
    truth = torch.from_numpy(np.random.default_rng(1).integers(0, 2, (30, 3)).astype(np.float32))
    p = sigmoid(logits.double().numpy())
    expected = np.mean([log_loss(truth[:, k].numpy(), p[:, k]) for k in range(3)])
    assert float(binary_cross_entropy(logits, truth)) == pytest.approx(expected, rel=1e-5)

    holes = truth.clone()
    holes[::2, 1] = NAN
    held = gradient(lambda x: binary_cross_entropy(x, holes), logits)
    full = gradient(lambda x: binary_cross_entropy(x, truth), logits)
    np.testing.assert_allclose(full, (p - truth.numpy()) / 90, atol=1e-7)
    unknown = holes.isnan().numpy()
    assert (held[unknown] == 0).all()
    np.testing.assert_array_equal(held[~unknown], full[~unknown])
    assert float(binary_cross_entropy(logits, torch.full((30, 3), NAN))) == 0


def test_weights_of_absent_and_present_by_hand() -> None:
    logits = torch.zeros(1, 2)
    truth = torch.tensor([[1.0, 0.0]])
    weights = torch.tensor([[0.5, 4.0], [0.25, 9.0]])
    loss = binary_cross_entropy(logits, truth, weights)
    assert float(loss) == pytest.approx(math.log(2) * (4 + 0.25) / 2)
    smooth = binary_cross_entropy(torch.tensor([[20.0]]), torch.tensor([[1.0]]), smoothing=0.2)
    assert float(smooth) == pytest.approx(0.1 * 20, rel=1e-5)  # a tenth of the truth says absent


def test_a_case_of_corn_by_hand() -> None:
    # Conditional chances: above 0: 0.8; above 1, given above 0: 0.5; above 2, given above 1: 0.25.
    chances = np.array([0.8, 0.5, 0.25])
    logits = torch.tensor(np.log(chances / (1 - chances)), dtype=torch.float32)[None]
    p = ordinal_log_probabilities(logits).exp().numpy()[0]
    np.testing.assert_allclose(p, [0.2, 0.8 * 0.5, 0.8 * 0.5 * 0.75, 0.8 * 0.5 * 0.25], rtol=1e-6)
    for grade in range(4):
        loss = ordinal_cross_entropy(logits, torch.tensor([grade]))
        assert float(loss) == pytest.approx(-math.log(p[grade]), rel=1e-5)


def test_grades_lose_what_corn_sums_over_its_conditional_tasks() -> None:
    """Shi et al. 2023, eq. 6: task k sees the cases of grade k or above; here divided by cases."""
    logits, truth = drawn(50, 4, seed=3), torch.arange(50) % 5
    z, y = logits.double().numpy(), truth.numpy()
    total = 0.0
    expected = np.zeros_like(z)
    for task in range(4):
        seen = y >= task
        f = sigmoid(z[seen, task])
        above = y[seen] > task
        total += log_loss(above, f, normalize=False)
        expected[seen, task] = (f - above) / 50
    assert float(ordinal_cross_entropy(logits, truth)) == pytest.approx(total / 50, rel=1e-5)
    found = gradient(lambda x: ordinal_cross_entropy(x, truth), logits)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@settings(deadline=None)
@given(st.lists(st.floats(-60, 60), min_size=1, max_size=6))
def test_grades_have_proper_probabilities_whatever_the_logits(logits: list[float]) -> None:
    logs = ordinal_log_probabilities(torch.tensor([logits]))
    assert torch.isfinite(logs).all()
    p = logs.double().exp().numpy()[0]
    assert p.sum() == pytest.approx(1, abs=1e-5)
    above = p[::-1].cumsum()[::-1]  # of this grade or more
    assert (np.diff(above) <= 1e-12).all()


def test_weighted_and_smoothed_grades() -> None:
    logits, truth = drawn(8, 2), torch.arange(8) % 3
    weights = torch.tensor([1.0, 5.0, 0.5])
    each = torch.stack(
        [ordinal_cross_entropy(logits[n : n + 1], truth[n : n + 1]) for n in range(8)]
    )
    expected = (each * weights[truth]).mean()
    torch.testing.assert_close(ordinal_cross_entropy(logits, truth, weights), expected)
    soft = torch.eye(3)[truth] * 0.7 + 0.1
    torch.testing.assert_close(
        ordinal_cross_entropy(logits, truth, smoothing=0.3), ordinal_cross_entropy(logits, soft)
    )


def test_huber_is_a_square_then_a_line() -> None:
    values = torch.tensor([[0.0], [0.5], [-3.0]])
    truth = torch.tensor([0.0, 0.0, 1.0])
    assert float(huber(values, truth)) == pytest.approx((0 + 0.125 + 3.5) / 3)
    assert float(huber(values, truth, torch.tensor([1.0, 2.0, 0.0]))) == pytest.approx(0.25 / 3)
    np.testing.assert_allclose(
        gradient(lambda x: huber(x, truth), values), np.array([[0], [0.5], [-1]]) / 3, atol=1e-7
    )


@pytest.mark.parametrize(
    "loss", [cross_entropy, binary_cross_entropy, ordinal_cross_entropy, huber]
)
def test_a_batch_is_the_mean_of_its_cases_whatever_they_hold(loss) -> None:
    """Law: a case counts the same whichever batch it falls into."""
    logits = drawn(6, 1 if loss is huber else 2)
    truth = {
        cross_entropy: torch.tensor([0, 0, 0, 1, 1, 0]),
        ordinal_cross_entropy: torch.tensor([0, 0, 2, 1, 1, 0]),
        binary_cross_entropy: torch.tensor(
            [[0, 1], [NAN, 1], [NAN, NAN], [1, 1], [0, 0], [1, NAN]]
        ),
        huber: torch.tensor([0.0, 3, -1, 2, 5, 0]),
    }[loss]
    weights = {
        cross_entropy: torch.tensor([0.5, 4.0]),
        ordinal_cross_entropy: torch.tensor([0.5, 4.0, 2.0]),
        binary_cross_entropy: torch.tensor([[0.5, 4.0], [2.0, 1.0]]),
        huber: None,
    }[loss]
    alone = [loss(logits[n : n + 1], truth[n : n + 1], weights) for n in range(6)]
    torch.testing.assert_close(loss(logits, truth, weights), torch.stack(alone).mean())
    halves = [loss(logits[part], truth[part], weights) for part in (slice(0, 3), slice(3, 6))]
    torch.testing.assert_close(loss(logits, truth, weights), torch.stack(halves).mean())
    half = logits.to(torch.bfloat16)
    assert loss(half, truth, weights).dtype == torch.float32


counts = st.integers(0, 10_000)


@settings(deadline=None)
@given(st.lists(st.tuples(counts, counts), min_size=1, max_size=5), st.floats(0, 1))
def test_label_weights_are_bounded_and_have_mean_1_over_the_cases(pairs, power) -> None:
    found = label_weights(pairs, power=power, most=5)
    for (absent, present), (low, high) in zip(pairs, found, strict=True):
        assert 1 / 5 - 1e-9 <= high / low <= 5 + 1e-9
        if absent + present:
            mean = (absent * low + present * high) / (absent + present)
            assert mean == pytest.approx(1)
        if present and absent and 1 / 5 < (absent / present) ** power < 5:
            np.testing.assert_allclose([low, high], class_weights([absent, present], power=power))


def test_imbalance_by_hand() -> None:
    found = imbalance({"a": 90, "b": 10}, power=1.0)
    assert found["counts"] == {"a": 90, "b": 10}
    assert found["majority"] == 0.9
    assert found["ratio"] == 9
    assert found["effective_classes"] == pytest.approx(0.9**-0.9 * 0.1**-0.1, abs=1e-6)
    assert found["weights"]["b"] == pytest.approx(9 * found["weights"]["a"], rel=1e-5)
    assert imbalance({"a": 5, "b": 5, "c": 5, "d": 5})["effective_classes"] == pytest.approx(4)
    assert imbalance({"a": 5, "b": 0})["ratio"] is None
    nothing = imbalance({"a": 0, "b": 0})
    assert (nothing["majority"], nothing["effective_classes"]) == (0, 0)
    assert nothing["weights"] == {"a": 1, "b": 1}


def test_levels_weigh_1_a_half_and_a_quarter_over_their_sum() -> None:
    labels = torch.tensor([[[0, 1, 2, 3], [4, 5, 6, 7], [0, 1, 2, 3], [4, 5, 6, 7]]])
    outputs = [torch.zeros(1, 8, side, side) for side in (4, 2, 1)]
    seen = []

    def loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        seen.append(truth.tolist())
        return torch.tensor(float(logits.shape[-1]))

    assert float(deep_supervision_loss(loss, outputs, labels)) == pytest.approx(
        (1 * 4 + 0.5 * 2 + 0.25 * 1) / 1.75
    )
    # Of four voxels about a center, the last along each axis.
    assert seen == [labels.tolist(), [[[5, 7], [5, 7]]], [[[2]]]]


def test_deep_supervision_of_one_level_is_its_loss() -> None:
    logits, labels = drawn(2, 3, 6, 6), torch.arange(72).reshape(2, 6, 6) % 3
    found = deep_supervision_loss(dice_cross_entropy, [logits], labels)
    torch.testing.assert_close(found, dice_cross_entropy(logits, labels))
    coarse = drawn(2, 3, 3, 3, seed=1)
    both = deep_supervision_loss(dice_cross_entropy, [logits, coarse], labels)
    by_hand = (
        2 * dice_cross_entropy(logits, labels) + dice_cross_entropy(coarse, labels[:, 1::2, 1::2])
    ) / 3
    torch.testing.assert_close(both, by_hand)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4)), min_size=2, max_size=3))
def test_labels_of_coarser_levels_are_the_nearest_ones(axes: list[tuple[int, int]]) -> None:
    sides = [size * step for size, step in axes]
    labels = torch.arange(2 * math.prod(sides)).reshape(2, *sides)
    coarse = [size for size, _ in axes]
    seen: list[torch.Tensor] = []

    def loss(_logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        seen.append(truth)
        return torch.zeros(())

    deep_supervision_loss(loss, [torch.zeros(2, 1, *sides), torch.zeros(2, 1, *coarse)], labels)
    wanted = functional.interpolate(labels[:, None].double(), coarse, mode="nearest-exact")[:, 0]
    assert torch.equal(seen[1], wanted.long())
