# SPDX-License-Identifier: Apache-2.0
"""Cross-fitting: what is held out was never seen, and the held-out loss alone chooses."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from vesalius.tasks.classify import crossfit as module
from vesalius.tasks.classify.crossfit import (
    NEIGHBORS,
    PENALTIES,
    answers,
    crossfit,
    seconds_to_crossfit,
)
from vesalius.tasks.classify.ensemble import losses
from vesalius.tasks.classify.heads import Embedded, fit_head

sys.path.insert(0, str(Path(__file__).parent))
from sets import FACTS, TARGETS, sets, truths

LOGISTIC = {"name": "l", "head": "logistic", "pooling": "mean"}
KNN = {"name": "k", "head": "knn", "pooling": "mean"}
MLP = {"name": "m", "head": "mlp", "pooling": "mean", "dropout": 0.2}


def fit(spec: dict, cases: Embedded, said: list[str], groups: list, kind: str = "binary"):
    return crossfit(
        spec, cases, said, groups, TARGETS[kind], facts=FACTS, weights=None, seed=0
    )  # fmt: skip


def memorable(groups: int, each: int) -> tuple[Embedded, list[str], list[int]]:
    """Return groups of nearly equal cases; each group has a label of its own, drawn at random."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(groups, 40))
    labels = rng.permutation(np.arange(groups) % 2)  # half of them each
    of = rng.permutation(np.repeat(np.arange(groups), each))
    items = centers[of] + rng.normal(0, 0.01, (len(of), centers.shape[1]))
    facts = torch.zeros(len(of), 3, dtype=torch.long)
    cases = Embedded(torch.tensor(items, dtype=torch.float32), facts, (1,) * len(of))
    return cases, [("no", "yes")[labels[group]] for group in of], of.tolist()


@pytest.mark.parametrize("spec", [KNN, LOGISTIC], ids=["knn", "logistic"])
def test_labels_of_groups_cannot_be_remembered(spec: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    cases, said, groups = memorable(30, 4)
    monkeypatch.setattr(module, "NEIGHBORS", (1,))
    monkeypatch.setattr(module, "PENALTIES", (1e-4,))
    fitted = fit(spec, cases, said, groups)
    target = TARGETS["binary"]
    codes = target.encode(said)
    fits = answers(fitted.head, cases, target)
    assert (fits.argmax(axis=1) == codes).all()  # the head of all rows knows each by heart
    assert losses(fits, codes, target).mean() < 0.05
    assert fitted.loss >= np.log(2)
    # Rows that are no groups: a twin in another fold gives every label away.
    leaking = fit(spec, cases, said, list(range(len(said))))
    assert leaking.loss < 0.2


@pytest.mark.parametrize("spec", [KNN, LOGISTIC, MLP], ids=["knn", "logistic", "mlp"])
def test_no_group_is_on_both_sides(spec: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = sets([1, 2] * 15, 0)
    groups = [f"p{n % 11}" for n in range(30)]
    rows = {float(first): n for n, first in zip(_owners(cases), cases.items[:, 0], strict=True)}
    seen: list[set[str]] = []
    asked: list[set[str]] = []

    def fit_and_note(head, tried, given, *rest):
        seen.append({groups[rows[float(value)]] for value in given.items[:, 0]})
        return fit_head(head, tried, given, *rest)

    def answer_and_note(head, given, target):
        asked.append({groups[rows[float(value)]] for value in given.items[:, 0]})
        return answers(head, given, target)

    monkeypatch.setattr(module, "fit_head", fit_and_note)
    monkeypatch.setattr(module, "answers", answer_and_note)
    fit(spec, cases, truths(cases, TARGETS["binary"]), groups)
    assert len(seen) == len(asked) + 1  # the last one is fitted on all
    assert seen[-1] == set(groups)
    assert all(not (a & b) for a, b in zip(seen, asked, strict=False))
    assert set.union(*asked[:5]) == set(groups)


def _owners(cases: Embedded) -> list[int]:
    return [n for n, length in enumerate(cases.lengths) for _ in range(length)]


@pytest.mark.parametrize(
    ("spec", "name", "tried"),
    [(LOGISTIC, "PENALTIES", PENALTIES), (KNN, "NEIGHBORS", NEIGHBORS)],
    ids=["logistic", "knn"],
)
def test_the_strength_of_the_least_held_out_loss_is_chosen(
    spec: dict, name: str, tried: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = sets([1 + n % 2 for n in range(40)], 2)
    said = truths(cases, TARGETS["binary"])
    rng = np.random.default_rng(1)
    said = [rng.choice(["no", "yes"]) if rng.random() < 0.3 else text for text in said]
    groups = list(range(40))
    chosen = fit(spec, cases, said, groups)
    alone = {}
    for value in tried:
        monkeypatch.setattr(module, name, (value,))
        alone[value] = fit(spec, cases, said, groups)
    best = min(alone, key=lambda value: alone[value].loss)
    key = "penalty" if spec is LOGISTIC else "k"
    assert chosen.spec == {**spec, key: best}
    assert chosen.loss == pytest.approx(alone[best].loss, rel=1e-6)
    assert len({round(one.loss, 6) for one in alone.values()}) > 1
    assert 0 < list(tried).index(best) < len(tried) - 1 or spec is KNN  # no end of the row
    np.testing.assert_allclose(chosen.held_out, alone[best].held_out, atol=1e-6)


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("spec", [KNN, LOGISTIC], ids=["knn", "logistic"])
def test_every_kind_of_target_is_held_out(spec: dict, kind: str) -> None:
    target, cases = TARGETS[kind], sets([1, 2] * 12, 3)
    said = truths(cases, target)
    fitted = fit(spec, cases, said, [n // 2 for n in range(24)], kind)
    assert fitted.held_out.shape == (24, max(1, len(target.classes)))
    assert np.isfinite(fitted.held_out).all()
    codes = target.encode(said)
    assert fitted.loss == pytest.approx(losses(fitted.held_out, codes, target).mean())
    if kind in ("binary", "multiclass", "ordinal"):
        np.testing.assert_allclose(fitted.held_out.sum(axis=1), 1, rtol=1e-5)


def test_a_class_of_a_single_case_is_no_obstacle() -> None:
    cases = sets([1] * 31, 4)
    said = ["a", "b"] * 15 + ["c"]
    fitted = fit(LOGISTIC, cases, said, list(range(31)), "multiclass")
    assert np.isfinite(fitted.held_out).all()
    assert fitted.held_out[-1, 2] < 0.2  # held out: no head saw the class


@pytest.mark.parametrize(("spec", "fits"), [(LOGISTIC, 4 * len(PENALTIES) + 1), (MLP, 5)])
def test_a_few_cases_tell_how_long_it_takes(
    spec: dict, fits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def slow(head, _spec, cases, *_given):
        asked.append(len(cases.lengths))
        time.sleep(0.002 * len(cases.lengths))
        return head

    monkeypatch.setattr(module, "fit_head", slow)
    cases = sets([1, 2] * 400, 0)
    target = TARGETS["binary"]
    found = seconds_to_crossfit(
        spec, cases, truths(cases, target), target, facts=FACTS, weights=None
    )
    assert sum(asked) < 0.15 * 800
    assert 0.9 < found / (0.002 * 800 * fits) < 3
