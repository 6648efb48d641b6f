# SPDX-License-Identifier: Apache-2.0
"""A segmenter's student learns the teacher's probabilities, moved as the image is."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from vesalius.files import write_json
from vesalius.tasks.cases import Case, segmentation_cases
from vesalius.tasks.run import Run, start_run
from vesalius.tasks.segment import plan as planning
from vesalius.tasks.segment import student, student_plan
from vesalius.tasks.segment.fit import train_run
from vesalius.tasks.segment.patches import prepare
from vesalius.tasks.segment.predict import Segmenter
from vesalius.tasks.segment.structures import Structures
from vesalius.tasks.segment.student_teacher import ask
from vesalius.volume import LabelMap, Volume

CLASSES = Structures({"a": [1], "b": [2]}, [1, 2])
REGIONS = Structures({"a": [1], "b": [2]}, [1, 2], regions=True)


@pytest.mark.parametrize("structures", [CLASSES, REGIONS])
def test_the_loss_is_least_at_the_teachers_probabilities(structures: Structures) -> None:
    rng = np.random.default_rng(0)
    answers = 2 if structures.regions else 3
    logits = torch.tensor(rng.normal(0, 2, (2, answers, 4, 4, 4)), dtype=torch.float32)
    taught = torch.sigmoid(logits) if structures.regions else torch.softmax(logits, 1)[:, 1:]
    codes, nobody = torch.zeros(2, 4, 4, 4, dtype=torch.int64), torch.zeros(2, dtype=torch.bool)

    def lost(x: torch.Tensor) -> float:
        return float(student.loss([x, x[..., ::2]], taught, codes, nobody, structures, share=0.7))

    assert lost(logits) == pytest.approx(0, abs=1e-4)
    assert lost(logits + torch.randn(logits.shape)) > 0.05
    told = torch.tensor([True, False])
    with_labels = student.loss(logits, taught, codes, told, structures, share=0.7)
    assert float(with_labels) > 0.01  # the labels say something else


def test_what_was_moved_with_its_image_is_still_what_the_teacher_says(tmp_path: Path) -> None:
    """A teacher that repeats the image: patches of both are equal however they are moved."""
    rng = np.random.default_rng(0)
    prepared = {"cache": tmp_path, "taught": tmp_path / "taught"}
    prepared["taught"].mkdir()
    for folder in prepared.values():
        table = np.abs(np.random.default_rng(1).normal(size=(1, 12, 14, 10))).astype(np.float16)
        np.save(folder / "k.image.npy", table)
        np.save(folder / "k.label.npy", np.zeros((12, 14, 10), np.uint8))
        np.save(folder / "k.spots.npy", np.zeros((0, 4), np.int32))
    decisions = {
        "augmentation": {"rotation": 20.0, "flips": [0], "planes": [[0, 1]], "gain": 0.0,
                         "offset": 0.0, "gamma": 0.0, "noise": 0.0},
        "batch": 2, "spacing": [1.0, 1.0, 1.0], "patch": [8, 8, 8], "forced_foreground": 1 / 3,
        "labels": ["a"], "values": [1], "regions": True, "teacher": {"share": 1.0},
    }  # fmt: skip
    seen = []

    def watch(outputs, taught, codes, masked, structures, *, share):
        seen.append((outputs, taught))
        return outputs.sum()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(student, "loss", watch)
        both = [student.Prepared(folder, frozenset("k"), {}) for folder in prepared.values()]
        step_loss = student._step_loss(
            decisions, *both, ["k"], {"k"}, int(rng.integers(99)), torch.device("cpu")
        )
        for step in range(6):
            step_loss(torch.nn.Identity(), step)
    for image, taught in seen:
        torch.testing.assert_close(image, taught, atol=1e-4, rtol=1e-4)
    assert len({float(image.sum()) for image, _ in seen}) == 6  # not the same patch again


def images(count: int) -> list[tuple[Volume, LabelMap]]:
    """Bright balls in noise, 16 voxels wide."""
    rng = np.random.default_rng(0)
    index = np.stack(np.meshgrid(*[np.arange(16)] * 3, indexing="ij"), -1)
    out = []
    for _ in range(count):
        ball = np.linalg.norm(index - rng.uniform(6, 9, 3), axis=-1) < 5
        values = (100 + 40 * ball + rng.normal(0, 8, ball.shape)).astype(np.float32)
        mask = LabelMap(ball.astype(np.uint8)[None], np.eye(4), names={1: "ball"})
        out.append((Volume(values[None], np.eye(4), modality="MR"), mask))
    return out


def test_a_student_learns_from_images_without_a_mask_too_and_is_a_run(
    memory, tmp_path: Path
) -> None:
    pairs = images(14)
    cohort = memory.of(
        [{"volume": v, "mask": m, "patient": f"p{n}"} for n, (v, m) in enumerate(pairs[:11])]
        + [{"volume": v, "patient": f"p{20 + n}"} for n, (v, _) in enumerate(pairs[11:])]
    )
    keys = [row["key"] for row in cohort.rows]
    rows = {k: "val" if n in (8, 9, 10) else "train" for n, k in enumerate(keys)}
    cases = segmentation_cases(cohort)
    found = planning.fingerprint(cohort, cases.subset(rows, "train"))
    decisions = planning.decide(found, model="auto", budget={"steps": 40})
    decisions["optimizer"] = {**decisions["optimizer"], "lr": 0.01}
    plan = {
        "task": "segment", "target": None, "seed": 0, "request": {"task": "segment"},
        "fingerprint": found, "decisions": decisions, "measured": {}, "command": "test",
        "cohort": {"digest": cohort.digest(), "version": 1, "license": "CC0", "where": ""},
        "split_digest": "s", "audit": [],
    }  # fmt: skip
    teacher = start_run(plan, tmp_path / "teacher")
    write_json(teacher.path / "split.json", {"rows": rows})
    teacher = train_run(teacher, cohort, cases, started=time.monotonic())

    held = list(student_plan.candidates(teacher, {"steps": 25}))[-1]
    assert held["network"]["options"]["widths"][0] == 4
    _, size = student_plan.untrained(held)
    run = start_run({**plan, "decisions": held}, tmp_path / "student")
    for file in ("split.json", "normalizer.json"):
        (run.path / file).write_bytes((teacher.path / file).read_bytes())
    strangers = [Case(row["key"], (row,), row["patient"]) for row in cohort.rows[11:]]
    run = student.train_student(run, cohort, cases, strangers, teacher, started=time.monotonic())
    assert run.finished
    assert any("11 of 11 images: 8 with a mask, 3 without" in line for line in run.audit())
    assert (run.path / "model.safetensors").stat().st_size < size
    assert not (run.path / "cache").exists()
    dice = [s["value"] for s in run.metrics["splits"]["val"]["scores"] if s["name"] == "dice"]
    assert dice[0] > 0.7
    answer = Segmenter.load(Run.load(run.path)).predict(pairs[0][0])
    assert answer.shape == pairs[0][0].shape

    teacher_now = Segmenter.load(teacher)
    prepared = prepare(
        tmp_path / "cache", cohort, list(cases.cases[:3]), decisions, teacher.normalizer()
    )
    asked = {"late": lambda: True, "progress": None, "most_bytes": np.inf}
    said = ask(prepared, sorted(prepared.keys), teacher_now, **asked)
    assert len(said.keys) == 2  # no time for more
    key = min(said.keys)
    sure = np.asarray(said.image(key), np.float32)
    assert sure.shape == (1, *prepared.label(key).shape)
    assert sure.min() >= 0
    assert sure.max() <= 1
    predicted = teacher_now.predict(cohort.read(cases.cases[0].rows[0])).data[0]
    np.testing.assert_array_equal(sure[0] > 0.5, predicted > 0)
