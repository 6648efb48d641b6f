# SPDX-License-Identifier: Apache-2.0
"""Two run folders compared as a user does; other cases, truths or targets are refused by name."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from vesalius.errors import CohortError, RunError, UsageError
from vesalius.files import write_json
from vesalius.flows.compare import compare
from vesalius.metrics import compare_masks, failed_masks
from vesalius.tasks.run import Run
from vesalius.tasks.targets import Target

KEYS = [f"case-{n:02}" for n in range(40)]


def write_run(folder, frame, decisions, *, task="classify", target="diagnosis", number="a"):
    plan = {
        "format": 1, "id": number * 16, "task": task, "target": target, "decisions": decisions,
        "measured": {"finished": True}, "audit": [], "command": "vesalius train",
    }  # fmt: skip
    write_json(folder / "plan.json", plan)
    frame.to_parquet(folder / "predictions.parquet")
    return Run.load(folder)


def rows(seed, skill, classes=("benign", "malignant"), n=40):
    """Return predictions as evaluation writes them; the truths are the same for every seed."""
    truth = np.random.default_rng(99).integers(0, len(classes), n)
    generator = np.random.default_rng(seed)
    table = generator.dirichlet(np.ones(len(classes)), n)
    table[np.arange(n), truth] += skill
    table /= table.sum(1, keepdims=True)
    frame = pd.DataFrame(
        {
            "key": KEYS[:n],
            "patient": [f"p-{k // 2}" for k in range(n)],
            "split": "test",
            "truth": [classes[k] for k in truth],
            "predicted": [classes[k] for k in table.argmax(1)],
            "failed": False,
        }
    )
    return frame.assign(**{f"p_{name}": table[:, k] for k, name in enumerate(classes)})


def decided(kind="binary", classes=("benign", "malignant")):
    return {"target": Target("diagnosis", kind, tuple(classes)).to_json()}


@pytest.fixture
def two(tmp_path):
    better = rows(2, 1.5).sample(frac=1, random_state=0)  # in another order
    better.loc[better["key"] == "case-05", "failed"] = True
    better.loc[better["failed"], ["p_benign", "p_malignant"]] = np.nan
    spare = rows(3, 0.1).assign(split="val")
    return (
        write_run(tmp_path / "a", pd.concat([rows(1, 0.1), spare]), decided()),
        write_run(tmp_path / "b", better, decided(), number="b"),
    )


def test_a_better_run_is_told_apart(two, tmp_path):
    found = compare(*two, out=tmp_path / "out")
    assert (found.n_cases, found.n_patients) == (40, 20)
    assert (found.failed_a, found.failed_b) == (0, 1)
    assert (found.run_a, found.run_b) == ("classify-aaaaaaaa", "classify-bbbbbbbb")
    differences = {d.name: d for d in found.differences if not d.label}
    first, second = rows(1, 0.1), rows(2, 1.5)
    auc = sk.roc_auc_score(first["truth"] == "malignant", first["p_malignant"])
    assert differences["auc"].a == pytest.approx(auc)
    right = (second["truth"] == second["predicted"]).to_numpy(copy=True)
    right[5] = False  # failed
    assert differences["accuracy"].b == pytest.approx(right.mean())
    assert differences["auc"].verdict == "B better"
    assert differences["auc"].p_better > 0.99
    assert differences["nll"].better == "lower"
    written = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert written == json.loads(json.dumps(found.to_json()))
    assert found.report == tmp_path / "out" / "comparison.html"
    assert found.report.is_file()


def test_lines_are_a_table(two):
    lines = compare(two[0].path, two[1].path).lines()
    assert lines[0] == "40 cases of 20 patients in 'test'"
    assert lines[2] == "B: classify-bbbbbbbb, 1 failed"
    head = next(line for line in lines if line.startswith("score"))
    auc = next(line for line in lines if line.startswith("auc"))
    assert auc.index("B better") == head.index("verdict")
    assert all(line == line.rstrip() for line in lines)


def test_exchanged_runs_give_the_opposite(two):
    forth, back = compare(*two), compare(*reversed(two))
    for one, other in zip(forth.differences, back.differences, strict=True):
        if one.difference is not None:
            assert one.difference == pytest.approx(-other.difference)
            assert one.p_better == pytest.approx(1 - other.p_better)


def test_an_ordinal_run_against_one_of_classes_in_another_order(tmp_path):
    grades = ("mild", "none", "worst")  # by name; the grades are none < mild < worst
    plain = write_run(tmp_path / "a", rows(1, 0.3, grades), decided("multiclass", grades))
    ordinal = write_run(
        tmp_path / "b", rows(2, 0.6, grades), decided("ordinal", ("none", "mild", "worst"))
    )
    found = {d.name: d for d in compare(plain, ordinal).differences if not d.label}
    place = {"none": 0, "mild": 1, "worst": 2}
    frame = rows(1, 0.3, grades)
    distance = frame["truth"].map(place) - frame["predicted"].map(place)
    assert found["grade_mae"].a == pytest.approx(distance.abs().mean())
    assert found["accuracy"].a == pytest.approx((frame["truth"] == frame["predicted"]).mean())
    both = {d.name: d for d in compare(ordinal, plain).differences if not d.label}
    assert both["grade_mae"].b == found["grade_mae"].a


def test_several_labels(tmp_path):
    generator = np.random.default_rng(0)
    labels = ("edema", "nodule")
    states = generator.integers(0, 2, (40, 2))
    text = ["; ".join(n for n, on in zip(labels, row, strict=True) if on) for row in states]
    text[0] = "?edema; nodule"
    frames = []
    for skill in (0.1, 0.5):
        table = np.clip(generator.random((40, 2)) * 0.5 + skill * states, 0, 1)
        frame = rows(0, 0).assign(truth=text)
        frames.append(frame.assign(p_edema=table[:, 0], p_nodule=table[:, 1]))
    decisions = decided("multilabel", labels)
    runs = [
        write_run(tmp_path / name, frame, decisions, target="edema,nodule")
        for name, frame in zip("ab", frames, strict=True)
    ]
    found = {(d.name, d.label): d for d in compare(*runs).differences}
    known = frames[0].iloc[1:]
    assert found["auc", "edema"].a == pytest.approx(
        sk.roc_auc_score(states[1:, 0], known["p_edema"])
    )
    assert found["auc", ""].verdict == "B better"


def test_numbers_with_intervals(tmp_path):
    truth = np.arange(40.0)
    decisions = decided("regression", ())
    runs = []
    for name, error in (("a", 3.0), ("b", 1.0)):
        frame = rows(0, 0).drop(columns=["p_benign", "p_malignant"])
        value = truth + np.where(np.arange(40) % 2, error, -error)
        frame = frame.assign(
            truth=[repr(float(t)) for t in truth], value=value, low=value - 2, high=value + 2
        )
        runs.append(write_run(tmp_path / name, frame, decisions, target="age"))
    found = {d.name: d for d in compare(*runs).differences}
    assert (found["mae"].a, found["mae"].b) == (3, 1)
    assert found["mae"].verdict == "B better"
    assert (found["interval_coverage"].a, found["interval_coverage"].b) == (0, 1)
    assert found["interval_coverage"].better == "nearer to 0.9"
    bare = pd.read_parquet(tmp_path / "b" / "predictions.parquet").assign(low=None, high=None)
    unbounded = write_run(tmp_path / "c", bare, decisions, target="age")
    names = {d.name for d in compare(runs[0], unbounded).differences}
    assert names == {"mae", "rmse", "r2", "spearman"}


def test_segmentation_by_case(tmp_path):
    labels = {1: "liver"}
    tables = {"a": [], "b": []}
    for number in range(12):
        truth = np.zeros((8, 8, 8), np.uint8)
        truth[2:6, 2:6, 2 : 4 + number % 3] = 1
        for name, shift in (("a", 2), ("b", 1)):
            scores = compare_masks(np.roll(truth, shift, 0), truth, (1.0, 1.0, 2.0), labels)
            if name == "b" and number == 3:
                scores = failed_masks(truth, (1.0, 1.0, 2.0), labels)
            base = {"key": KEYS[number], "patient": f"p-{number}", "split": "test"}
            tables[name].append({**base, "failed": scores["dice"] == 0, **scores})
    decisions = {"labels": ["liver"]}
    runs = [
        write_run(tmp_path / name, pd.DataFrame(table), decisions, task="segment", target=None)
        for name, table in tables.items()
    ]
    found = {(d.name, d.label): d for d in compare(*runs).differences}
    values = [np.mean([row["dice"] for row in table]) for table in tables.values()]
    assert (found["dice", ""].a, found["dice", ""].b) == pytest.approx(values)
    assert found["hd95", "liver"].better == "lower"
    assert compare(*runs).failed_b == 1
    other = pd.DataFrame(tables["b"])
    other.loc[:2, "volume_liver"] += 1
    changed = write_run(tmp_path / "c", other, decisions, task="segment", target=None)
    with pytest.raises(CohortError, match="3 of 12 cases have another truth"):
        compare(runs[0], changed)


def test_other_cases_truths_and_patients_are_counted(two, tmp_path):
    a, b = two
    frame = rows(2, 0.5)
    fewer = write_run(tmp_path / "c", frame.iloc[3:].replace("case-39", "new"), decided())
    with pytest.raises(CohortError, match="4 only in A, 1 only in B, 36 in both"):
        compare(a, fewer)
    flipped = frame.assign(truth=["benign", "malignant"] * 20)
    wrong = int((flipped["truth"] != frame["truth"]).sum())
    with pytest.raises(CohortError, match=f"{wrong} of 40 cases have another truth"):
        compare(a, write_run(tmp_path / "d", flipped, decided()))
    renamed = frame.assign(patient=[f"q-{k // 2}" for k in range(40)])
    assert compare(a, write_run(tmp_path / "e", renamed, decided())).n_patients == 20
    regrouped = frame.assign(patient=[f"p-{k // 4}" for k in range(40)])
    with pytest.raises(CohortError, match="another patient"):
        compare(a, write_run(tmp_path / "f", regrouped, decided()))
    assert b.id != a.id


def test_other_targets_and_missing_predictions_are_refused(two, tmp_path):
    a, b = two
    with pytest.raises(RunError, match=r"holds predictions of test, none of 'val'.*--split val"):
        compare(a, b, split="val")
    (b.path / "predictions.parquet").unlink()
    with pytest.raises(RunError, match="vesalius evaluate"):
        compare(a, b)
    frame = rows(2, 0.5)
    other = write_run(tmp_path / "c", frame, decided(), target="grade")
    with pytest.raises(UsageError, match=r"same target, got 'diagnosis' \(A\) and 'grade' \(B\)"):
        compare(a, other)
    with pytest.raises(UsageError, match="same task"):
        compare(a, write_run(tmp_path / "d", frame, {}, task="segment"))
    classes = ("benign", "unclear")
    with pytest.raises(UsageError, match="same classes"):
        compare(a, write_run(tmp_path / "e", rows(1, 0, classes), decided(classes=classes)))
    with pytest.raises(UsageError, match="same kind of target"):
        compare(a, write_run(tmp_path / "f", frame, decided("multilabel")))
    with pytest.raises(RunError, match="a target cannot be read"):
        compare(a, write_run(tmp_path / "g", frame, {}))
    with pytest.raises(RunError, match="no run folder"):
        compare(a, tmp_path / "nothing")
