# SPDX-License-Identifier: Apache-2.0
"""Scores of several labels equal scikit-learn's; unknown labels enter nothing; failures hurt."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from vesalius.errors import UsageError
from vesalius.metrics import multilabel_scores, multilabel_statistics, multilabel_summary

LABELS = ["edema", "effusion", "nodule"]


def cases(n, seed=0, unknown=0.0):
    generator = np.random.default_rng(seed)
    truth = (generator.random((n, 3)) < [0.5, 0.3, 0.2]).astype(float)
    truth[:2] = [[1] * 3, [0] * 3]
    table = np.clip(0.3 * truth + generator.random((n, 3)) * 0.6, 0.01, 0.99).round(2)
    hidden = generator.random((n, 3)) < unknown
    hidden[:2] = False
    truth[hidden] = np.nan
    return truth, table


def by_name(scores):
    return {(score.name, score.label): score for score in scores}


@settings(max_examples=20, deadline=None)
@given(n=st.integers(8, 60), seed=st.integers(0, 10_000))
def test_draws_equal_scikit_learn_on_the_repeated_cases(n, seed):
    truth, table = cases(n, seed)
    times = np.random.default_rng(seed).integers(0, 3, n)
    times[:2] = 1
    many, guess = np.repeat(truth, times, axis=0), np.repeat(table, times, axis=0)
    answered = guess >= 0.5
    statistics = multilabel_statistics(truth, table, LABELS)
    found = dict(zip(statistics.names, statistics.of(times[None].astype(float))[0], strict=True))
    expected = {
        "auc": sk.roc_auc_score(many, guess, average="macro"),
        "average_precision": sk.average_precision_score(many, guess, average="macro"),
        "label_accuracy": 1 - sk.hamming_loss(many, answered),
        "exact_match": sk.accuracy_score(many, answered),
        "micro_f1": sk.f1_score(many, answered, average="micro"),
        "macro_f1": sk.f1_score(many, answered, average="macro"),
        "brier": ((many - guess) ** 2).mean(),
        "nll": np.mean([sk.log_loss(many[:, k], guess[:, k]) for k in range(3)]),
    }
    assert {name: found[name, ""] for name in expected} == pytest.approx(expected)
    for place, label in enumerate(LABELS):
        own, p = many[:, place], guess[:, place]
        each = {
            "auc": sk.roc_auc_score(own, p),
            "average_precision": sk.average_precision_score(own, p),
            "label_accuracy": sk.accuracy_score(own, p >= 0.5),
            "brier": sk.brier_score_loss(own, p),
            "nll": sk.log_loss(own, p),
        }
        assert {name: found[name, label] for name in each} == pytest.approx(each)


def test_unknown_labels_enter_nothing():
    truth, table = cases(60, 1, unknown=0.4)
    found = by_name(multilabel_scores(truth, table, LABELS, range(60), draws=2))
    known = np.isfinite(truth[:, 1])
    assert found["auc", "effusion"].value == pytest.approx(
        sk.roc_auc_score(truth[known, 1], table[known, 1])
    )
    changed = np.where(np.isnan(truth), 1 - table, table)
    assert multilabel_scores(truth, changed, LABELS, range(60), draws=2) == list(found.values())
    right = np.where(np.isnan(truth), True, (table >= 0.5) == truth).all(1)
    assert found["exact_match", ""].value == pytest.approx(right[np.isfinite(truth).any(1)].mean())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), lost=st.integers(1, 10))
def test_failures_never_help(seed, lost):
    truth, table = cases(30, seed, unknown=0.2)
    failed = np.zeros(30, bool)
    failed[np.random.default_rng(seed).permutation(30)[:lost]] = True
    before = by_name(multilabel_scores(truth, table, LABELS, range(30), draws=2))
    after = by_name(multilabel_scores(truth, table, LABELS, range(30), failed=failed, draws=2))
    for key, old in before.items():
        if key[0] in ("brier", "nll"):
            assert after[key].value >= old.value
        else:
            assert after[key].value <= old.value + 1e-12
    lost_rows = np.where(failed[:, None], np.nan, table)
    assert by_name(multilabel_scores(truth, lost_rows, LABELS, range(30), draws=2)) == after


def test_baselines_and_notes():
    truth, table = cases(40, 2)
    truth[:, 2] = 0
    found = by_name(
        multilabel_scores(truth, table, LABELS, range(40), frequencies=[0.6, 0.2, 0.1], draws=50)
    )
    assert found["auc", "edema"].baseline == 0.5
    assert found["label_accuracy", "edema"].baseline == pytest.approx(truth[:, 0].mean())
    assert found["label_accuracy", "effusion"].baseline == pytest.approx(1 - truth[:, 1].mean())
    assert found["brier", "edema"].baseline == pytest.approx(((0.6 - truth[:, 0]) ** 2).mean())
    assert found["auc", "nodule"].value is None
    assert found["auc", "nodule"].note == "no case with the label"
    assert found["auc", ""].value == pytest.approx(
        np.mean([found["auc", name].value for name in LABELS[:2]])
    )
    assert found["auc", ""].low < found["auc", ""].value < found["auc", ""].high


def test_summary_is_strict_json():
    truth, table = cases(40, 3, unknown=0.3)
    truth[:, 2] = np.nan
    summary = multilabel_summary(
        truth, table, LABELS, np.arange(40) // 2, groups={"sex": ["f", "m"] * 20}, draws=30
    )
    json.dumps(summary, allow_nan=False)
    assert summary["n_patients"] == 20
    assert summary["labels"]["nodule"] == {"present": 0, "absent": 0, "unknown": 40}
    assert set(summary["roc"]) == set(summary["decision_curve"]) == set(LABELS[:2])
    assert [e["value"] for e in summary["by"]] == ["f", "m"]
    names = [[s["name"] for s in e["scores"]] for e in summary["by"]]
    assert names == [["auc", "label_accuracy", "exact_match"]] * 2


def test_refuses_by_name():
    truth, table = cases(10)
    with pytest.raises(UsageError, match=r"shape \(cases, 3\)"):
        multilabel_scores(truth[:, 0], table, LABELS, range(10))
    with pytest.raises(UsageError, match="NaN"):
        multilabel_scores(truth + 1, table, LABELS, range(10))
    with pytest.raises(UsageError, match="probabilities"):
        multilabel_scores(truth, table[:5], LABELS, range(10))
    with pytest.raises(UsageError, match="frequencies"):
        multilabel_scores(truth, table, LABELS, range(10), frequencies=[0.5, 2, 0.1])
