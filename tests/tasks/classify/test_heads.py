# SPDX-License-Identifier: Apache-2.0
"""Heads: order, neighbors and padding change nothing; independent answers; every kind of target."""

from __future__ import annotations

import math
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from vesalius.tasks.balance import balancing
from vesalius.tasks.classify import heads
from vesalius.tasks.classify.crossfit import answers
from vesalius.tasks.classify.ensemble import losses
from vesalius.tasks.classify.heads import Embedded, _thinned, fit_head, new_head
from vesalius.tasks.targets import Target

sys.path.insert(0, str(Path(__file__).parent))
from sets import FACTS, FEATURES, HEADS, TARGETS, name_of, sets, truths

BY_NAME = {name_of(spec): spec for spec in HEADS}
LENGTHS = st.lists(st.integers(1, 5), min_size=1, max_size=4)
MANY = [1 + n % 3 for n in range(90)]


@cache
def fitted(name: str, kind: str = "binary", seed: int = 0) -> torch.nn.Module:
    """Return a head that was fitted on 90 cases."""
    spec, target = BY_NAME[name], TARGETS[kind]
    cases = sets(MANY, 1)
    head = new_head(spec, FEATURES, FACTS, target)
    return fit_head(head, spec, cases, truths(cases, target), target, None, seed)


def row(name: str, cases: Embedded, place: int) -> np.ndarray:
    return answers(fitted(name), cases.take([place]), TARGETS["binary"])[0]


