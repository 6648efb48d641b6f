# SPDX-License-Identifier: Apache-2.0
"""Structures that may overlap: each where its own logit is above 0, on another grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vesalius.errors import DataError
from vesalius.tasks.segment.above import Above, labeler
from vesalius.tasks.segment.argmax import Argmax
from vesalius.tasks.segment.doubt import Doubt


@settings(deadline=None, max_examples=25)
@given(st.tuples(*[st.integers(1, 40)] * 3), st.tuples(*[st.integers(1, 70)] * 3), st.booleans())
def test_it_is_pytorchs_own_interpolation_above_zero(planes, voxels, smooth) -> None:
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(3, *planes)).astype(np.float32))
    if smooth:  # large parts where all is certain
        logits = torch.cumsum(logits, 1)
        logits[0, planes[0] // 2 :] += 50
    there = nn.functional.interpolate(logits[None], voxels, mode="trilinear")[0]
    out = np.zeros((3, *voxels), np.uint8)
    Above(out, [4, 5, 6], planes).take(logits, (0, 0, 0))
    for n, value in enumerate((4, 5, 6)):
        sure = (there[n].abs() > 1e-3).numpy()
        assert ((out[n] == value) == (there[n] > 0).numpy())[sure].all()
        assert set(np.unique(out[n])) <= {0, value}


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 99), cut=st.integers(1, 11))
def test_blocks_make_up_the_whole(seed: int, cut: int) -> None:
    logits = torch.randn(2, 12, 6, 5, generator=torch.Generator().manual_seed(seed))
    whole, parts = (np.zeros((2, 31, 9, 5), np.uint8) for _ in range(2))
    Above(whole, [1, 2], (12, 6, 5)).take(logits, (0, 0, 0))
    taking = Above(parts, [1, 2], (12, 6, 5))
    taking.take(logits[:, : cut + 1], (0, 0, 0))
    taking.take(logits[:, cut:], (cut, 0, 0))
    np.testing.assert_array_equal(parts, whole)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 99))
def test_structures_that_are_apart_are_found_as_by_the_largest_class(seed: int) -> None:
    where = torch.randint(0, 3, (6, 5, 4), generator=torch.Generator().manual_seed(seed))
    classes = torch.stack([10.0 * (where == n) - 5 for n in range(3)])
    largest, above = np.zeros((1, 6, 5, 4), np.uint8), np.zeros((2, 6, 5, 4), np.uint8)
    one = labeler(largest, [3, 7], (6, 5, 4), regions=False)
    other = labeler(above, [3, 7], (6, 5, 4), regions=True)
    assert isinstance(one, Argmax)
    one.take(classes, (0, 0, 0))
    other.take(classes[1:], (0, 0, 0))
    np.testing.assert_array_equal(above.max(axis=0), largest[0])


def test_an_answer_that_is_no_number_is_refused() -> None:
    logits = torch.full((2, 4, 4, 4), float("nan"))
    with pytest.raises(DataError, match="not a number"):
        Above(np.zeros((2, 4, 4, 4), np.uint8), [1, 2], (4, 4, 4)).take(logits, (0, 0, 0))


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 99), scale=st.floats(0.1, 9.0))
def test_the_expected_dice_of_each_is_that_of_its_own_probabilities(seed, scale) -> None:
    logits = scale * torch.randn(3, 5, 4, 3, generator=torch.Generator().manual_seed(seed))
    doubt = Doubt.of({"labels": ["a", "b", "c"], "regions": True})
    doubt.take(logits[:, :3], (0, 0, 0))
    doubt.take(logits[:, 2:], (2, 0, 0))
    p = torch.sigmoid(logits.double()).flatten(1).numpy()
    for n, value in enumerate(doubt.expected_dice()):
        inside = p[n] > 0.5
        by_hand = 2 * p[n][inside].sum() / (p[n].sum() + inside.sum())
        assert value == pytest.approx(by_hand if inside.any() else 1 - p[n].max(), abs=1e-5)
