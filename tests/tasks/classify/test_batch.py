# SPDX-License-Identifier: Apache-2.0
"""Batches: cases of any length side by side, the mean over views, codes of facts."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.tasks.classify.batch import FACTS, Image, fact_codes, make_batch, pad

sys.path.insert(0, str(Path(__file__).parent))
from sets import images


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5), seed=st.integers(0, 999))
def test_a_batch_holds_every_view_of_every_image_in_its_place(
    lengths: list[int], seed: int
) -> None:
    cases = images(lengths, seed, side=3)
    batch = make_batch(cases)
    flat = [image for case in cases for image in case]
    means = (batch.mixing @ batch.views.flatten(1)).numpy()  # (I, pixels)
    wanted = np.stack([image.views.astype(np.float32).mean(axis=0).ravel() for image in flat])
    np.testing.assert_allclose(means, wanted, atol=1e-5)
    np.testing.assert_allclose(batch.mixing.sum(dim=1), 1, rtol=1e-6)
    assert batch.facts.tolist() == [list(image.facts) for image in flat]
    assert batch.present.sum(1).tolist() == lengths
    assert batch.places[batch.present].tolist() == list(range(len(flat)))
    assert batch.views.dtype == batch.mixing.dtype == torch.float32


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_padding_points_to_an_item_that_exists(lengths: list[int]) -> None:
    places, present = pad(lengths)
    assert places.shape == present.shape == (len(lengths), max(lengths))
    assert (places < sum(lengths)).all()
    for row, length in enumerate(lengths):
        start = sum(lengths[:row])
        assert places[row, :length].tolist() == list(range(start, start + length))
        assert present[row].tolist() == [n < length for n in range(max(lengths))]


def test_moving_a_batch_keeps_all_of_it() -> None:
    batch = make_batch(images([1, 2], 0, side=3))
    moved = batch.to(torch.device("meta"))
    for name in ("views", "mixing", "facts", "places", "present"):
        there, here = getattr(moved, name), getattr(batch, name)
        assert there.device.type == "meta"
        assert (there.shape, there.dtype) == (here.shape, here.dtype)


def test_facts_have_codes_in_the_plans_order_and_0_where_unknown() -> None:
    known = {"modality": ["CT", "MR"], "plane": [], "scanner": ["a", "b", "c"]}
    assert FACTS == ("modality", "plane", "scanner")
    assert fact_codes({"modality": "MR", "plane": "axial", "scanner": "c"}, known) == (2, 0, 3)
    assert fact_codes({"modality": "PT", "plane": None, "scanner": ""}, known) == (0, 0, 0)
    assert fact_codes({}, known) == fact_codes({"modality": "CT"}, {}) == (0, 0, 0)


def test_one_image_of_a_volume() -> None:
    batch = make_batch([[Image(np.zeros((1, 1, 4, 4, 4), np.float16), (0, 0, 0))]])
    assert batch.views.shape == (1, 1, 4, 4, 4)
    assert batch.facts.shape == (1, 3)
