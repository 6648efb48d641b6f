# SPDX-License-Identifier: Apache-2.0
"""A student is shown what its teacher is asked about, and learns labels where there are any."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax

from vesalius.files import write_json
from vesalius.tasks.cases import Case, classification_cases
from vesalius.tasks.classify import plan as planning
from vesalius.tasks.classify import student, student_plan
from vesalius.tasks.classify.fit import train_run
from vesalius.tasks.classify.predict import Classifier
from vesalius.tasks.classify.store import Store
from vesalius.tasks.classify.student_lessons import Lessons, single_views
from vesalius.tasks.classify.student_teacher import ask
from vesalius.tasks.run import Run, start_run

sys.path.insert(0, str(Path(__file__).parent))
from sets import TARGETS

SPEC = {"batch": 4, "views": 4, "augmentation": {"rotation": 15.0}, "label_smoothing": 0.0}


def lessons(*, views: int = 1, blends: bool = True) -> Lessons:
    """12 cases of one image; the last 4 have no label."""
    rng = np.random.default_rng(0)
    keys = [f"{n:02}" for n in range(12)]
    store = Store(
        rng.normal(size=(12 * views, 1, 8, 8)).astype(np.float16),
        {key: (n * views, views) for n, key in enumerate(keys)},
        {},
        dict.fromkeys(keys, (0, 0, 0)),
    )
    cases = [Case(k, ({"key": k},), k, ("no", "yes")[n % 2]) for n, k in enumerate(keys)]
    return Lessons(SPEC, store, cases[:8], cases[8:], TARGETS["binary"], 0, blends)


def test_a_lesson_is_the_same_whenever_it_is_looked_at() -> None:
    given = lessons()
    for number in range(4):
        one, two = given.images(number), given.images(number)
        for a, b in zip(one, two, strict=True):
            np.testing.assert_array_equal(a[0].views, b[0].views)
    assert not np.array_equal(given.images(0)[0][0].views, given.images(2)[0][0].views)
    assert given.epoch == 3


def test_every_other_lesson_is_blended_and_told_no_label() -> None:
    given, plain = lessons(), lessons(blends=False)
    for number in range(6):
        told, truth = given.truths(number)
        same = all(
            np.array_equal(a[0].views, b[0].views)
            for a, b in zip(given.images(number), plain.images(number), strict=True)
        )
        assert same == (number % 2 == 0)
        assert told.sum() == len(truth)
        if number % 2:
            assert not told.any()
    told = [given.truths(number)[0] for number in (0, 2, 4)]
    assert 0 < np.concatenate(told).sum() < 12  # some cases have no label
    assert single_views(given.store, given.labelled)
    assert not single_views(lessons(views=2).store, given.labelled)


def test_asking_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    asked: list[int] = []

    class Teacher:
        def answer(self, cases):
            asked.append(len(cases))
            means = np.array([case[0].views.mean() for case in cases])
            return np.stack([means, 1 - means], 1), None

    def until(most: int, *, late: bool = False):
        return ask(
            tmp_path / "taught.npy", lessons(), Teacher(), most=most, late=lambda: late,
            progress=None,
        )  # fmt: skip

    first = until(3)
    assert first.shape == (3, 4, 2)
    whole = until(5)
    assert len(asked) == 5
    np.testing.assert_array_equal(whole[:3], first)
    assert len(until(9, late=True)) == 5
    (tmp_path / "taught.npy").unlink()
    assert len(until(9, late=True)) == 2  # one lesson as it is, one blended


@pytest.mark.parametrize("kind", list(TARGETS))
def test_the_loss_is_least_at_the_teachers_answer(kind: str) -> None:
    target, rng = TARGETS[kind], np.random.default_rng(0)
    right = torch.tensor(rng.normal(size=(6, target.outputs)), dtype=torch.float32)
    taught = torch.tensor(target.probabilities(right.numpy()), dtype=torch.float32)
    nobody = torch.zeros(6, dtype=torch.bool)
    given = {"temperature": 2.0, "share": 0.8}

    def lost(logits: torch.Tensor) -> float:
        empty = torch.empty(0)
        return float(student.loss(target, logits, taught, nobody, empty, **given))

    least = lost(right)
    for _ in range(5):
        other = right + torch.tensor(rng.normal(size=right.shape), dtype=torch.float32)
        assert lost(other) > least + 1e-3


def test_labels_count_by_their_share_of_the_cases() -> None:
    target = TARGETS["binary"]
    logits = torch.tensor([[1.0, -1.0], [0.5, 0.2], [0.0, 2.0], [0.3, 0.1]])
    taught = torch.tensor(softmax(logits.numpy(), 1))
    told = torch.tensor([True, False, True, False])
    found = student.loss(
        target, logits, taught, told, torch.tensor([0, 1]), temperature=2.0, share=0.75
    )
    own = target.loss(logits[told], torch.tensor([0, 1]))
    assert float(found) == pytest.approx(0.25 * 0.5 * float(own), abs=1e-5)


def teacher_of(cohort, rows: dict[str, str], out: Path):
    """Return a run of a narrow network, and the cases."""
    cases = classification_cases(cohort, "answer")
    part = cases.subset(rows, "train")
    found = planning.fingerprint(part, cases.target)
    decisions = planning.decide(
        found, cases.target, [case.truth for case in part], model="resnet10",
        budget={"steps": 40}, case=cases.kind,
    )  # fmt: skip
    decisions |= {"operating": {}, "start": ""}
    decisions["networks"][0]["network"]["options"]["width"] = 8
    plan = {
        "task": "classify", "target": "answer", "seed": 0, "request": {"task": "classify"},
        "fingerprint": found, "decisions": decisions, "measured": {}, "command": "test",
        "cohort": {"digest": cohort.digest(), "version": 1, "license": "CC0", "where": ""},
        "split_digest": "s", "audit": [],
    }  # fmt: skip
    run = start_run(plan, out)
    write_json(out / "split.json", {"rows": rows})
    return train_run(run, cohort, cases, started=time.monotonic()), cases


def test_a_student_learns_resumes_exactly_and_is_a_run(striped, thirds, tmp_path: Path) -> None:
    """Images 50 to 59 of the training part have no label: the teacher's answer is all there is."""
    rows = {key: "train" if int(key, 16) < 60 else subset for key, subset in thirds.items()}
    strangers = []
    for row in striped.rows[50:60]:
        row["label_answer"] = None
        strangers.append(Case(row["key"], (row,), row["patient"]))
    teacher, cases = teacher_of(striped, rows, tmp_path / "teacher")
    decisions = list(student_plan.candidates(teacher, {"steps": 20}))[-1]
    mixture, size = student_plan.untrained(decisions)
    assert mixture.members[0].name == "cnn-28-w8"

    def begun(name: str) -> Run:
        plan = {**teacher.plan, "decisions": decisions, "measured": {}, "audit": []}
        run = start_run(
            {k: v for k, v in plan.items() if k not in ("format", "id")}, tmp_path / name
        )
        for file in ("split.json", "normalizer.json"):
            (run.path / file).write_bytes((teacher.path / file).read_bytes())
        return run

    def train(run: Run, progress=None) -> Run:
        return student.train_student(
            run, striped, cases, strangers, teacher, started=time.monotonic(), progress=progress
        )

    def stop(stage: str, done: int, total: int | None) -> None:
        if (stage, done) == ("training", 13):
            raise KeyboardInterrupt

    whole = train(begun("whole"))
    with pytest.raises(KeyboardInterrupt):
        train(begun("cut"), stop)
    cut = train(Run.load(tmp_path / "cut"))
    for name, value in whole.weights().items():
        assert (value == cut.weights()[name]).all(), name
    assert whole.finished
    assert any("50 with a label, 10 without" in line for line in whole.audit())
    assert (whole.path / "model.safetensors").stat().st_size < size
    assert not (whole.path / "cache").exists()
    scores = {s["name"]: s["value"] for s in whole.metrics["splits"]["val"]["scores"]}
    assert scores["auc"] > 0.8
    image = striped.volumes[striped.rows[0]["key"]]
    assert Classifier.load(whole).predict([image]).sum() == pytest.approx(1)
