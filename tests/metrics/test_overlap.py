# SPDX-License-Identifier: Apache-2.0
"""One case's label map scored: known answers, laws, and MONAI's Dice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.errors import UsageError
from vesalius.metrics import compare_masks, failed_masks

LABELS = {1: "liver", 2: "spleen"}
SPACING = (2.0, 1.0, 5.0)


def maps(seed, shape=(10, 9, 6)):
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 3, shape).astype(np.uint8) for _ in range(2)]


def test_known_answer():
    truth, guess = np.zeros((4, 4, 1), np.uint8), np.zeros((4, 4, 1), np.uint8)
    truth[0, :] = 1  # four voxels
    guess[0, :2] = 1  # two of them
    row = compare_masks(guess, truth, (1.0, 1.0, 10.0), {1: "a"}, 1.0)
    assert row["dice_a"] == pytest.approx(2 / 3)
    assert row["iou_a"] == 0.5
    assert row["nsd_a"] == pytest.approx(5 / 6)  # one of the six border voxels is 2 mm away
    assert row["volume_a"] == pytest.approx(0.04)
    assert row["volume_error_a"] == pytest.approx(-0.02)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_laws(seed):
    guess, truth = maps(seed)
    row = compare_masks(guess, truth, SPACING, LABELS, 1.0)
    swapped = compare_masks(truth, guess, SPACING, LABELS, 1.0)
    for name in LABELS.values():
        dice = row[f"dice_{name}"]
        assert row[f"iou_{name}"] == pytest.approx(dice / (2 - dice))
        assert row[f"volume_error_{name}"] == pytest.approx(-swapped[f"volume_error_{name}"])
        for measure in ("dice", "nsd", "hd95", "lesion_f1"):
            assert row[f"{measure}_{name}"] == pytest.approx(swapped[f"{measure}_{name}"])
    same = compare_masks(truth, truth, SPACING, LABELS)
    assert (same["dice"], same["nsd"], same["hd95"], same["lesion_f1"]) == (1, 1, 0, 1)


def test_dice_equals_monai():
    import torch
    from monai.metrics import compute_dice

    guess, truth = maps(3)
    one_hot = [torch.from_numpy(np.stack([m == v for v in (1, 2)])[None]) for m in (guess, truth)]
    expected = compute_dice(one_hot[0].float(), one_hot[1].float())[0].tolist()
    row = compare_masks(guess, truth, SPACING, LABELS)
    assert [row["dice_liver"], row["dice_spleen"]] == pytest.approx(expected)


def test_lesions_are_counted_by_structure():
    truth, guess = np.zeros((20, 5, 5), np.uint8), np.zeros((20, 5, 5), np.uint8)
    truth[2:5, 1:4, 1:4] = truth[8:11, 1:4, 1:4] = 1
    guess[2:5, 1:4, 1:4] = guess[15:17, 1:4, 1:4] = 1
    guess[8:11, 1:4, 1:4] = 2  # the second lesion, by another name
    row = compare_masks(guess, truth, SPACING, LABELS)
    assert row["lesion_f1_liver"] == pytest.approx(2 * 1 / (2 + 2))
    assert row["lesion_f1_spleen"] == 0
    assert row["lesion_f1"] == pytest.approx(1 / 4)


@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5, 1)])
def test_every_measure_keeps_the_rule_for_empties(shape):
    some, none = np.ones(shape, np.uint8), np.zeros(shape, np.uint8)
    diagonal, volume = np.linalg.norm(np.multiply(SPACING, shape)), some.size * 0.01
    best = {"dice": 1, "iou": 1, "nsd": 1, "hd95": 0, "lesion_f1": 1}
    worst = {"dice": 0, "iou": 0, "nsd": 0, "hd95": diagonal, "lesion_f1": 0}

    def measures(row):
        return {name: row[f"{name}_liver"] for name in (*best, "volume_error")}

    def compared(guess, truth):
        return measures(compare_masks(guess, truth, SPACING, LABELS))

    assert compared(none, none) == pytest.approx({**best, "volume_error": 0})
    assert compared(some, some) == pytest.approx({**best, "volume_error": 0})
    assert compared(some, none) == pytest.approx({**worst, "volume_error": volume})
    assert compared(none, some) == pytest.approx({**worst, "volume_error": -volume})
    for truth, error in ((none, 0), (some, -volume)):
        row = failed_masks(truth, SPACING, LABELS)
        assert measures(row) == pytest.approx({**worst, "volume_error": error})
        assert {name: row[name] for name in worst} == pytest.approx(worst)
        assert set(row) == set(compare_masks(none, truth, SPACING, LABELS))


def test_a_structure_in_one_slice_of_a_3d_image_and_a_missing_one():
    truth, guess = np.zeros((6, 6, 6), np.uint8), np.zeros((6, 6, 6), np.uint8)
    truth[1:5, 1:5, 2], guess[1:5, 1:5, 3] = 1, 1
    row = compare_masks(guess, truth, SPACING, LABELS, 4.9)
    assert row["hd95_liver"] == 5.0
    assert row["nsd_liver"] == 0
    assert row["dice_spleen"] == 1
    guess[0, 0, 0] = 2
    row = compare_masks(guess, truth, SPACING, LABELS)
    assert row["hd95_spleen"] == pytest.approx(np.linalg.norm(np.multiply(SPACING, 6)))


def test_layers_hold_overlapping_structures():
    truth = np.zeros((2, 3, 3, 1), np.uint8)
    truth[0], truth[1, 0] = 1, 2
    row = compare_masks(truth, truth, SPACING, LABELS)
    assert row["volume_liver"] == pytest.approx(9 * 0.01)
    assert row["volume_spleen"] == pytest.approx(3 * 0.01)


def test_refuses_what_does_not_fit():
    guess, truth = maps(0)
    with pytest.raises(UsageError, match="grid"):
        compare_masks(guess[:5], truth, SPACING, LABELS)
    with pytest.raises(UsageError, match="background"):
        compare_masks(guess, truth, SPACING, {0: "background", 1: "x"})
    with pytest.raises(UsageError, match="integers"):
        compare_masks(guess.astype(float), truth, SPACING, LABELS)
