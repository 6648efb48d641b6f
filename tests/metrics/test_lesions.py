# SPDX-License-Identifier: Apache-2.0
"""Lesions matched by hand, by a dense solver, and against the components of two libraries."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from skimage.measure import label

from vesalius.errors import UsageError
from vesalius.metrics.lesions import match_lesions

SPACING = (2.0, 1.0, 5.0)
SEEDS = st.integers(0, 100_000)
SHAPES = st.sampled_from([(9, 8, 7), (30, 1, 24), (1, 40, 20), (24, 25, 1), (6, 1, 1)])


def blobs(seed, shape, density=0.3):
    """A random mask of many blobs and another that shares most of them."""
    generator = np.random.default_rng(seed)
    fields = [
        ndimage.gaussian_filter(generator.normal(size=shape), 0.7 * (np.array(shape) > 1))
        for _ in range(2)
    ]
    mixed = fields[0] + 0.6 * fields[1]
    return mixed > np.quantile(mixed, 1 - density), fields[0] > np.quantile(fields[0], 1 - density)


def row_of(*places, shape=(40, 5, 5)):
    """A mask with blocks of 3 x 3 voxels from `start` to `stop` along i."""
    mask = np.zeros(shape, bool)
    for start, stop in places:
        mask[start:stop, 1:4, 1:4] = True
    return mask


def counts(found):
    return found.found, found.missed, found.false_alarms


def expected(prediction, truth, iou):
    """(truths, predictions, Dice of the pairs) from scikit-image and SciPy's dense solver."""
    true, guess = (label(mask, connectivity=3) for mask in (truth, prediction))
    table = np.zeros((true.max(), guess.max()))  # Dice of what may be paired
    for a, b in itertools.product(range(true.max()), range(guess.max())):
        x, y = true == a + 1, guess == b + 1
        if (x & y).sum() / (x | y).sum() >= iou:
            table[a, b] = 2 * (x & y).sum() / (x.sum() + y.sum())
    pairs = table[linear_sum_assignment(table + 1e-6 * (table > 0), maximize=True)]
    return *table.shape, pairs[pairs > 0]


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, shape=SHAPES, iou=st.sampled_from([0.02, 0.1, 0.3, 0.6]))
def test_equals_a_dense_assignment_of_scikit_images_components(seed, shape, iou):
    prediction, truth = blobs(seed, shape)
    found = match_lesions(prediction, truth, SPACING, iou=iou)
    truths, predictions, dices = expected(prediction, truth, iou)
    pairs, total = len(dices), dices.sum()
    assert (found.truths, found.predictions, found.found) == (truths, predictions, pairs)
    assert found.dices.sum() == pytest.approx(total)
    if truths:
        assert found.dice == pytest.approx(total / (truths + predictions - pairs))
        assert found.recall == pytest.approx(pairs / truths)
        assert found.precision == pytest.approx(pairs / predictions)
        assert found.f1 == pytest.approx(2 * pairs / (truths + predictions))


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, shape=SHAPES, density=st.floats(0.0, 1.0))
def test_counts_as_many_lesions_as_scipy_labels(seed, shape, density):
    mask = np.random.default_rng(seed).random(shape) < density
    _, count = ndimage.label(mask, np.ones((3, 3, 3)))
    assert match_lesions(mask, mask, SPACING).truths == count


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, shape=SHAPES)
def test_a_mask_with_itself_is_perfect_and_a_swap_swaps_misses_with_false_alarms(seed, shape):
    prediction, truth = blobs(seed, shape)
    same = match_lesions(truth, truth, SPACING)
    assert (same.f1, same.dice, same.precision, same.recall) == (1, 1, 1, 1)
    found = match_lesions(prediction, truth, SPACING)
    swapped = match_lesions(truth, prediction, SPACING)
    assert (swapped.found, swapped.missed, swapped.false_alarms) == (
        found.found, found.false_alarms, found.missed,
    )  # fmt: skip
    assert swapped.f1 == found.f1
    assert swapped.dice == pytest.approx(found.dice)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, order=st.permutations(range(3)), flips=st.tuples(*[st.booleans()] * 3))
def test_order_and_direction_of_axes_change_nothing(seed, order, flips):
    masks = blobs(seed, (9, 8, 7))
    turn = tuple(slice(None, None, -1 if flip else 1) for flip in flips)
    turned = [mask[turn].transpose(order) for mask in masks]
    a, b = match_lesions(*masks, SPACING), match_lesions(*turned, SPACING)
    assert counts(a) == counts(b)
    assert a.dice == pytest.approx(b.dice)


