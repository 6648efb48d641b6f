# SPDX-License-Identifier: Apache-2.0
"""Compress as a user does: a mixture becomes one small network, a run as any other."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vesalius import io
from vesalius.cohorts import Cohort
from vesalius.errors import CohortError, RunError, UsageError
from vesalius.files import read_json, write_json
from vesalius.flows.compare import compare
from vesalius.flows.compress import compress
from vesalius.flows.compressing import choice, classification, cost
from vesalius.flows.compressing.result import Compression
from vesalius.flows.compressing.teacher import find_teacher
from vesalius.flows.compressing.unlabeled import unlabeled_cases
from vesalius.flows.evaluate import evaluate
from vesalius.flows.predict import predict
from vesalius.flows.scan import scan
from vesalius.flows.searching.result import SearchResult
from vesalius.flows.train import train
from vesalius.geometry import flat_affine
from vesalius.reporting.compress import write_compression
from vesalius.tasks.run import Run
from vesalius.tuning.trial import Trial
from vesalius.volume import Volume

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported
LABELLED, ALL, STEPS = 130, 160, 24


@pytest.fixture(scope="module", autouse=True)
def _short() -> Iterator[None]:
    """Few answers are timed, so that the tests are quick."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "CALLS", 6)
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scanned cohort of ultrasound pictures, the last of them without a label, and a teacher."""
    folder = tmp_path_factory.mktemp("compress")
    (folder / "data").mkdir()
    rng = np.random.default_rng(0)
    with (folder / "labels.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "modality", "kind", "patient"])
        for number in range(ALL):
            data = rng.normal(100, 20, (1, 24, 24, 1))
            data[0, 4 : 9 + 6 * (number % 2), 8:14] += 80
            name = f"{number:03}.png"
            pixels = Volume(data.clip(0, 255).astype(np.uint8), flat_affine())
            io.write(pixels, folder / "data" / name)
            kind = "ab"[number % 2] if number < LABELLED else ""
            writer.writerow([name, "US", kind, f"p{number % LABELLED}"])
    scan(folder / "data", labels=folder / "labels.csv", out=folder / "cohort", workers=1)
    train("classify", folder / "cohort", target="kind", model="frozen", out=folder / "teacher")
    return folder


@pytest.fixture(scope="module")
def compressed(root: Path) -> Compression:
    """Return a student of the most able network, whatever else the machine does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choice, "seconds_of", lambda *_: (1.0, 0.1))
        return compress(root / "teacher", root / "cohort", steps=STEPS, out=root / "student")


def test_the_student_is_a_small_run_that_says_whose_it_is(
    root: Path, compressed: Compression
) -> None:
    teacher, run = Run.load(root / "teacher"), Run.load(root / "student")
    assert run.finished
    assert run.decisions["teacher"]["run"] == teacher.id
    assert any(f"student of the run classify-{teacher.id[:8]}" in line for line in run.audit())
    assert [m["kind"] for m in run.plan["measured"]["members"]] == ["network"]
    assert run.subsets() == teacher.subsets()
    assert (run.path / "trust.json").exists()  # calibrated as the teacher is
    size = {name: one.size for name, one in compressed.costs.items()}
    assert size["teacher"] >= 5 * size["student"] == 5 * sum(
        (run.path / name).stat().st_size
        for name in classification_files(run)
    )  # fmt: skip
    assert compressed.smaller == size["teacher"] / size["student"]
    assert all(0 < c.processor <= 1.1 * c.p99 and c.p50 <= c.p99 for c in compressed.costs.values())
    assert all(50e6 < c.memory < 5e9 for c in compressed.costs.values())
    assert compressed.within
    held = read_json(root / "student" / "compression.json")
    assert held == json.loads(json.dumps(compressed.to_json()))
    page = (root / "student" / "compression.html").read_text()
    assert "student" in page
    assert str(root) not in page + json.dumps(held)
    assert any("times as fast" in line for line in compressed.lines())


def classification_files(run: Run) -> list[str]:
    return [path.name for path in cost.run_files(run.path, "classify")]


def test_it_has_learned_what_its_teacher_knows(root: Path, compressed: Compression) -> None:
    assert compressed.quality.name == "auc"
    assert compressed.quality.b is not None
    assert compressed.quality.b > 0.8
    for name in ("teacher", "student"):
        evaluate(root / name, root / "cohort")
    found = compare(root / "teacher", root / "student")
    auc = next(d for d in found.differences if d.name == "auc" and not d.label)
    assert auc.b is not None
    assert auc.b > 0.8
    row = Run.load(root / "student").predictions().to_pylist()[-1]
    image = Cohort.open(root / "cohort").row(row["key"])
    answer = predict(root / "student", root / "data" / image["files"][0], out=root / "answer")
    assert answer.predicted == row["predicted"]


def test_images_without_a_label_teach_unless_they_judge(root: Path) -> None:
    teacher, cohort = Run.load(root / "teacher"), Cohort.open(root / "cohort")
    subsets = teacher.subsets()
    found, lines = unlabeled_cases(cohort, classification.cases_of(teacher, cohort), subsets)
    keys = {row["key"] for case in found for row in case.rows}
    rows = cohort.to_arrow(["key", "patient", "label_kind"]).to_pylist()
    told = {row["key"] for row in rows if row["label_kind"]}
    assert keys
    assert not keys & told
    assert {subsets[key] for key in keys} == {"train"}
    judged = {row["patient"] for row in rows if subsets[row["key"]] != "train"}
    assert not judged & {row["patient"] for row in rows if row["key"] in keys}
    assert len(keys) < ALL - LABELLED  # some are of patients that judge
    assert f"{len(keys)} images without a label" in lines[0]
    # an image that was added since, of a patient that judges, is left out as well
    younger = {k: s for k, s in subsets.items() if k in told}
    again, _ = unlabeled_cases(cohort, classification.cases_of(teacher, cohort), younger)
    assert {row["key"] for case in again for row in case.rows} == keys


