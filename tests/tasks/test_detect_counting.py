# SPDX-License-Identifier: Apache-2.0
"""Peaks, suppression, targets and counts: by hand, against scikit-learn, and as laws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.errors import DataError
from vesalius.networks.center import Answer
from vesalius.tasks.detect.boxes import Boxes, empty
from vesalius.tasks.detect.counting import (
    LEVEL,
    Evidence,
    Rule,
    fit_factors,
    fit_rules,
)
from vesalius.tasks.detect.curves import fit_line, fit_logistic
from vesalius.tasks.detect.decode import FLOOR, peaks, suppress, within
from vesalius.tasks.detect.targets import PARTS, detection_loss, make_targets

STRIDE = 4
TRUTH = Boxes(
    np.array([[8.0, 12, 28, 24], [30, 30, 50, 56], [5, 40, 17, 52]]),
    np.array([0, 1, 0]),
    np.ones(3),
)


def perfect(truth: Boxes, shape=(16, 16), classes=2) -> torch.Tensor:
    """The maps of a network that answers exactly its targets."""
    targets = make_targets([truth], np.ones((1, classes), bool), shape, STRIDE)
    heat = torch.logit(targets.heat.clamp(1e-6, 1 - 1e-6))
    density = torch.log(torch.expm1(targets.centers.clamp(min=1e-6)))
    return torch.cat([heat, density, targets.shape], dim=1)


def test_boxes_come_back_from_their_targets() -> None:
    answer = Answer.of(perfect(TRUTH))
    found = peaks(torch.sigmoid(answer.heat[0]), answer.size[0], answer.offset[0], STRIDE)
    assert len(found) == 3
    for corners, label in zip(TRUTH.corners, TRUTH.labels, strict=True):
        away = np.abs(found.corners[found.labels == label] - corners).max(axis=1)
        assert away.min() < 1e-3
    assert torch.nn.functional.softplus(answer.density).sum() == pytest.approx(3, abs=0.01)


def test_the_right_answer_costs_least() -> None:
    targets = make_targets([TRUTH], np.ones((1, 2), bool), (16, 16), STRIDE)
    right = perfect(TRUTH)
    best = float(detection_loss(right, targets))
    assert best < 0.15
    for channel in range(right.shape[1]):
        wrong = right.clone()
        wrong[:, channel] = wrong[:, channel].flip(-1) + 0.5
        assert float(detection_loss(wrong, targets)) > best


def test_a_class_that_is_not_annotated_costs_nothing() -> None:
    known = np.array([[True, False]])
    targets = make_targets([TRUTH], known, (16, 16), STRIDE)
    one = perfect(TRUTH)
    other = one.clone()
    other[:, [1, 3]] += 3.0  # heat and density of the second class
    assert float(detection_loss(one, targets)) == pytest.approx(
        float(detection_loss(other, targets))
    )


def test_the_count_is_held_in_every_part() -> None:
    """Objects moved to another quarter cost as much as they count, though the sum is right."""
    targets = make_targets([TRUTH], np.ones((1, 2), bool), (16, 16), STRIDE)
    right = perfect(TRUTH)
    wrong = right.clone()
    wrong[:, 2:4] = wrong[:, 2:4].flip(-1).flip(-2)
    assert PARTS == (1, 2, 4)
    assert float(detection_loss(wrong, targets)) > float(detection_loss(right, targets)) + 0.1


def test_suppression_by_hand() -> None:
    found = Boxes(
        np.array([[0.0, 0, 10, 10], [0, 0, 10, 10], [5, 0, 15, 10], [0, 0, 10, 10]]),
        np.array([0, 0, 0, 1]),
        np.array([0.9, 0.8, 0.7, 0.6]),
    )
    out = suppress(found, sigma=0.5)
    assert out.scores[0] == 0.9
    assert out.scores[out.labels == 1].tolist() == [0.6]  # another class
    kept = sorted(out.scores[out.labels == 0].tolist())
    third = 0.7 * np.exp(-(1 / 9) / 0.5)
    twin = 0.8 * np.exp(-1 / 0.5) * np.exp(-(1 / 9) / 0.5)  # after the third box, of higher score
    assert kept == pytest.approx([twin, third, 0.9])
    assert (out.scores >= FLOOR).all()


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_suppression_only_lowers_and_does_not_depend_on_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 40, (12, 2))
    scores = rng.permutation(np.linspace(0.2, 0.95, 12))
    found = Boxes(np.concatenate([low, low + 15], axis=1), rng.integers(0, 2, 12), scores)
    order = rng.permutation(12)
    one, two = suppress(found, sigma=0.3), suppress(found.chosen(order), sigma=0.3)
    np.testing.assert_allclose(one.corners, two.corners)
    np.testing.assert_allclose(one.scores, two.scores)
    assert one.scores.max() == scores.max()
    far = Boxes(np.arange(12)[:, None] * 100 + np.array([[0, 0, 9, 9]]), found.labels, scores)
    np.testing.assert_allclose(suppress(far, sigma=0.3).scores, np.sort(scores)[::-1])


def test_boxes_are_cut_at_the_border() -> None:
    found = Boxes(np.array([[-5.0, 2, 5, 9], [60, 60, 70, 70]]), np.zeros(2, int), np.ones(2))
    assert within(found, (50, 8)).corners.tolist() == [[0, 2, 5, 8]]


def test_the_logistic_curve_is_that_of_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    x = rng.normal(0, 2, 3000)
    hits = rng.random(3000) < 1 / (1 + np.exp(-(0.7 * x - 0.4)))
    slope, intercept = fit_logistic(x, hits)
    theirs = LogisticRegression(C=np.inf, tol=1e-8).fit(x[:, None], hits)
    assert slope == pytest.approx(theirs.coef_[0, 0], abs=1e-3)
    assert intercept == pytest.approx(theirs.intercept_[0], abs=1e-3)


def test_the_logistic_curve_of_parted_scores_is_finite() -> None:
    slope, intercept = fit_logistic(
        np.array([-2.0, -1, 1, 2]), np.array([False, False, True, True])
    )
    assert 0 < slope < 50
    assert abs(intercept) < 1
    assert fit_logistic(np.zeros(0), np.zeros(0, bool)) == (1.0, 0.0)


def world(rng: np.random.Generator, images: int) -> tuple[list[Evidence], list[Boxes]]:
    """Objects with high scores, false candidates with low ones, and a density off by a tenth."""
    found, truth = [], []
    for _ in range(images):
        n, m = rng.poisson(8), rng.poisson(4)
        corners = np.arange(n + m)[:, None] * 20 + np.array([[0.0, 0, 10, 10]])
        scores = np.concatenate([rng.beta(5, 2, n), rng.beta(2, 5, m)])
        order = np.argsort(-scores)
        boxes = Boxes(corners[order], np.zeros(n + m, int), scores[order])
        found.append(Evidence(boxes, np.array([n * 1.1 + rng.normal(0, 2)])))
        truth.append(Boxes(corners[:n], np.zeros(n, int), np.ones(n)))
    return found, truth


def test_rules_count_better_than_no_threshold_and_intervals_hold() -> None:
    rng = np.random.default_rng(0)
    chosen, held, fresh = world(rng, 60), world(rng, 60), world(rng, 1000)
    (rule,) = fit_factors(fit_rules(*chosen, 1), *held)
    assert 0.3 < rule.threshold < 0.65
    assert rule.unseen == 0
    numbers = [len(true) for true in fresh[1]]
    counts = [rule.count("x", one.scores(0), float(one.density[0])) for one in fresh[0]]
    error = np.mean([abs(c.count - n) for c, n in zip(counts, numbers, strict=True)])
    every = np.mean([abs(len(e.candidates) - n) for e, n in zip(fresh[0], numbers, strict=True)])
    assert error < 0.4 * every
    share = np.mean([c.low <= n <= c.high for c, n in zip(counts, numbers, strict=True)])
    assert share > LEVEL - 0.03
    expected = [c.expected for c in counts]
    assert np.mean(expected) == pytest.approx(np.mean(numbers), rel=0.05)


def test_probabilities_are_calibrated() -> None:
    rng = np.random.default_rng(1)
    (rule,) = fit_rules(*world(rng, 300), 1)
    found, truth = world(rng, 300)
    p = np.concatenate([rule.probabilities(one.scores(0)) for one in found])
    pairs = zip(found, truth, strict=True)
    hits = np.concatenate(
        [np.isin(one.candidates.corners[:, 0], true.corners[:, 0]) for one, true in pairs]
    )
    for low, high in ((0, 0.2), (0.2, 0.8), (0.8, 1)):
        part = (p >= low) & (p < high)
        assert hits[part].mean() == pytest.approx(p[part].mean(), abs=0.06)


def test_the_better_source_is_counted() -> None:
    rng = np.random.default_rng(2)
    found, truth = world(rng, 80)
    sure = [
        Evidence(one.candidates, np.array([float(len(true))]))
        for one, true in zip(found, truth, strict=True)
    ]
    rule = fit_rules(sure, truth, 1)[0]
    assert (rule.source, rule.scale, rule.shift) == ("density", 1.0, 0.0)
    lost = [Evidence(one.candidates, np.array([rng.uniform(0, 50)])) for one in found]
    assert fit_rules(lost, truth, 1)[0].source == "detections"


def test_the_line_is_that_of_quantile_regression() -> None:
    from sklearn.linear_model import QuantileRegressor

    rng = np.random.default_rng(0)
    x = rng.uniform(0, 20, 70)
    y = 0.8 * x + 1.5 + rng.standard_t(2, 70)
    scale, shift = fit_line(x, y)
    theirs = QuantileRegressor(quantile=0.5, alpha=0).fit(x[:, None], y)
    ours = np.abs(scale * x + shift - y).mean()
    assert ours == pytest.approx(np.abs(theirs.predict(x[:, None]) - y).mean(), rel=1e-6)
    assert scale == pytest.approx(theirs.coef_[0], rel=1e-4)


def test_a_density_that_says_nothing_gives_the_median() -> None:
    assert fit_line(np.ones(5), np.array([1, 2, 7, 2, 0])) == (0.0, 2.0)
    assert fit_line(np.arange(5.0), np.arange(5.0)[::-1]) == (0.0, 2.0)  # never downward


def test_spread_is_that_of_the_poisson_binomial() -> None:
    rule = Rule("detections", 0.5, 1.0, 0.0, 0.0)
    scores = np.array([0.9, 0.5, 0.2, 0.7])
    draws = np.random.default_rng(0).random((200_000, 4)) < scores
    assert rule.spread(scores) == pytest.approx(draws.sum(1).std(), rel=0.01)


def test_too_few_rows_leave_a_count_without_bound() -> None:
    rng = np.random.default_rng(3)
    (rule,) = fit_factors(fit_rules(*world(rng, 20), 1), *world(rng, 5))
    assert rule.factor is None
    count = rule.count("x", np.array([0.9]), 1.0)
    assert (count.low, count.high) == (0, None)
    assert Rule.from_json(rule.to_json()) == rule


def test_an_image_without_candidates_has_a_count() -> None:
    rule = Rule("both", 0.5, 1.0, 0.0, 0.5, factor=2.0)
    count = rule.count("x", empty().scores, 0.2)
    assert (count.count, count.low) == (0, 0)
    assert count.high == 1  # 2 x sqrt(0.5)
    assert count.expected == 0.5


def test_without_validation_images_there_is_no_rule() -> None:
    with pytest.raises(DataError, match="no validation image"):
        fit_rules([], [], 1)