def test_a_corner_joins_and_a_gap_or_the_other_edge_does_not():
    mask = np.zeros((4, 4, 4), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True
    assert match_lesions(mask, mask, SPACING).truths == 1
    mask[1, 1, 1], mask[2, 0, 0] = False, True
    assert match_lesions(mask, mask, SPACING).truths == 2
    edges = np.zeros((4, 6, 6), bool)
    edges[0, 0, 5] = edges[0, 1, 0] = edges[2, 5, 3] = edges[3, 0, 3] = True
    assert match_lesions(edges, edges, SPACING).truths == 4
    flat = np.eye(4, dtype=bool)[:, :, None]  # eight neighbors in two dimensions
    assert match_lesions(flat, flat, SPACING).truths == 1


def test_one_blob_over_two_lesions_finds_one():
    found = match_lesions(row_of((2, 14)), row_of((2, 6), (8, 14)), SPACING)
    assert counts(found) == (1, 1, 0)
    assert (found.precision, found.recall, found.f1) == (1, 1 / 2, pytest.approx(2 / 3))
    assert found.dices == pytest.approx([2 * 6 / 18])  # with the larger one
    assert found.dice == pytest.approx(12 / 18 / 2)


def test_a_lesion_in_two_pieces_is_found_once_with_a_false_alarm():
    found = match_lesions(row_of((2, 6), (8, 14)), row_of((2, 14)), SPACING)
    assert counts(found) == (1, 0, 1)
    assert (found.precision, found.recall, found.f1) == (1 / 2, 1, pytest.approx(2 / 3))


def test_a_chain_is_paired_as_a_whole_and_not_greedily():
    truth, prediction = row_of((10, 20), (21, 28)), row_of((8, 11), (12, 28))
    # The greedy choice takes the largest overlap, 8 of 18, and then the other two find nothing.
    found = match_lesions(prediction, truth, SPACING, iou=1 / 12)
    assert counts(found) == (2, 0, 0)
    assert sorted(found.dices) == pytest.approx([2 * 1 / 13, 2 * 7 / 23])


def test_overlap_below_the_threshold_finds_nothing():
    truth, prediction = row_of((0, 10)), row_of((9, 19))  # one of 19 slices is shared
    assert counts(match_lesions(prediction, truth, SPACING)) == (0, 1, 1)
    assert match_lesions(prediction, truth, SPACING).f1 == 0
    assert counts(match_lesions(prediction, truth, SPACING, iou=1 / 19)) == (1, 0, 0)
    assert counts(match_lesions(row_of((0, 1)), truth, SPACING)) == (1, 0, 0)  # exactly 0.1


def test_lesions_below_the_least_volume_are_left_out_on_both_sides():
    truth = row_of((0, 1), (5, 10), (12, 13))  # 9, 45 and 9 voxels of 10 mm³
    prediction = row_of((0, 2), (5, 6), (20, 21), (30, 32))
    assert counts(match_lesions(prediction, truth, SPACING)) == (2, 1, 2)
    # 18 voxels found a lesion that is left out; 9 voxels found one that counts; 9 found nothing.
    found = match_lesions(prediction, truth, SPACING, least_mm3=100)
    assert counts(found) == (1, 0, 1)
    assert found.dices == pytest.approx([2 * 9 / 54])
    spacing = tuple(float(np.float32(edge * 0.1)) for edge in SPACING)  # of a file in single
    kept = match_lesions(row_of((0, 1)), row_of((0, 1)), spacing, least_mm3=0.09)
    assert kept.truths == 1
    assert match_lesions(row_of((0, 1)), row_of((0, 1)), SPACING, least_mm3=90.1).f1 == 1


def test_both_empty_is_best_and_one_empty_is_worst():
    some, none = row_of((2, 4)), row_of()
    neither = match_lesions(none, none, SPACING)
    assert (neither.f1, neither.dice, neither.precision, neither.recall) == (1, 1, 1, 1)
    for prediction, truth in ((some, none), (none, some)):
        found = match_lesions(prediction, truth, SPACING)
        assert (found.f1, found.dice, found.precision, found.recall) == (0, 0, 0, 0)


def test_a_large_image_with_few_lesions_takes_no_map_of_labels():
    import tracemalloc

    truth = np.zeros((256, 256, 200), bool)
    truth[5:9, 5:9, 3:9] = truth[250:254, 250:254, 190:195] = True
    prediction = np.roll(truth, 1, 0)
    tracemalloc.start()
    found = match_lesions(prediction, truth, SPACING)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert counts(found) == (2, 0, 0)
    assert peak < truth.size / 4  # bytes; a map of labels takes 4 a voxel


def test_refuses_what_does_not_fit():
    mask = row_of((2, 4))
    with pytest.raises(UsageError, match="one grid"):
        match_lesions(mask[:5], mask, SPACING)
    with pytest.raises(UsageError, match="one grid"):
        match_lesions(mask[0], mask[0], SPACING)
    for iou in (0, 1.1, np.nan):
        with pytest.raises(UsageError, match="iou must be above 0"):
            match_lesions(mask, mask, SPACING, iou=iou)
    for least in (-1, np.nan, np.inf):
        with pytest.raises(UsageError, match="least_mm3 must be"):
            match_lesions(mask, mask, SPACING, least_mm3=least)
