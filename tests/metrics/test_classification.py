# SPDX-License-Identifier: Apache-2.0
"""Scores equal scikit-learn's; failures make every score worse; nothing is NaN."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from vesalius.errors import UsageError
from vesalius.metrics import (
    classification_scores,
    classification_statistics,
    classification_summary,
)
from vesalius.metrics.agreement import confusion


def cases(n, count, seed=0, skill=0.4):
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, count, n)
    truth[:count] = np.arange(count)  # each class at least once
    table = generator.dirichlet(np.ones(count), n).round(2) + 1e-3  # rounding makes ties
    table[np.arange(n), truth] += skill
    return truth, table / table.sum(1, keepdims=True)


def by_name(scores):
    return {(score.name, score.label): score for score in scores}


@settings(max_examples=15, deadline=None)
@given(n=st.integers(12, 60), count=st.integers(2, 5), seed=st.integers(0, 10_000))
def test_equals_scikit_learn(n, count, seed):
    truth, table = cases(n, count, seed)
    names = [f"c{k}" for k in range(count)]
    found = by_name(classification_scores(truth, table, names, range(n), draws=2))
    guess = table.argmax(1)
    one_hot = np.eye(count)[truth]
    if count == 2:
        auc = sk.roc_auc_score(truth, table[:, 1])
        precision = sk.average_precision_score(truth, table[:, 1])
        brier = sk.brier_score_loss(truth, table[:, 1])
    else:
        auc = sk.roc_auc_score(truth, table, multi_class="ovr", average="macro")
        precision = sk.average_precision_score(one_hot, table, average="macro")
        brier = ((table - one_hot) ** 2).sum(1).mean()
        each = sk.roc_auc_score(one_hot, table, average=None)
        assert [found["auc", c].value for c in names] == pytest.approx(each)
    expected = {
        "accuracy": sk.accuracy_score(truth, guess),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, guess),
        "auc": auc,
        "average_precision": precision,
        "macro_f1": sk.f1_score(truth, guess, average="macro", labels=range(count)),
        "brier": brier,
        "nll": sk.log_loss(truth, table, labels=range(count)),
        "mcc": sk.matthews_corrcoef(truth, guess),
    }
    for name, value in expected.items():
        assert found[name, ""].value == pytest.approx(value, abs=1e-9), name
    recall = sk.recall_score(truth, guess, average=None, labels=range(count))
    assert [found["recall", c].value for c in names] == pytest.approx(recall)


def test_a_draw_equals_scoring_the_drawn_cases():
    """The weighted statistics of the bootstrap are scikit-learn's on the repeated cases."""
    truth, table = cases(40, 3, seed=5)
    times = np.random.default_rng(2).integers(0, 4, 40)
    statistics = classification_statistics(truth, table, ["a", "b", "c"])
    weighted = dict(zip(statistics.names, statistics.of(times[None].astype(float))[0], strict=True))
    many_truth, many = np.repeat(truth, times), np.repeat(table, times, axis=0)
    auc = sk.roc_auc_score(many_truth, many, multi_class="ovr")
    assert weighted["auc", ""] == pytest.approx(auc)
    assert weighted["average_precision", "b"] == pytest.approx(
        sk.average_precision_score(many_truth == 1, many[:, 1])
    )
    assert weighted["nll", ""] == pytest.approx(sk.log_loss(many_truth, many))
    assert weighted["mcc", ""] == pytest.approx(sk.matthews_corrcoef(many_truth, many.argmax(1)))
    whole = classification_statistics(many_truth, many, ["a", "b", "c"])
    again = dict(zip(whole.names, whole.values(), strict=True))
    fitted = ("calibration_slope", "calibration_intercept")  # to first order: test_calibration
    same = [key for key in again if key[0] not in fitted]
    assert [weighted[key] for key in same] == pytest.approx([again[key] for key in same])


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(2, 4), lost=st.integers(1, 10))
def test_failures_never_help(seed, count, lost):
    truth, table = cases(30, count, seed)
    names = [f"c{k}" for k in range(count)]
    failed = np.zeros(30, bool)
    failed[np.random.default_rng(seed).permutation(30)[:lost]] = True
    before = by_name(classification_scores(truth, table, names, range(30), draws=2))
    after = by_name(classification_scores(truth, table, names, range(30), failed=failed, draws=2))
    falling = {
        "accuracy", "auc", "balanced_accuracy", "recall", "average_precision",
        "sensitivity_at_specificity_90", "sensitivity_at_specificity_95",
    }  # fmt: skip
    if count == 2:
        falling.add("mcc")
    for key, old in before.items():
        new = after[key]
        assert new.n == 30
        if key[0] in ("brier", "nll"):
            assert new.value >= old.value
        elif key[0] in falling:
            assert new.value <= old.value + 1e-12


def test_all_failed_is_the_worst_answer_and_nan_rows_are_failures():
    truth, table = cases(20, 2)
    lost = np.full_like(table, np.nan)
    found = by_name(classification_scores(truth, lost, ["a", "b"], range(20)))
    assert found["accuracy", ""].value == 0
    assert found["auc", ""].value == 0
    assert found["brier", ""].value == 1
    assert found["ece", ""].value == 1
    assert found["mcc", ""].value == -1
    assert found["sensitivity_at_specificity_90", ""].value == 0
    whole = classification_summary(truth, lost, ["a", "b"], range(20))
    assert whole["n_failed"] == 20
    assert sum(whole["confusion"]["failed"]) == 20


