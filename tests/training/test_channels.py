# SPDX-License-Identifier: Apache-2.0
"""Channels are left out at random, never all of an image."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.training.channels import drop_channels


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 99), count=st.integers(1, 9), channels=st.integers(1, 4),
    probability=st.floats(0, 1),
)  # fmt: skip
def test_a_channel_is_kept_whole_or_is_zero_and_one_is_left(
    seed: int, count: int, channels: int, probability: float
) -> None:
    images = 1 + torch.rand(count, channels, 3, 4)
    out = drop_channels(images, probability, np.random.default_rng(seed))
    kept = (out == images).flatten(2).all(2)
    gone = (out == 0).flatten(2).all(2)
    assert (kept ^ gone).all()
    assert kept.any(1).all()


def test_as_many_are_left_out_as_was_asked() -> None:
    images = torch.ones(4000, 4, 1)
    out = drop_channels(images, 0.1, np.random.default_rng(0))
    assert abs(float((out == 0).float().mean()) - 0.1) < 0.01


def test_a_channel_that_is_seen_in_several_slices_goes_as_one() -> None:
    images = torch.ones(500, 6, 2)
    out = drop_channels(images, 0.3, np.random.default_rng(0), slices=3)
    slices = out[..., 0].reshape(500, 2, 3)
    assert (slices == slices[..., :1]).all()
    assert 0 < int((slices[:, 0, 0] == 0).sum()) < 500
    assert (slices[..., 0].sum(1) >= 1).all()
