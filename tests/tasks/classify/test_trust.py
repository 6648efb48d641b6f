# SPDX-License-Identifier: Apache-2.0
"""Trust: every kind of target, parts that see no other part, a round trip, few cases or none."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from scipy.special import softmax

from vesalius.errors import RunError
from vesalius.tasks.classify import trust as module
from vesalius.tasks.classify.conformal import LabelSets
from vesalius.tasks.classify.ensemble import losses
from vesalius.tasks.classify.outliers import OutlierScore
from vesalius.tasks.classify.trust import COVERAGE, Trust, fit_trust, scores

sys.path.insert(0, str(Path(__file__).parent))
from sets import TARGETS


def answers(kind: str, n: int, seed: int, *, heat: float = 3.0) -> tuple[np.ndarray, list[str]]:
    """Return overconfident answers (logits `heat` times too large) and the truths."""
    target, rng = TARGETS[kind], np.random.default_rng(seed)
    k = max(1, len(target.classes))
    if kind == "regression":
        said = rng.normal(10, 2, n)
        return said[:, None] + rng.normal(0, 1, (n, 1)), [repr(float(v)) for v in said]
    logits = rng.normal(0, 1.5, (n, k))
    if kind == "multilabel":
        there = rng.random((n, k)) < 1 / (1 + np.exp(-logits))
        said = [
            "; ".join(name for name, held in zip(target.classes, row, strict=True) if held)
            for row in there
        ]
        return 1 / (1 + np.exp(-heat * logits)), said
    codes = [rng.choice(k, p=p) for p in softmax(logits, axis=1)]
    return softmax(heat * logits, axis=1), [target.classes[c] for c in codes]


def embeddings(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 6)) + 5


def fit(kind: str, n: int = 400, each: int = 1, **changes) -> Trust:
    table, said = answers(kind, n, 0)
    inside = OutlierScore.fit(embeddings(200, 1))
    groups = [place // each for place in range(n)]
    held = {"outliers": inside, "embeddings": embeddings(n, 2), **changes}
    return fit_trust(table, said, groups, TARGETS[kind], **held)


@pytest.mark.parametrize("kind", TARGETS)
def test_answers_become_calibrated_and_promises_are_kept(kind: str) -> None:
    target, trust = TARGETS[kind], fit(kind)
    table, said = answers(kind, 2000, 7)
    codes = target.encode(said)
    found = trust.calibrate(table, target)
    assert found.shape == table.shape
    if kind == "regression":
        assert trust.calibrator is None
        assert trust.sets is None
        np.testing.assert_array_equal(found, table)
        bounds = trust.intervals.apply(found[:, 0])
        truth = np.array(said, float)
        held = ((bounds[:, 0] <= truth) & (truth <= bounds[:, 1])).mean()
        assert abs(held - COVERAGE) < 0.05
        return
    assert trust.intervals is None
    assert losses(found, codes, target).mean() < losses(table, codes, target).mean() - 0.05
    if kind == "multilabel":
        assert trust.sets is None
        assert ((found > 0) & (found < 1)).all()
        return
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)
    assert trust.sets.ordinal == (kind == "ordinal")
    held = trust.label_sets(table, found)[np.arange(2000), codes].mean()
    assert abs(held - COVERAGE) < 0.05


@pytest.mark.parametrize("kind", TARGETS)
def test_a_round_trip_through_json_and_arrays_answers_the_same(kind: str) -> None:
    target, trust = TARGETS[kind], fit(kind)
    arrays = trust.outliers.arrays()
    back = Trust.from_json(json.loads(json.dumps(trust.to_json())), arrays)
    assert back.notes == trust.notes
    table, _ = answers(kind, 50, 8)
    np.testing.assert_array_equal(back.calibrate(table, target), trust.calibrate(table, target))
    fresh = embeddings(20, 9)
    np.testing.assert_array_equal(back.outliers.score(fresh), trust.outliers.score(fresh))
    assert back.outliers.threshold == trust.outliers.threshold
    assert (back.sets, back.intervals) == (trust.sets, trust.intervals)
    assert back.calibrator == trust.calibrator


@pytest.mark.parametrize("kind", TARGETS)
def test_without_calibration_cases_answers_are_left_as_they_are(kind: str) -> None:
    trust = fit_trust(np.empty((0, 0)), [], [], TARGETS[kind], None, None)
    table, _ = answers(kind, 10, 1)
    assert trust.calibrate(table, TARGETS[kind]) is table
    assert (trust.sets, trust.intervals, trust.outliers, trust.calibrator) == (None,) * 4
    assert "no calibration cases" in trust.notes[0]
    assert Trust.from_json(json.loads(json.dumps(trust.to_json())), {}) == trust


def test_each_part_sees_all_cases_and_no_other_part() -> None:
    table, said = answers("binary", 60, 0)
    groups = [f"p{n % 13}" for n in range(60)]
    seen: dict[str, np.ndarray] = {}
    fitting, setting = module.fit_calibrator, LabelSets.fit

    def calibrate(given, codes, *, patients):
        assert patients == groups
        seen["calibrated"] = given
        return fitting(given, codes, patients=patients)

    def decide(given, codes, **options):
        seen["decided"] = given
        return setting(given, codes, **options)

    with (
        mock.patch.object(module, "fit_calibrator", calibrate),
        mock.patch.object(LabelSets, "fit", decide),
    ):
        trust = fit_trust(table, said, groups, TARGETS["binary"], None, None)
    np.testing.assert_array_equal(seen["calibrated"], scores(table, TARGETS["binary"]))
    np.testing.assert_array_equal(seen["decided"], table)  # as the mixture gave it
    assert trust.sets.n == trust.calibrator.n == 60


@pytest.mark.parametrize("kind", ["binary", "multiclass", "ordinal"])
def test_the_class_that_is_named_is_in_its_set(kind: str) -> None:
    trust, (table, _) = fit(kind), answers(kind, 300, 5)
    named = np.roll(table, 1, axis=1)  # as if calibration had turned every answer
    sets = trust.label_sets(table, named)
    rows = np.arange(300)
    assert sets[rows, named.argmax(1)].all()
    assert sets[rows, table.argmax(1)].all()
    assert kind == "binary" or not sets.all()  # of two classes, both are one or the other
    if kind == "ordinal":  # no gap
        assert (
            np.abs(np.diff(np.pad(sets, ((0, 0), (1, 1))).astype(int), axis=1)).sum(1) == 2
        ).all()


def test_sets_of_calibrated_probabilities_are_refused() -> None:
    held = fit("binary").to_json()
    held["sets"] = held.pop("label_sets")
    with pytest.raises(RunError, match="train it again"):
        Trust.from_json(held, fit("binary").outliers.arrays())


def test_outliers_are_refused_and_others_are_not() -> None:
    trust = fit("binary")
    threshold = trust.outliers.threshold
    assert (trust.outliers.score(embeddings(300, 11)) > threshold).mean() < 0.05
    assert (trust.outliers.score(-embeddings(50, 12)) > threshold).all()


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_very_few_calibration_cases_do_not_end_the_run(kind: str, n: int) -> None:
    trust = fit(kind, n)
    table, _ = answers(kind, 5, 3)
    assert np.isfinite(trust.calibrate(table, TARGETS[kind])).all()
    if kind in ("binary", "multiclass", "ordinal"):
        assert trust.label_sets(table, table).all()  # nothing less can be promised
    assert trust.outliers is None or trust.outliers.threshold > 0
    assert (trust.outliers is None) == any("no case is refused" in note for note in trust.notes)


def test_one_patient_alone_calibrates_nothing() -> None:
    trust = fit("binary", 30, each=30)
    assert trust.calibrator.method == "identity"
    assert trust.sets.n == 30


def test_scores_are_log_probabilities_or_logits() -> None:
    table = np.array([[0.0, 1.0], [0.25, 0.75]])
    found = scores(table, TARGETS["binary"])
    np.testing.assert_allclose(np.exp(found), table, atol=2e-6)
    assert np.isfinite(found).all()
    logits = scores(table, TARGETS["multilabel"])
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), table, atol=2e-6)
