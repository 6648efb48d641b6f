# SPDX-License-Identifier: Apache-2.0
"""Scores of boxes and counts against MONAI's COCO metric, scikit-learn, and hand-known answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.errors import UsageError
from vesalius.metrics.detection import (
    Matched,
    average_precision,
    count_scores,
    detection_scores,
    match,
    match_images,
    overlaps,
    sensitivities,
)

BOX = np.array([[0.0, 0, 10, 10]])


def scene(rng: np.random.Generator, images: int):
    """True boxes, and detections: most of them jittered, some missed, some invented."""
    found, truth = [], []
    for _ in range(images):
        low = rng.uniform(0, 80, (rng.integers(0, 6), 2))
        true = np.concatenate([low, low + rng.uniform(8, 20, low.shape)], axis=1)
        kept = true[rng.random(len(true)) < 0.8]
        wrong = rng.uniform(0, 80, (rng.integers(0, 4), 2))
        boxes = np.concatenate(
            [kept + rng.normal(0, 1.5, kept.shape), np.concatenate([wrong, wrong + 12], axis=1)]
        )
        scores = np.concatenate([rng.beta(4, 2, len(kept)), rng.beta(2, 4, len(wrong))])
        found.append((boxes, scores))
        truth.append(true)
    return found, truth


def test_overlap_by_hand() -> None:
    other = np.array([[5.0, 0, 15, 10], [20, 20, 30, 30], [0, 0, 10, 10], [2, 2, 2, 2]])
    np.testing.assert_allclose(overlaps(BOX, other)[0], [1 / 3, 0, 1, 0])


@given(seed=st.integers(0, 10_000), shift=st.floats(-50, 50), scale=st.floats(0.1, 10))
@settings(max_examples=30, deadline=None)
def test_overlap_is_symmetric_and_blind_to_place_and_unit(seed, shift, scale) -> None:
    found, truth = scene(np.random.default_rng(seed), 1)
    a, b = found[0][0], truth[0]
    table = overlaps(a, b)
    np.testing.assert_allclose(table, overlaps(b, a).T)
    np.testing.assert_allclose(table, overlaps(a * scale + shift, b * scale + shift), atol=1e-9)
    assert ((table >= 0) & (table <= 1)).all()


def test_an_object_is_found_once_by_the_best() -> None:
    found = np.array([[0.0, 0, 10, 10], [1, 0, 11, 10], [40, 40, 50, 50]])
    assert match(found, np.array([0.5, 0.9, 0.7]), BOX).tolist() == [-1, 0, -1]
    assert match(found, np.array([0.9, 0.5, 0.7]), BOX).tolist() == [0, -1, -1]
    assert match(found[:0], np.zeros(0), BOX).tolist() == []
    assert match(found, np.ones(3), BOX[:0]).tolist() == [-1, -1, -1]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_average_precision_equals_monai(seed: int) -> None:
    from monai.apps.detection.metrics.coco import COCOMetric
    from monai.apps.detection.metrics.matching import matching_batch
    from monai.data.box_utils import box_iou

    found, truth = scene(np.random.default_rng(seed), 30)
    matched = match_images(found, truth)
    table = matching_batch(
        iou_fn=box_iou,
        iou_thresholds=[0.5],
        pred_boxes=[boxes for boxes, _ in found],
        pred_classes=[np.zeros(len(s), int) for _, s in found],
        pred_scores=[s for _, s in found],
        gt_boxes=truth,
        gt_classes=[np.zeros(len(t), int) for t in truth],
    )
    coco = COCOMetric(classes=["x"], iou_list=[0.5], iou_range=(0.5, 0.5, 0.05))
    theirs = coco(table)[0]["x_AP_IoU_0.50_MaxDet_100"]
    # COCO samples the same envelope at 101 recalls.
    assert average_precision(matched)[0] == pytest.approx(float(theirs), abs=0.012)


def test_average_precision_without_envelope_equals_scikit_learn() -> None:
    """Where precision only falls and nothing is missed, the envelope is the curve itself."""
    from sklearn.metrics import average_precision_score

    hits = np.array([True, True, False, True, False, False])
    matched = Matched(np.linspace(0.9, 0.1, 6), hits, np.zeros(6, int), np.array([3]))
    assert average_precision(matched)[0] == pytest.approx(
        average_precision_score(hits, matched.scores)
    )


def test_weights_repeat_images() -> None:
    found, truth = scene(np.random.default_rng(5), 12)
    weights = np.random.default_rng(0).integers(0, 3, (4, 12)).astype(float)
    matched = match_images(found, truth)
    precision = average_precision(matched, weights)
    froc = sensitivities(matched, weights=weights)
    for row, drawn in enumerate(weights.astype(int)):
        places = np.repeat(np.arange(12), drawn)
        again = match_images([found[p] for p in places], [truth[p] for p in places])
        assert precision[row] == pytest.approx(average_precision(again)[0])
        np.testing.assert_allclose(froc[row], sensitivities(again)[0])


def test_froc_by_hand() -> None:
    # Two images, four objects; best first: hit, false, hit, false, false, hit.
    hits = np.array([1, 0, 1, 0, 0, 1], bool)
    image = np.array([0, 0, 1, 1, 0, 1])
    matched = Matched(np.linspace(0.9, 0.1, 6), hits, image, np.array([2, 2]))
    np.testing.assert_allclose(
        sensitivities(matched, (0.25, 0.5, 1.0, 1.5))[0], [0.25, 0.5, 0.5, 0.75]
    )


def test_equal_scores_enter_together() -> None:
    hits = np.array([True, False])
    matched = Matched(np.array([0.5, 0.5]), hits, np.zeros(2, int), np.array([1]))
    assert sensitivities(matched, (0.5,))[0, 0] == 0.0  # no threshold parts them
    assert sensitivities(matched, (1.0,))[0, 0] == 1.0


def test_a_failed_image_lowers_both_scores() -> None:
    found, truth = scene(np.random.default_rng(2), 20)
    patients = list(range(20))
    lost = next(n for n, true in enumerate(truth) if len(true) > 2)
    broken = [(b[:0], s[:0]) if n == lost else (b, s) for n, (b, s) in enumerate(found)]
    whole = detection_scores(match_images(found, truth), patients, label="x", draws=50)
    less = detection_scores(match_images(broken, truth), patients, label="x", draws=50)
    for a, b in zip(whole, less, strict=True):
        assert b.value < a.value
        assert a.low <= a.value <= a.high
        assert (a.n, a.n_patients, a.baseline) == (20, 20, 0.0)


def test_counts_by_hand() -> None:
    predicted, truth = np.array([3, 5, 1, 0]), np.array([3, 4, 4, 2])
    low, high = predicted - 1, np.array([4, 6, np.inf, 1])
    error, coverage = count_scores(
        predicted, truth, list("abcd"), label="cell", constant=3, low=low, high=high,
        failed=np.array([False, False, False, True]), draws=200,
    )  # fmt: skip
    assert error.value == pytest.approx((0 + 1 + 3 + 2) / 4)
    assert error.baseline == pytest.approx((0 + 1 + 1 + 1) / 4)
    assert error.baseline_name == "always 3"
    assert error.low <= error.value <= error.high
    assert coverage.value == pytest.approx(3 / 4)  # the failed image's interval holds nothing


def test_a_failed_image_without_objects_is_wrong_too() -> None:
    (error,) = count_scores(
        np.zeros(2), np.zeros(2), [0, 1], label="x", constant=0, failed=np.array([True, False])
    )
    assert error.value == 0.5


def test_lengths_must_agree() -> None:
    with pytest.raises(UsageError, match="one entry an image: 1 for 2"):
        match_images([(BOX, np.ones(1))], [BOX, BOX])


def test_no_object_at_all_is_undefined() -> None:
    matched = match_images([(BOX, np.ones(1))], [BOX[:0]])
    assert np.isnan(average_precision(matched)[0])
    scores = detection_scores(matched, ["a"], label="x", draws=20)
    assert all(score.value is None for score in scores)
