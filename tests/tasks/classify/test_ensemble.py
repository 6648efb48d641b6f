# SPDX-License-Identifier: Apache-2.0
"""Ensemble selection: weights are shares, greedy is no worse than the best, order is nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import log_loss, mean_squared_error

from vesalius.tasks.classify import ensemble
from vesalius.tasks.classify.ensemble import LEAST, losses, mix, select

sys.path.insert(0, str(Path(__file__).parent))
from sets import TARGETS

N = 40
SEEDS = st.integers(0, 9999)


def members(kind: str, seed: int, count: int, n: int = N) -> tuple[list[np.ndarray], list[str]]:
    """Return the answers of members of differing skill, and the truths."""
    target, rng = TARGETS[kind], np.random.default_rng(seed)
    k = max(1, len(target.classes))
    if kind == "regression":
        said = rng.normal(10, 2, n)
        tables = [said[:, None] + rng.normal(0, s, (n, 1)) for s in rng.uniform(0.5, 3, count)]
        return tables, [repr(float(value)) for value in said]
    codes = rng.integers(0, 2, (n, k)) if kind == "multilabel" else rng.integers(0, k, n)
    hot = codes if kind == "multilabel" else np.eye(k)[codes]
    logits = [
        skill * (2 * hot - 1) + rng.normal(0, 1, (n, k)) for skill in rng.uniform(-0.2, 1.5, count)
    ]
    if kind != "multilabel":
        return [softmax(x, axis=1) for x in logits], [target.classes[c] for c in codes]
    said = []
    for row in codes:
        marks = ["?" if rng.random() < 0.2 else "" for _ in row]
        marks[0] = ""  # something is known of every case
        held = zip(target.classes, row, marks, strict=True)
        said.append("; ".join(m + name for name, there, m in held if there or m))
    return [1 / (1 + np.exp(-x)) for x in logits], said


@pytest.mark.parametrize("kind", TARGETS)
@settings(max_examples=6, deadline=None)
@given(seed=SEEDS, count=st.integers(1, 6))
def test_weights_are_shares_and_small_ones_are_left_out(kind: str, seed: int, count: int) -> None:
    tables, said = members(kind, seed, count)
    weights = select(tables, said, list(range(N)), TARGETS[kind])
    assert weights.shape == (count,)
    assert weights.sum() == pytest.approx(1)
    assert all(weight == 0 or weight >= LEAST for weight in weights)
    np.testing.assert_array_equal(select(tables, said, list(range(N)), TARGETS[kind]), weights)


@pytest.mark.parametrize("kind", TARGETS)
@settings(max_examples=6, deadline=None)
@given(seed=SEEDS)
def test_greedy_selection_is_not_worse_than_the_best_member(kind: str, seed: int) -> None:
    target = TARGETS[kind]
    tables, said = members(kind, seed, 5)
    codes = target.encode(said)
    # One draw is of all rows. (Bagged draws give some of this up, on purpose.)
    with mock.patch.object(ensemble, "DRAWS", 1):
        weights = select(tables, said, list(range(N)), target)
    each = np.array([losses(table, codes, target).mean() for table in tables])
    assert losses(mix(tables, weights), codes, target).mean() <= each.min() + 1e-9


@pytest.mark.parametrize("kind", TARGETS)
def test_bagged_selection_gains_on_rows_and_patients_that_it_never_saw(kind: str) -> None:
    target, gains = TARGETS[kind], []
    for seed in range(4):
        tables, said = members(kind, seed, 8, 4 * N)
        codes = target.encode(said)
        half = slice(0, 2 * N), slice(2 * N, None)
        weights = select([t[half[0]] for t in tables], said[half[0]], list(range(2 * N)), target)
        fresh = [losses(t[half[1]], codes[half[1]], target).mean() for t in tables]
        mixed = losses(mix([t[half[1]] for t in tables], weights), codes[half[1]], target).mean()
        assert mixed < np.mean(fresh)
        gains.append(min(fresh) - mixed)
    assert np.mean(gains) > -0.02


@pytest.mark.parametrize("kind", TARGETS)
@settings(max_examples=6, deadline=None)
@given(seed=SEEDS)
def test_the_order_of_members_does_not_matter(kind: str, seed: int) -> None:
    tables, said = members(kind, seed, 5)
    order = np.random.default_rng(seed).permutation(5)
    weights = select(tables, said, list(range(N)), TARGETS[kind])
    moved = select([tables[n] for n in order], said, list(range(N)), TARGETS[kind])
    np.testing.assert_allclose(moved, weights[order], atol=1e-12)


def test_identical_members_answer_as_one() -> None:
    tables, said = members("multiclass", 0, 1)
    weights = select(tables * 4, said, list(range(N)), TARGETS["multiclass"])
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(mix(tables * 4, weights), tables[0])


def halves() -> tuple[list[np.ndarray], list[str]]:
    """Return a member that knows the first half of the cases, one the second, one contradicts."""
    codes = np.arange(N) % 2
    hot, even = np.eye(2)[codes], np.full((N, 2), 0.5)
    early = (np.arange(N) < N // 2)[:, None]
    known = 0.8 * hot + 0.1
    tables = [np.where(early, known, even), np.where(early, even, known), 1 - known]
    return tables, [TARGETS["binary"].classes[c] for c in codes]


def test_a_contradicting_member_weighs_nothing_and_two_halves_share() -> None:
    tables, said = halves()
    weights = select(tables, said, list(range(N)), TARGETS["binary"])
    assert weights[2] == 0
    assert weights[:2].min() > 0.35


def test_draws_are_of_patients(monkeypatch: pytest.MonkeyPatch) -> None:
    # All rows of one patient: every draw is the rows themselves, as if there were one draw.
    tables, said = halves()
    target = TARGETS["binary"]
    whole = select(tables, said, ["p"] * N, target)
    spread = select(tables, said, list(range(N)), target)
    monkeypatch.setattr(ensemble, "DRAWS", 1)
    np.testing.assert_allclose(select(tables, said, list(range(N)), target), whole)
    assert not np.allclose(whole, spread)


def test_losses_are_those_of_scikit_learn() -> None:
    tables, said = members("multiclass", 1, 1)
    target = TARGETS["multiclass"]
    found = losses(tables[0], target.encode(said), target)
    assert found.shape == (N,)
    assert found.mean() == pytest.approx(log_loss(said, tables[0], labels=list(target.classes)))

    tables, said = members("regression", 1, 1)
    target = TARGETS["regression"]
    wanted = mean_squared_error([float(v) for v in said], tables[0][:, 0]) / target.unit_sd**2
    assert losses(tables[0], target.encode(said), target).mean() == pytest.approx(wanted, rel=1e-5)

    target = TARGETS["multilabel"]
    table = np.array([[0.9, 0.3], [0.2, 0.6], [0.5, 0.5]])
    found = losses(table, target.encode(["edema", "?edema; nodule", ""]), target)
    wanted = [-(np.log(0.9) + np.log(0.7)) / 2, -np.log(0.6), -np.log(0.5)]
    np.testing.assert_allclose(found, wanted)


def test_many_tables_at_once_and_certainty_that_is_wrong() -> None:
    target = TARGETS["binary"]
    stack = np.array([[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.1, 0.9]]])
    found = losses(stack, np.array([1, 1]), target)
    np.testing.assert_allclose(found, -np.log([[1e-4, 0.5], [1.0, 0.9]]))  # bounded
