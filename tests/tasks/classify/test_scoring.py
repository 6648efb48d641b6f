# SPDX-License-Identifier: Apache-2.0
"""Rows and scores of answers: every kind of target, failures, refusals, sets, intervals."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, mean_absolute_error

from vesalius.tasks.cases import Case
from vesalius.tasks.classify.predict import Answer
from vesalius.tasks.classify.scoring import prediction_rows, write_scores
from vesalius.tasks.run import Run, start_run
from vesalius.tasks.targets import Target

sys.path.insert(0, str(Path(__file__).parent))
from sets import TARGETS

N = 24


def run_of(target: Target, folder: Path) -> Run:
    counts = dict.fromkeys(target.classes, 10)
    if target.kind == "multilabel":
        counts = {n: {"absent": 12, "present": 8, "unknown": 0} for n in target.classes}
    plan = {
        "task": "classify", "target": target.name, "seed": 0, "request": {}, "measured": {},
        "fingerprint": {"cases_per_class": counts}, "audit": [], "split_digest": "s",
        "cohort": {"digest": "c"},
        "decisions": {"target": target.to_json(), "classes": list(target.classes)},
    }  # fmt: skip
    return start_run(plan, folder)


def made(kind: str) -> tuple[list[Case], np.ndarray]:
    """Return cases of two images, and answers that lean to the truth."""
    target, rng = TARGETS[kind], np.random.default_rng(0)
    rows = [
        tuple({"key": f"{n}-{i}", "modality": "CT" if i else "MR", "scanner": ""} for i in range(2))
        for n in range(N)
    ]
    if kind == "regression":
        numbers = rng.normal(10, 2, N)
        said = [repr(float(v)) for v in numbers]
        table = numbers[:, None] + rng.normal(0, 0.5, (N, 1))
    elif kind == "multilabel":
        there = rng.integers(0, 2, (N, 2))
        said = ["; ".join(np.array(target.classes)[row == 1]) for row in there]
        table = 0.2 + 0.6 * there + rng.uniform(-0.1, 0.1, there.shape)
    else:
        k = len(target.classes)
        codes = np.arange(N) % k
        said = [target.classes[c] for c in codes]
        table = np.eye(k)[codes] + rng.uniform(0, 0.8, (N, k))
        table /= table.sum(axis=1, keepdims=True)
    cases = [Case(f"c{n:02}", rows[n], f"p{n // 2}", said[n]) for n in range(N)]
    return cases, table


def grouped(cases: list[Case]) -> dict[str, int]:
    """Return groups that are the patients."""
    return {case.key: int(case.patient[1:]) for case in cases}


@pytest.mark.parametrize("kind", TARGETS)
def test_scores_of_every_kind_are_written_with_failures(kind: str, tmp_path: Path) -> None:
    target, (cases, table) = TARGETS[kind], made(kind)
    answers = [Answer(row) for row in table]
    if kind == "regression":
        answers = [Answer(row, interval=(row[0] - 1, row[0] + 1)) for row in table]
    answers[3] = Answer(None, "image 3-0: the file ends early")
    run = run_of(target, tmp_path)
    metrics = write_scores(run, cases, answers, "val", grouped(cases))
    entry = metrics["splits"]["val"]
    assert (entry["n_cases"], entry["n_failed"], entry["n_patients"]) == (N, 1, N // 2)
    scores = {s["name"] for s in entry["scores"]}
    assert (
        scores
        > {
            "binary": {"auc", "accuracy", "nll"},
            "multiclass": {"auc", "accuracy", "nll"},
            "multilabel": {"auc"},
            "ordinal": {"quadratic_weighted_kappa", "grade_mae"},
            "regression": {
                "mae",
                "interval_coverage",
            },  # one case without an answer hides no interval
        }[kind]
    )
    assert all(np.isfinite([s["low"], s["high"]]).all() for s in entry["scores"] if not s["note"])
    table_of = run.predictions().to_pandas().set_index("key")
    lost = table_of.loc["c03"]
    assert lost["failed"]
    assert lost["reason"] == "image 3-0: the file ends early"
    assert pd.isna(lost["predicted"])
    assert table_of["modality"].eq("CT+MR").all()
    assert table_of["images"].eq(2).all()
    assert table_of["truth"].tolist() == [case.truth for case in cases]


def test_rows_say_what_scikit_learn_computes_from_them() -> None:
    target, (cases, table) = TARGETS["multiclass"], made("multiclass")
    rows = prediction_rows(
        cases, [Answer(row) for row in table], table, target, "test", grouped(cases)
    )
    held = np.array([[row[f"p_{name}"] for name in target.classes] for row in rows])
    np.testing.assert_array_equal(held, table)
    loss = log_loss([case.truth for case in cases], table, labels=list(target.classes))
    assert np.mean([row["loss"] for row in rows]) == pytest.approx(loss)
    assert [row["predicted"] for row in rows] == target.predicted(table)
    target, (cases, table) = TARGETS["regression"], made("regression")
    rows = prediction_rows(
        cases, [Answer(row) for row in table], table, target, "test", grouped(cases)
    )
    wanted = mean_absolute_error([float(case.truth) for case in cases], table[:, 0])
    errors = [abs(row["value"] - float(row["truth"])) for row in rows]
    assert np.mean(errors) == pytest.approx(wanted)
    assert all(row["low"] is None and row["high"] is None for row in rows)


def test_label_sets_refusals_and_calls_are_counted(tmp_path: Path) -> None:
    target, (cases, table) = TARGETS["binary"], made("binary")
    answers = []
    for n, row in enumerate(table):
        label_set = target.classes if n % 3 == 0 else (target.classes[int(row.argmax())],)
        reason = "unlike the training cases" if n < 2 else ""
        answers.append(Answer(row, label_set=label_set, abstained=reason, called=target.classes[1]))
    answers[1] = Answer(None, "unreadable")  # in no set, and called neither
    run = run_of(target, tmp_path).measure(label_sets={"coverage": 0.9, "n": 100})
    entry = write_scores(run, cases, answers, "test", grouped(cases))["splits"]["test"]
    inside = [case.truth in a.label_set for case, a in zip(cases, answers, strict=True)]
    found = entry["label_sets"]
    assert found["coverage"] == pytest.approx(np.mean(inside))
    assert found["low"] <= found["coverage"] <= found["high"]
    assert found["promised"] == 0.9
    assert found["sizes"] == [1, 15, 8]
    assert found["mean_size"] == pytest.approx(31 / N)
    assert entry["n_abstained"] == 1
    point = entry["operating_point"]
    assert point["sensitivity"]["value"] == pytest.approx(11 / 12)
    assert point["specificity"]["value"] == 0


def test_without_sets_intervals_or_threshold_nothing_is_claimed(tmp_path: Path) -> None:
    for kind in ("binary", "regression"):
        cases, table = made(kind)
        answers = [Answer(row) for row in table]
        entry = write_scores(
            run_of(TARGETS[kind], tmp_path / kind), cases, answers, "test", grouped(cases)
        )
        found = entry["splits"]["test"]
        assert not {"label_sets", "operating_point"} & set(found)
        assert "interval_coverage" not in {s["name"] for s in found["scores"]}


def test_another_subset_keeps_the_first(tmp_path: Path) -> None:
    cases, table = made("binary")
    run = run_of(TARGETS["binary"], tmp_path)
    answers = [Answer(row) for row in table]
    write_scores(run, cases, answers, "val", grouped(cases))
    write_scores(run, cases[:10], answers[:10], "test", grouped(cases))
    metrics = write_scores(run, cases[:4], answers[:4], "val", grouped(cases))
    assert {name: e["n_cases"] for name, e in metrics["splits"].items()} == {"val": 4, "test": 10}
    counts = run.predictions().to_pandas()["split"].value_counts().to_dict()
    assert counts == {"test": 10, "val": 4}


def test_intervals_draw_whole_groups(tmp_path: Path) -> None:
    cases, table = made("binary")
    answers = [Answer(row) for row in table]
    apart = {case.key: n for n, case in enumerate(cases)}
    alike = {case.key: n // 6 for n, case in enumerate(cases)}  # look-alikes of three patients
    run = run_of(TARGETS["binary"], tmp_path)
    counts = {}
    for name, groups in (("apart", apart), ("alike", alike)):
        entry = write_scores(run, cases, answers, name, groups)["splits"][name]
        counts[name] = entry["n_patients"]
    assert counts == {"apart": N // 2, "alike": N // 6}  # a patient's cases bear one name
    rows = run.predictions().to_pandas().query("split == 'alike'")
    assert rows.groupby("group")["patient"].nunique().tolist() == [3] * (N // 6)
    assert set(rows["group"]) <= set(rows["patient"])