def test_baselines_are_the_trivial_predictions():
    truth = np.array([0] * 7 + [1] * 3)
    _, table = cases(10, 2)
    found = by_name(classification_scores(truth, table, ["a", "b"], range(10)))
    assert found["accuracy", ""].baseline == 0.7
    assert found["accuracy", ""].baseline_name == "majority class (a)"
    assert found["auc", ""].baseline == 0.5
    assert found["average_precision", ""].baseline == pytest.approx(0.3)
    assert found["brier", ""].baseline == pytest.approx(0.21)
    assert found["mcc", ""].baseline == 0
    assert found["sensitivity_at_specificity_95", ""].baseline == 0.05
    assert found["calibration_slope", ""].baseline is None
    assert found["calibration_intercept", ""].baseline == pytest.approx(0)
    train = by_name(
        classification_scores(truth, table, ["a", "b"], range(10), frequencies=[0.2, 0.8])
    )
    assert train["accuracy", ""].baseline == pytest.approx(0.3)


def test_the_interval_holds_patients_together():
    truth, table = cases(60, 2, skill=0.2)
    alone = classification_scores(truth, table, ["a", "b"], range(60))[0]
    tripled = classification_scores(
        np.repeat(truth, 3), np.repeat(table, 3, axis=0), ["a", "b"], np.repeat(range(60), 3)
    )[0]
    assert tripled.n_patients == 60
    assert tripled.value == pytest.approx(alone.value)
    assert (tripled.low, tripled.high) == pytest.approx((alone.low, alone.high))


def test_summary_is_strict_json_even_when_a_class_is_absent():
    truth, table = cases(12, 3)
    truth[truth == 2] = 0
    scanner = ["A", "B"] * 6
    summary = classification_summary(
        truth,
        table,
        ["a", "b", "c"],
        range(12),
        groups={"scanner": scanner, "modality": ["MR"] * 12},
    )
    json.dumps(summary, allow_nan=False)
    found = {(s["name"], s["label"]): s for s in summary["scores"]}
    assert found["auc", "c"]["value"] is None
    assert "no case of class 'c'" in found["auc", "c"]["note"]
    assert found["auc", ""]["value"] is not None
    assert "c" not in summary["roc"]
    assert [(b["column"], b["value"]) for b in summary["by"]] == [
        ("scanner", "A"),
        ("scanner", "B"),
    ]
    assert np.sum(summary["confusion"]["matrix"]) == 12


def test_confusion_equals_scikit_learn():
    truth, table = cases(500, 3)
    matrix = confusion(truth, table, ["a", "b", "c"])["matrix"]
    assert matrix == sk.confusion_matrix(truth, table.argmax(1)).tolist()


def test_groups_of_two_classes_have_sensitivity_and_specificity():
    truth, table = cases(40, 2, skill=0.3)
    age = np.where(np.arange(40) < 25, "young", "old")
    truth[25:] = 0  # no positive case among the old
    summary = classification_summary(
        truth, table, ["no", "yes"], range(40), groups={"age": age}, draws=20
    )
    assert list(summary["decision_curve"]) == ["yes"]
    young, old = ({s["name"]: s for s in entry["scores"]} for entry in summary["by"])
    assert young.keys() == old.keys()
    recall = sk.recall_score(truth[:25], table[:25].argmax(1), average=None)
    assert [young[n]["value"] for n in ("specificity", "sensitivity")] == pytest.approx(recall)
    assert young["sensitivity"]["note"].startswith(f"{truth[:25].sum()} cases of class 'yes'")
    assert old["sensitivity"]["value"] is None
    assert (old["sensitivity"]["n"], old["auc"]["value"]) == (15, None)
    several = classification_summary(
        *cases(40, 3), ["a", "b", "c"], range(40), groups={"age": age}, draws=20
    )
    assert set(several["decision_curve"]) == {"a", "b", "c"}
    assert {s["name"] for s in several["by"][0]["scores"]} == {
        "accuracy", "balanced_accuracy", "auc",
    }  # fmt: skip


def test_old_names_come_first():
    """Readers that list scores in order keep the places that they knew."""
    found = classification_scores(*cases(30, 2), ["a", "b"], range(30), draws=2)
    assert [s.name for s in found] == [
        "accuracy", "balanced_accuracy", "auc", "average_precision", "macro_f1", "brier", "nll",
        "ece", "recall", "recall", "mcc", "sensitivity_at_specificity_90",
        "sensitivity_at_specificity_95", "calibration_slope", "calibration_intercept",
    ]  # fmt: skip


def test_refuses_by_name():
    truth, table = cases(10, 2)
    with pytest.raises(UsageError, match="Did you mean 'benign'"):
        classification_scores(["bening"] * 10, table, ["benign", "malignant"], range(10))
    with pytest.raises(UsageError, match="shape"):
        classification_scores(truth, table[:, :1], ["a", "b"], range(10))
    with pytest.raises(UsageError, match="nothing to score"):
        classification_scores([], np.empty((0, 2)), ["a", "b"], [])
    named = classification_scores(["a", "b"] * 5, table, ["a", "b"], range(10), draws=2)
    numbered = classification_scores([0, 1] * 5, table, ["a", "b"], range(10), draws=2)
    assert named == numbered
