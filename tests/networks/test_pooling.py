# SPDX-License-Identifier: Apache-2.0
"""Pooling: order, neighbors and padding do not change the answer; weights are shares."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.errors import UsageError
from vesalius.networks.pooling import (
    POOLINGS,
    GatedAttention,
    SetTransformer,
    build_pooling,
)

FEATURES = 8
LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=4)


def pooling(name: str) -> torch.nn.Module:
    """Return a pooling whose every part matters; attention begins as the mean otherwise."""
    torch.manual_seed(0)
    module = build_pooling(name, FEATURES).eval()
    if isinstance(module, GatedAttention):
        torch.nn.init.normal_(module.score.weight)
    return module


def batch(lengths: list[int], seed: int, *, more: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return items with rubbish where there is padding, `more` cells of it added, and present."""
    rng = np.random.default_rng(seed)
    sets = [rng.normal(size=(length, FEATURES)) for length in lengths]
    items = np.full((len(lengths), max(lengths) + more, FEATURES), 1e4)
    present = np.zeros(items.shape[:2], bool)
    for row, one in enumerate(sets):
        items[row, : len(one)], present[row, : len(one)] = one, True
    return torch.tensor(items, dtype=torch.float32), torch.tensor(present)


@pytest.mark.parametrize("grad", [False, True])  # PyTorch has a path of its own without gradients
@pytest.mark.parametrize("name", POOLINGS)
@settings(max_examples=15, deadline=None)
@given(lengths=LENGTHS, seed=st.integers(0, 999), more=st.integers(0, 3))
def test_padding_and_neighbors_leak_nothing(
    name: str, grad: bool, lengths: list[int], seed: int, more: int
) -> None:
    module = pooling(name)
    items, present = batch(lengths, seed, more=more)
    with torch.set_grad_enabled(grad):
        together, weights = module(items, present)
        assert together.shape == (len(lengths), FEATURES)
        for row, length in enumerate(lengths):
            alone, own = module(items[row : row + 1, :length], present[row : row + 1, :length])
            torch.testing.assert_close(together[row], alone[0], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(weights[row, :length], own[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", POOLINGS)
@settings(max_examples=15, deadline=None)
@given(lengths=LENGTHS, seed=st.integers(0, 999))
def test_weights_are_shares_of_what_is_present(name: str, lengths: list[int], seed: int) -> None:
    items, present = batch(lengths, seed, more=1)
    with torch.no_grad():
        _, weights = pooling(name)(items, present)
    assert weights.shape == present.shape
    assert (weights[~present] == 0).all()
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(len(lengths)))


@pytest.mark.parametrize("name", POOLINGS)
@settings(max_examples=15, deadline=None)
@given(length=st.integers(1, 7), seed=st.integers(0, 999))
def test_the_order_of_items_does_not_matter(name: str, length: int, seed: int) -> None:
    module = pooling(name)
    items, present = batch([length], seed)
    order = torch.from_numpy(np.random.default_rng(seed + 1).permutation(length))
    with torch.no_grad():
        pooled, weights = module(items, present)
        moved, moved_weights = module(items[:, order], present)
    torch.testing.assert_close(moved, pooled, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(moved_weights, weights[:, order], rtol=1e-4, atol=1e-5)


def test_answers_known_by_hand() -> None:
    items = torch.tensor([[[1.0, 4.0], [3.0, 2.0], [9.0, 9.0]]])
    present = torch.tensor([[True, True, False]])
    pooled, weights = build_pooling("mean", 2)(items, present)
    assert pooled.tolist() == [[2.0, 3.0]]
    assert weights.tolist() == [[0.5, 0.5, 0.0]]
    pooled, weights = build_pooling("max", 2)(items, present)
    assert pooled.tolist() == [[3.0, 4.0]]
    assert weights.tolist() == [[0.5, 0.5, 0.0]]  # one feature each
    pooled, weights = build_pooling("max", 2)(items - 20, present)  # all below zero
    assert pooled.tolist() == [[-17.0, -16.0]]


def test_untrained_attention_is_the_mean_and_a_trained_one_finds_the_item() -> None:
    items, present = batch([3, 5], 0)
    torch.manual_seed(0)
    attention = build_pooling("attention", FEATURES)
    pooled, _ = attention(items, present)
    torch.testing.assert_close(pooled, build_pooling("mean", FEATURES)(items, present)[0])
    # The item with a large first feature decides: sets hold one at a random place.
    rng = np.random.default_rng(0)
    sets = rng.normal(size=(64, 5, FEATURES)).astype(np.float32)
    place = rng.integers(0, 5, 64)
    sets[np.arange(64), place, 0] = 6.0
    wanted = torch.from_numpy(sets[np.arange(64), place, 1])
    here = torch.ones(64, 5, dtype=torch.bool)
    optimizer = torch.optim.Adam(attention.parameters(), 0.02)
    for _ in range(100):
        pooled, weights = attention(torch.from_numpy(sets), here)
        loss = (pooled[:, 1] - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert weights.detach().numpy()[np.arange(64), place].mean() > 0.9


def test_the_set_transformer_sees_pairs_that_a_mean_cannot() -> None:
    # Whether two items are equal is no function of either alone.
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 4, (256, 2))
    items = torch.eye(4, FEATURES)[torch.from_numpy(kinds)] * 2
    truth = torch.from_numpy((kinds[:, 0] == kinds[:, 1]).astype(np.float32))
    present = torch.ones(256, 2, dtype=torch.bool)
    torch.manual_seed(0)
    transformer = SetTransformer(FEATURES)
    layer = torch.nn.Linear(FEATURES, 1)
    optimizer = torch.optim.Adam([*transformer.parameters(), *layer.parameters()], 0.01)
    for _ in range(80):
        logits = layer(transformer(items, present)[0])[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert ((logits > 0) == (truth > 0)).float().mean() > 0.97


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(UsageError, match="one of mean, max, attention, transformer, got 'sum'"):
        build_pooling("sum", 4)