def test_the_same_call_finds_the_student_and_exports_it(
    root: Path, compressed: Compression
) -> None:
    pytest.importorskip("onnxruntime")
    weights = (root / "student" / "model.safetensors").stat().st_mtime_ns
    again = compress(
        root / "teacher", root / "cohort", steps=STEPS, out=root / "student", to="onnx", int8=True
    )
    assert (root / "student" / "model.safetensors").stat().st_mtime_ns == weights
    assert again.exported is not None
    assert again.exported.name == "model.onnx"
    assert list(again.costs) == ["teacher", "student", "onnx"]
    assert (again.int8 is None) == bool(again.refused)
    if again.int8 is not None:
        assert again.int8["fp32"] - again.int8["int8"] <= 0.005
        assert again.costs["onnx"].size < again.costs["student"].size
    assert again.quality == compressed.quality
    with pytest.raises(RunError, match="different: seed"):
        compress(root / "teacher", root / "cohort", steps=STEPS, out=root / "student", seed=1)


def test_8_bits_that_cost_too_much_are_refused_with_a_word(
    root: Path, compressed: Compression, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    scores = iter([0.9, 0.8])
    monkeypatch.setattr(classification, "_score", lambda *_: next(scores))
    run, cohort = Run.load(compressed.path), Cohort.open(root / "cohort")
    path, int8, refused = classification.export(
        run, tmp_path / "onnx", to="onnx", int8=True, cohort=cohort,
        cases=classification.cases_of(run, cohort), progress=None,
    )  # fmt: skip
    assert int8 is None
    assert "falls from 0.9000 to 0.8000" in refused
    assert sorted(file.name for file in path.parent.iterdir()) == ["model.onnx", "model.onnx.json"]
    assert "int8" not in read_json(path.with_name("model.onnx.json"))
    lines = list(replace(compressed, refused=refused).lines())
    assert any("8-bit integers are refused" in line for line in lines)


def test_a_student_that_is_worse_is_no_quiet_result(
    compressed: Compression, tmp_path: Path
) -> None:
    assert compressed.worse == ""
    assert not any("warning" in line for line in compressed.lines())
    lost = replace(compressed.quality, difference=-0.2, low=-0.3, high=-0.1, verdict="A better")
    worse = replace(compressed, quality=lost)
    assert any("keep the teacher" in line for line in worse.lines())
    page = write_compression(worse.to_json(), tmp_path).read_text()
    assert "keep the teacher" in page


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"to": "onxn"}, "Did you mean 'onnx'"),
        ({"int8": True}, "for which engine"),
        ({"max_latency": 0}, "max_latency must be above 0"),
        ({"max_size": -1}, "max_size must be above 0"),
        ({"minutes": 0}, "minutes must be above 0"),
        ({"minutes": 1, "steps": 1}, "not both"),
        ({"max_size": 1000}, "no network keeps 0.001 MB"),
        ({"max_latency": 1e-7}, "no network keeps 0.0001 ms"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    root: Path, tmp_path: Path, options: dict, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        compress(root / "teacher", root / "cohort", out=tmp_path / "none", **options)
    assert not (tmp_path / "none").exists()


def test_another_cohort_and_an_unfinished_or_exported_teacher_are_refused(
    root: Path, tmp_path: Path
) -> None:
    other = Cohort.open(root / "cohort").filter("label_kind = 'a'")
    with pytest.raises(CohortError, match=r"lacks .* images that the run was made from"):
        compress(root / "teacher", other, out=tmp_path / "none")
    plan = read_json(root / "teacher" / "plan.json")
    write_json(tmp_path / "half" / "plan.json", {**plan, "measured": {}})
    with pytest.raises(RunError, match="is not finished"):
        compress(tmp_path / "half", root / "cohort")
    write_json(tmp_path / "boxes" / "plan.json", {**plan, "task": "detect"})
    with pytest.raises(UsageError, match="classify or segment, got one of detect"):
        compress(tmp_path / "boxes", root / "cohort")
    with pytest.raises(RunError, match="no run folder"):
        find_teacher(tmp_path)


def test_of_a_search_the_best_run_is_the_teacher(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "search.json").write_text("{}")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "best").symlink_to(root / "teacher")
    asked = {"max_latency": None, "max_memory": None, "max_size": None}
    costs = {"latency": 1.0, "memory": 1.0, "size": 1.0}
    trials = tuple(
        Trial(number, {}, 0, "done", {"auc": auc, **costs}, plan=plan)
        for number, (auc, plan) in enumerate([(0.7, "worse"), (0.9, "best")])
    )
    found = SearchResult(tmp_path, {"asked": asked, "quality": "auc"}, trials, 1.0, {"winner": 1})
    monkeypatch.setattr(SearchResult, "load", lambda _: found)
    run, origin = find_teacher(tmp_path)
    assert run.id == Run.load(root / "teacher").id
    assert f"best run, classify-{run.id[:8]}, of 2 trials of a search" in origin
    found = replace(found, confirmed=None)
    with pytest.raises(RunError, match="has not ended; go on with"):
        find_teacher(tmp_path)
    found = replace(found, confirmed={}, trials=())
    with pytest.raises(RunError, match="no trial of the search"):
        find_teacher(tmp_path)
