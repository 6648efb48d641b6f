# SPDX-License-Identifier: Apache-2.0
"""A network with two axes sees the slices beside its own, in training and in use alike."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.tasks.segment.neighbors import image_channels, plan_neighbors, with_neighbors
from vesalius.tasks.segment.patches import draw
from vesalius.tasks.segment.slide import lay_out, slide

DECISIONS = {
    "patch": [6, 4], "overlap": 0.5, "neighbors": 1, "forced_foreground": 1 / 3,
    "network": {"spatial_dims": 2, "in_channels": 6},
}  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(st.integers(2, 9), st.integers(2, 9), st.integers(1, 5)),
    seed=st.integers(0, 99), wanted=st.integers(0, 5),
)  # fmt: skip
def test_each_slice_is_answered_from_its_neighbors(shape, seed: int, wanted: int) -> None:
    image = np.random.default_rng(seed).normal(size=(2, *shape)).astype(np.float32)
    channel, step = wanted // 3, wanted % 3 - 1  # what the network answers with
    layout = lay_out(shape, DECISIONS, classes=1, memory=1 << 30)
    out = np.full((1, *shape), np.nan, np.float32)

    def take(block, corner) -> None:
        there = tuple(slice(c, c + n) for c, n in zip(corner, block.shape[1:], strict=True))
        out[(slice(None), *there)] = block.numpy()

    slide(lambda x: x[:, wanted : wanted + 1], image, layout, take)
    places = np.clip(np.arange(shape[2]) + step, 0, shape[2] - 1)
    np.testing.assert_allclose(out[0], image[channel][..., places], rtol=1e-5, atol=1e-6)


def test_a_patch_of_training_is_a_window_of_use() -> None:
    image = np.random.default_rng(0).normal(size=(2, 6, 4, 5)).astype(np.float32)
    label = np.zeros((6, 4, 5), np.uint8)
    label[2, 2] = 1 + np.arange(5)  # says which slice was drawn
    prepared = SimpleNamespace(
        image=lambda _: image, label=lambda _: label, spots=lambda _: np.empty((0, 4), int)
    )
    x, y = draw(prepared, ["a"] * 20, DECISIONS, 1, np.random.default_rng(0))
    assert x.shape == (20, 6, 6, 4)
    assert y.shape == (20, 6, 4)
    slices = y[:, 2, 2] - 1
    assert set(slices) == set(range(5))
    for patch, place in zip(x, slices, strict=True):
        np.testing.assert_array_equal(patch, with_neighbors(image, place, 1)[..., 0])
        np.testing.assert_array_equal(patch[1], image[0, ..., place])  # its own slice
    layout = lay_out((6, 4, 5), DECISIONS, classes=1, memory=1 << 30)
    seen: list[torch.Tensor] = []
    slide(lambda w: seen.append(w) or w[:, :1], image, layout, lambda *_: None)
    windows = {tuple(w.flatten().tolist()) for w in torch.cat(seen)}
    assert {tuple(patch.ravel().tolist()) for patch in x} == windows


@pytest.mark.parametrize(
    ("dims", "depth", "color", "wanted"),
    [(2, 1, False, 0), (2, 2, False, 0), (2, 5, False, 1), (2, 5, True, 0), (3, 40, False, 0)],
)
def test_neighbors_are_for_thin_volumes(dims, depth, color, wanted) -> None:
    found = {"spatial_dims": dims, "median_shape": [64, 64, depth]}
    assert plan_neighbors(found, color=color) == wanted


def test_the_images_own_channels_are_counted() -> None:
    assert image_channels(DECISIONS) == 2
    assert image_channels({"network": {"in_channels": 3}}) == 3
