# SPDX-License-Identifier: Apache-2.0
"""The detector learns to find and to count discs, and answers in pixels of the source."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vesalius.errors import CohortError, DataError, RunError
from vesalius.files import read_json, write_json
from vesalius.geometry import flat_affine
from vesalius.metrics.detection import match
from vesalius.tasks.detect import plan as planning
from vesalius.tasks.detect.boxes import Boxes, boxes_of, empty
from vesalius.tasks.detect.cases import detection_cases
from vesalius.tasks.detect.draw import move
from vesalius.tasks.detect.fit import annotated, train_run
from vesalius.tasks.detect.predict import MARGIN, Detector, find_evidence
from vesalius.tasks.detect.score import score_cases
from vesalius.tasks.run import Run, start_run
from vesalius.training.log import read_log
from vesalius.volume import Volume

SIDE = 64


def discs(rng: np.random.Generator, spacing: float = 1.0) -> tuple[Volume, list[dict]]:
    """Dark discs (`cell`, several) and bright ones (`nucleus`, one or none) that do not touch."""
    places: list[tuple[float, float, float]] = []
    while len(places) < 5:
        r = rng.uniform(5, 7)
        x, y = rng.uniform(r, SIDE - r, 2)
        if all(np.hypot(x - a, y - b) > r + c + 1 for a, b, c in places):
            places.append((x, y, r))
    chosen = places[: rng.integers(2, 6)]
    i, j = np.meshgrid(np.arange(SIDE) + 0.5, np.arange(SIDE) + 0.5, indexing="ij")
    pixels = 100 + rng.normal(0, 4, (SIDE, SIDE))
    boxes = []
    for n, (x, y, r) in enumerate(chosen):
        bright = n == 0 and rng.random() < 0.7
        pixels[np.hypot(i - x, j - y) < r] += 60 if bright else -60
        name = "nucleus" if bright else "cell"
        boxes.append({"name": name, "x0": x - r, "y0": y - r, "x1": x + r, "y1": y + r})
    affine = flat_affine((spacing, spacing, 1.0))
    return Volume(pixels[None, ..., None].astype(np.float32), affine, calibrated=True), boxes


def make(memory, count: int):
    rng = np.random.default_rng(0)
    items = []
    for _ in range(count):
        volume, boxes = discs(rng)
        items.append({"volume": volume, "columns": {"boxes": json.dumps(boxes)}})
    return memory.of(items)


def parts(count: int) -> dict[str, str]:
    cut = int(0.6 * count), int(0.85 * count)
    names = ["train" if n < cut[0] else "val" if n < cut[1] else "test" for n in range(count)]
    return {f"{n:016x}": name for n, name in enumerate(names)}


def small(decisions: dict) -> dict:
    options = {"encoder": "resnet10", "options": {"width": 8}, "width": 16, "stride": 4}
    network = {**decisions["network"], "options": options, "pretrained": False, "scale": 1.0}
    optimizer = {**decisions["optimizer"], "lr": 5e-3}
    return {**decisions, "network": network, "optimizer": optimizer, "batch": 8}


def train(cohort, rows, out: Path, steps: int):
    cases = detection_cases(cohort)
    found = planning.fingerprint(cases.subset(rows, "train"))
    decisions = small(planning.decide(found, model="auto", budget={"steps": steps}))
    plan = {
        "task": "detect",
        "target": None,
        "seed": 0,
        "request": {"task": "detect"},
        "fingerprint": found,
        "decisions": decisions,
        "measured": {},
        "command": "test",
        "cohort": {"digest": cohort.digest(), "version": 1, "license": "CC0"},
        "split_digest": "s",
        "audit": [],
    }
    run = start_run(plan, out)
    write_json(out / "split.json", {"rows": rows})
    return train_run(run, cohort, cases, started=time.monotonic()), cases


HELD: list[tuple] = []


@pytest.fixture
def trained(memory, tmp_path_factory):
    """A trained run, made once for this file."""
    if not HELD:
        cohort, rows = make(memory, 60), parts(60)
        HELD.append((cohort, rows, *train(cohort, rows, tmp_path_factory.mktemp("run"), 60)))
    return HELD[0]


def test_it_finds_and_counts(trained) -> None:
    cohort, rows, run, cases = trained
    losses = [e["loss"] for e in read_log(run.path / "log.jsonl") if e["event"] == "step"]
    assert np.mean(losses[-5:]) < 0.3 * np.mean(losses[:5])
    detector = Detector.load(run)
    test = cases.subset(rows, "test")
    metrics = score_cases(run, detector, cohort, test, "test")
    found = {(s["name"], s["label"]): s for s in metrics["splits"]["test"]["scores"]}
    assert found["average_precision_50", "cell"]["value"] > 0.8
    assert found["count_mae", "cell"]["value"] < 0.6 * found["count_mae", "cell"]["baseline"]
    assert set(metrics["splits"]) == {"val", "test"}
    table = run.predictions().to_pylist()
    mine = [row for row in table if row["split"] == "test"]
    assert {row["key"] for row in mine} == {case.key for case in test}
    for row in mine:
        assert row["low_cell"] <= row["count_cell"]
        assert row["true_cell"] == sum(
            box["name"] == "cell"
            for box in json.loads(next(r for r in cohort.rows if r["key"] == row["key"])["boxes"])
        )


def test_boxes_are_in_pixels_of_the_source(trained) -> None:
    """The same image stated at half the spacing, twice as large, gives the same objects there."""
    _, _, run, _ = trained
    detector = Detector.load(run)
    volume, boxes = discs(np.random.default_rng(77))
    large = Volume(
        volume.data.repeat(2, axis=1).repeat(2, axis=2), flat_affine((0.5, 0.5, 1.0)),
        calibrated=True,
    )  # fmt: skip
    one, two = detector.detect(volume), detector.detect(large)
    truth = boxes_of({"boxes": json.dumps(boxes)}, detector.classes)
    assert [c.count for c in one.counts] == [c.count for c in two.counts]
    assert (match(two.boxes.corners / 2, two.boxes.scores, truth.corners) >= 0).mean() > 0.7
    assert (match(one.boxes.corners, one.boxes.scores, truth.corners) >= 0).mean() > 0.7


def test_the_count_is_the_number_of_boxes(trained) -> None:
    cohort, _, run, _ = trained
    detector = Detector.load(run)
    for row in cohort.rows[:5]:
        found = detector.detect(cohort.read(row))
        shown = found.boxes.count(len(detector.classes))
        assert [c.count for c in found.counts] == shown.tolist()
        assert found.boxes.scores.min(initial=1) >= 0
        assert found.boxes.scores.max(initial=0) <= 1


def test_a_failed_image_counts_as_wrong(trained) -> None:
    cohort, rows, run, cases = trained
    detector = Detector.load(run)
    test = cases.subset(rows, "test")
    before = score_cases(run, detector, cohort, test, "test")["splits"]["test"]
    lost = type(cohort)(cohort.rows, {**cohort.volumes, test[0].key: None}, {})
    after = score_cases(run, detector, lost, test, "test")["splits"]["test"]
    assert after["n_failed"] == 1

    def value(part, name):
        return next(s["value"] for s in part["scores"] if (s["name"], s["label"]) == (name, "cell"))

    assert value(after, "count_mae") > value(before, "count_mae")
    assert value(after, "average_precision_50") < value(before, "average_precision_50")


def test_resume_equals_uninterrupted_and_a_run_of_another_task_is_refused(
    memory, tmp_path, monkeypatch
) -> None:
    cohort, rows = make(memory, 20), parts(20)
    whole, _ = train(cohort, rows, tmp_path / "whole", 6)

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("vesalius.tasks.detect.fit.checkpoint.save_model", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(cohort, rows, tmp_path / "broken", 6)
    monkeypatch.undo()
    cases = detection_cases(cohort)
    run = train_run(Run.load(tmp_path / "broken"), cohort, cases, started=time.monotonic())
    for name, value in whole.weights().items():
        torch.testing.assert_close(run.weights()[name], value, rtol=0, atol=0)
    assert read_json(whole.path / "counting.json") == read_json(run.path / "counting.json")
    with pytest.raises(RunError, match="task 'detect', got 'segment'"):
        Detector.load(Run(run.path, {**run.plan, "task": "segment"}))


def test_slices_are_refused_by_name(trained) -> None:
    _, _, run, _ = trained
    volume = Volume(np.zeros((1, 32, 32, 3), np.float32), flat_affine())
    with pytest.raises(DataError, match="2D images, got 3 slices"):
        Detector.load(run).detect(volume)


def test_a_large_image_is_answered_as_if_whole(monkeypatch) -> None:
    """Tiles with margins give what the whole gives, for maps that look less far than the margin."""
    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, 300, 170)).astype(np.float32)
    weight = torch.from_numpy(rng.normal(0, 0.3, (6, 1, 12, 12)).astype(np.float32))

    def maps(x):
        return torch.nn.functional.conv2d(torch.nn.functional.pad(x, (4, 4, 4, 4)), weight, None, 4)

    decisions = {
        "network": {"options": {"stride": 4}},
        "mirrored_answers": [0, 1],
        "overlap_sigma": 0.3,
    }
    whole = find_evidence(maps, image, decisions)
    monkeypatch.setattr("vesalius.tasks.detect.predict.TILE", 64)
    monkeypatch.setattr("vesalius.tasks.detect.predict.MARGIN", 32)
    tiled = find_evidence(maps, image, decisions)
    np.testing.assert_allclose(tiled.density, whole.density, rtol=1e-5)
    np.testing.assert_allclose(tiled.candidates.corners, whole.candidates.corners, atol=1e-3)
    assert len(whole.candidates) > 20
    assert MARGIN % 32 == 0


def test_moved_boxes_follow_their_objects() -> None:
    rng = np.random.default_rng(3)
    image = np.zeros((1, 60, 40), np.float16)
    image[0, 20:30, 8:24] = 1
    boxes = Boxes(np.array([[20.0, 8, 30, 24]]), np.zeros(1, int), np.ones(1))
    asked = {"scale": 0.2, "stretch": 0.1, "shift": 0.1, "flips": [0, 1], "transpose": True}
    decisions = {"augmentation": asked, "window": [64, 48]}
    seen = 0
    for _ in range(40):
        moved, found = move(image, boxes, decisions, rng)
        assert moved.shape == (1, 64, 48)
        bright = np.argwhere(moved[0].numpy() > 0.5)
        if not len(found):
            continue
        seen += 1
        low, high = bright.min(0), bright.max(0) + 1
        np.testing.assert_allclose(found.corners[0], [*low, *high], atol=1.0)
    assert seen > 30


def test_boxes_of_a_row_are_read_once_and_without_empty_ones() -> None:
    box = {"name": "a", "x0": 1, "y0": 2, "x1": 3, "y1": 4}
    rows = [box, box, {**box, "x1": 1}, {**box, "name": "other"}]
    found = boxes_of({"boxes": json.dumps(rows)}, ["a"])
    assert found.corners.tolist() == [[1, 2, 3, 4]]
    assert len(boxes_of({"boxes": "[]"}, ["a"])) == 0


def test_an_image_that_lacks_what_all_others_show_is_not_annotated_for_it() -> None:
    decisions = {"classes": ["a", "b"], "always": ["b"]}
    assert annotated(empty(), decisions).tolist() == [True, False]
    one = Boxes(np.ones((1, 4)), np.array([1]), np.ones(1))
    assert annotated(one, decisions).tolist() == [True, True]


def test_plan_follows_the_data(memory) -> None:
    cohort = make(memory, 20)
    cases = detection_cases(cohort)
    found = planning.fingerprint(list(cases.cases))
    decisions = planning.decide(found, model="auto", budget={"steps": 5})
    assert decisions["classes"] == ["cell", "nucleus"]
    assert decisions["spacing"] == [1.0, 1.0]  # objects of 12 pixels are not shrunk
    assert decisions["window"] == [64, 64]
    assert decisions["augmentation"]["flips"] == []  # gray, calibrated, of unknown modality
    for side, spacing in ((64.0, 4.0), (8.0, 1.0)):
        part = {**found["classes"]["cell"], "median_side": side}
        changed = {**found, "classes": {"cell": part}}
        assert planning.decide(changed, model="auto", budget={})["spacing"] == [spacing] * 2
    stained = {**found, "color": 20, "calibrated": 0}
    assert planning.decide(stained, model="auto", budget={})["augmentation"]["flips"] == [0, 1]


def test_a_cohort_without_boxes_is_refused(memory) -> None:
    volume, _ = discs(np.random.default_rng(0))
    with pytest.raises(CohortError, match="2D image with boxes"):
        detection_cases(memory.of([{"volume": volume}]))
    deep = replace(volume, data=np.repeat(volume.data, 3, axis=3))
    cohort = memory.of(
        [
            {"volume": volume, "columns": {"boxes": "[]"}},
            {"volume": deep, "columns": {"boxes": "[]"}},
            {
                "volume": volume,
                "columns": {"boxes": json.dumps(discs(np.random.default_rng(1))[1])},
            },
        ]
    )
    cases = detection_cases(cohort)
    assert len(cases.cases) == 2
    assert "1 images have no boxes, or slices, and are left out" in cases.audit