@pytest.mark.parametrize("name", BY_NAME)
@settings(max_examples=6, deadline=None)
@given(lengths=LENGTHS, seed=st.integers(0, 999))
def test_a_batch_equals_one_by_one_and_padding_leaks_nothing(
    name: str, lengths: list[int], seed: int
) -> None:
    cases = sets([*lengths, 9], seed)  # the last one makes the others' padding
    together = answers(fitted(name), cases, TARGETS["binary"])
    alone = np.stack([row(name, cases, place) for place in range(len(cases.lengths))])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(together.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("name", BY_NAME)
@settings(max_examples=6, deadline=None)
@given(length=st.integers(2, 6), seed=st.integers(0, 999))
def test_the_order_of_images_does_not_matter(name: str, length: int, seed: int) -> None:
    cases = sets([length], seed)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(length))
    turned = Embedded(cases.items[order], cases.facts[order], cases.lengths)
    np.testing.assert_allclose(row(name, turned, 0), row(name, cases, 0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BY_NAME)
def test_images_of_which_nothing_is_known_are_answered_for(name: str) -> None:
    cases = sets([1, 4, 2], 3)
    blank = Embedded(cases.items, torch.zeros_like(cases.facts), cases.lengths)
    found = answers(fitted(name), blank, TARGETS["binary"])
    assert np.isfinite(found).all()
    if name.startswith("knn"):  # the only head that does not look at them
        return
    assert not np.allclose(found, answers(fitted(name), cases, TARGETS["binary"]), atol=1e-6)


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("name", BY_NAME)
def test_every_head_learns_every_kind_of_target(name: str, kind: str) -> None:
    target, new = TARGETS[kind], sets([2] * 80, 2)
    said = truths(new, target)
    found = answers(fitted(name, kind), new, target)
    assert found.shape == (80, max(1, len(target.classes)))
    codes = target.encode(said)
    if kind == "regression":
        constant = np.full((80, 1), target.unit_mean)
    elif kind == "multilabel":
        constant = np.tile(np.nanmean(codes, axis=0), (80, 1))
    else:
        constant = np.tile(np.bincount(codes) / 80, (80, 1))
        np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    known, trivial = losses(found, codes, target).mean(), losses(constant, codes, target).mean()
    assert known < 0.95 * trivial


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
@pytest.mark.parametrize("penalty", [0.01, 0.3])
def test_the_linear_head_is_scikit_learns_logistic_regression(kind: str, penalty: float) -> None:
    target, spec = TARGETS[kind], {"head": "logistic", "pooling": "mean", "penalty": penalty}
    cases, new = sets(MANY, 4), sets([1, 2, 3] * 10, 5)
    said = truths(cases, target)
    said[::6] = [target.classes[n % 2] for n in range(15)]  # not separable
    head = fit_head(new_head(spec, FEATURES, FACTS, target), spec, cases, said, target, None, 0)

    def table(given: Embedded) -> np.ndarray:
        rows = []
        start = 0
        for length in given.lengths:
            images, facts = given.items[start : start + length], given.facts[start : start + length]
            shares = [
                (facts[:, column] == code).float().mean()
                for column, known in enumerate(FACTS)
                for code in range(1, known + 1)
            ]
            rows.append([*images.mean(0).tolist(), *map(float, shares)])
            start += length
        return np.array(rows)

    train = table(cases)
    center, width = train.mean(axis=0), train.std(axis=0, ddof=1)
    # Mean loss + penalty/2 |w|^2. Of two classes ours has two opposite vectors, theirs one.
    strength = (2 if kind == "binary" else 1) / (penalty * len(said))
    theirs = LogisticRegression(C=strength, tol=1e-8, max_iter=1000)
    theirs.fit((train - center) / width, target.encode(said))
    wanted = theirs.predict_proba((table(new) - center) / width)
    np.testing.assert_allclose(answers(head, new, target), wanted, atol=1e-2)
    assert wanted.std(axis=0).min() > 0.05


@pytest.mark.parametrize("kind", TARGETS)
def test_votes_of_neighbors_equal_a_loop(kind: str) -> None:
    target, new = TARGETS[kind], sets([1, 3, 2, 5], 6)
    cases = sets(MANY, 1)
    said = truths(cases, target)

    def means(given: Embedded) -> list[np.ndarray]:
        parts = given.items.double().split(list(given.lengths))
        return [part.mean(0).numpy() for part in parts]

    bank = means(cases)
    center = np.mean(bank, axis=0)
    codes = target.encode(said).astype(float)
    wanted = []
    for mean in means(new):
        cosines = []
        for other in bank:
            a, b = mean - center, other - center
            cosines.append(a @ b / math.sqrt(a @ a) / math.sqrt(b @ b))
        nearest = sorted(range(len(bank)), key=lambda n: -cosines[n])[: BY_NAME["knn-mean"]["k"]]
        strength = [math.exp(cosines[n] / 0.07) for n in nearest]
        answer = np.zeros(max(1, len(target.classes)))
        for n, weight in zip(nearest, strength, strict=True):
            if kind == "regression":
                vote = np.array([float(said[n])])
            elif kind == "multilabel":  # an unknown label votes as the mean of the known ones
                vote = np.where(np.isnan(codes[n]), np.nanmean(codes, axis=0), codes[n])
            else:
                vote = np.eye(len(target.classes))[int(codes[n])]
            answer += weight / sum(strength) * vote
        wanted.append(answer)
    found = answers(fitted("knn-mean", kind), new, target)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_fewer_cases_than_neighbors_all_vote() -> None:
    target, spec = TARGETS["binary"], {"head": "knn", "pooling": "mean", "k": 25}
    cases = sets([1, 2], 0)
    head = fit_head(
        new_head(spec, FEATURES, FACTS, target), spec, cases, ["no", "yes"], target, None, 0
    )
    np.testing.assert_allclose(answers(head, sets([3], 1), target).sum(), 1, rtol=1e-6)


@pytest.mark.parametrize("name", ["mlp-attention", "mlp-transformer"])
def test_a_small_network_depends_on_its_seed_alone(name: str) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = fitted.__wrapped__(name, seed=3)
    torch.set_rng_state(before)
    torch.rand(7)  # what was drawn before does not matter
    two, other = fitted.__wrapped__(name, seed=3), fitted.__wrapped__(name, seed=4)
    new = sets([2, 3], 8)
    target = TARGETS["binary"]
    np.testing.assert_array_equal(answers(one, new, target), answers(two, new, target))
    assert not np.allclose(answers(one, new, target), answers(other, new, target), atol=1e-4)


def test_fitting_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    spec, target, cases = BY_NAME["mlp-max"], TARGETS["binary"], sets([2] * 8, 0)
    head = new_head(spec, FEATURES, FACTS, target)
    before = torch.get_rng_state()
    fit_head(head, spec, cases, truths(cases, target), target, None, 0)
    assert torch.equal(torch.get_rng_state(), before)
    assert not head.training


def test_weights_of_classes_raise_the_rare_class() -> None:
    target, spec = TARGETS["binary"], BY_NAME["logistic-mean"]
    cases = sets([1] * 60, 9)
    said = ["yes" if n % 10 == 0 else "no" for n in range(60)]
    weights = torch.tensor(balancing(target, said))
    plain, balanced = (
        fit_head(new_head(spec, FEATURES, FACTS, target), spec, cases, said, target, w, 0)
        for w in (None, weights)
    )
    new = sets([1] * 30, 10)
    gain = (answers(balanced, new, target) - answers(plain, new, target))[:, 1]
    assert gain.mean() > 0.05


@pytest.mark.parametrize("name", ["logistic-mean", "logistic-mean+max", "mlp-mean"])
def test_what_never_varied_in_training_does_not_decide(name: str) -> None:
    # A channel that is silent in every training image, and the same mixture of images in each
    # case: a new case that differs in either is answered by what was learned of the rest.
    target, spec = TARGETS["binary"], BY_NAME[name]
    cases = sets([3] * 60, 11)
    facts = torch.tensor([[1, 1, 0], [2, 1, 0], [2, 1, 0]]).repeat(60, 1)
    items = cases.items.clone()
    items[:, -1] = 0.1
    cases = Embedded(items, facts, cases.lengths)
    head = fit_head(
        new_head(spec, FEATURES, FACTS, target), spec, cases, truths(cases, target), target, None, 0
    )
    new = cases.take(range(20))
    louder = new.items.clone()
    louder[:, -1] += 0.5
    usual = answers(head, new, target)
    changed = answers(head, Embedded(louder, new.facts, new.lengths), target)
    single = Embedded(new.items[::3], new.facts[1::3], (1,) * 20)  # one image of modality 2 each
    same = Embedded(new.items[::3], new.facts[::3], (1,) * 20)  # the same image as modality 1
    assert np.abs(changed - usual).max() < 0.2
    assert np.abs(answers(head, single, target) - answers(head, same, target)).max() < 0.2


@pytest.mark.parametrize("name", ["logistic-mean", "mlp-mean"])
def test_a_feature_that_is_far_out_once_does_not_decide(name: str) -> None:
    target, spec = TARGETS["regression"], BY_NAME[name]
    cases = sets([1] * 90, 15)
    head = fit_head(
        new_head(spec, FEATURES, FACTS, target), spec, cases, truths(cases, target), target, None, 0
    )
    new = sets([1] * 20, 16)
    loud = new.items.clone()
    loud[:, 0] = 1000.0
    usual = answers(head, new, target)[:, 0]
    changed = answers(head, Embedded(loud, new.facts, new.lengths), target)[:, 0]
    assert np.abs(changed - usual).max() < 6  # three standard deviations of the truth


def test_every_fifth_training_case_comes_without_its_facts() -> None:
    lengths = [1 + n % 3 for n in range(900)]
    cases = sets(lengths, 0)
    cases = Embedded(cases.items, torch.ones_like(cases.facts), cases.lengths)
    torch.manual_seed(0)
    drawn = _thinned(cases)
    told = [part[0].tolist() for part in drawn.facts.split(list(drawn.lengths))]
    blank = sum(facts == [0, 0, 0] for facts in told)
    assert 130 < blank < 230  # 180, four standard deviations of 12
    assert blank + sum(facts == [1, 1, 1] for facts in told) == 900
    assert all((p == p[0]).all() for p in drawn.facts.split(list(drawn.lengths)))  # case by case
    assert sum(drawn.lengths) < sum(lengths)  # some also lost an image
    assert cases.facts.all()  # not in place
    alone = Embedded(cases.items, cases.facts, (1,) * len(cases.items))
    drawn = _thinned(alone)
    assert torch.equal(drawn.items, alone.items)
    assert 0.1 < float((drawn.facts == 0).float().mean()) < 0.3


def test_a_head_that_facts_tell_almost_all_answers_without_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec, target = BY_NAME["mlp-mean"], TARGETS["binary"]

    def made(count: int, seed: int) -> tuple[Embedded, list[str]]:
        rng = np.random.default_rng(seed)
        codes = rng.integers(0, 2, count)
        items = rng.normal(size=(count, FEATURES))
        items[:, :4] += 0.3 * (2 * codes[:, None] - 1)
        facts = np.stack([1 + codes, 0 * codes, 0 * codes], axis=1)  # the modality is the answer
        found = Embedded(
            torch.tensor(items, dtype=torch.float32), torch.from_numpy(facts), (1,) * count
        )
        return found, [target.classes[code] for code in codes]

    cases, said = made(2000, 0)
    new, truth = made(500, 1)
    blank = Embedded(new.items, torch.zeros_like(new.facts), new.lengths)
    found = {}
    for untold in (0.0, heads._UNTOLD):
        monkeypatch.setattr(heads, "_UNTOLD", untold)
        head = fit_head(new_head(spec, FEATURES, FACTS, target), spec, cases, said, target, None, 0)
        found[untold] = [
            float(losses(answers(head, given, target), target.encode(truth), target).mean())
            for given in (new, blank)
        ]
    (told_always, blank_always), (told, unknown) = found.values()
    assert unknown < blank_always - 0.02
    assert told < told_always + 0.02
    assert told < 0.25 * unknown  # facts still tell


def test_taking_cases_keeps_their_images_together() -> None:
    cases = sets([2, 1, 3], 12)
    taken = cases.take([2, 0])
    assert taken.lengths == (3, 2)
    assert torch.equal(taken.items, torch.cat([cases.items[3:], cases.items[:2]]))
    assert torch.equal(taken.facts, torch.cat([cases.facts[3:], cases.facts[:2]]))


def test_a_regression_answers_in_its_own_unit() -> None:
    target = Target("weight", "regression", (), unit_mean=70.0, unit_sd=15.0)
    cases, new = sets([1] * 90, 13), sets([1] * 40, 14)
    said, wanted = (
        [70 + 7.5 * (float(text) - 10) for text in truths(given, TARGETS["regression"])]
        for given in (cases, new)
    )
    for name in ("knn-mean", "logistic-mean"):
        spec, head = BY_NAME[name], new_head(BY_NAME[name], FEATURES, FACTS, target)
        fit_head(head, spec, cases, [repr(value) for value in said], target, None, 0)
        found = answers(head, new, target)[:, 0]
        assert np.abs(found - wanted).mean() < 0.8 * np.abs(np.array(wanted) - 70).mean()
