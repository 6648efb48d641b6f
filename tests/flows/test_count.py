# SPDX-License-Identifier: Apache-2.0
"""From annotated pictures to a counted one: scan, train, count, with crops named by a function."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vesalius.errors import DataError, NormalizationRefused, RunError, UsageError
from vesalius.flows.count import count
from vesalius.flows.scan import scan
from vesalius.flows.train import train
from vesalius.geometry import flat_affine
from vesalius.tasks.detect.crop import crop
from vesalius.tasks.run import Run
from vesalius.volume import Volume

SHAPE = (96, 64)  # columns, rows
_VOC = "<annotation><filename>{name}.png</filename>{objects}</annotation>"
_OBJECT = (
    "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax>"
    "</bndbox></object>"
)


def smear(rng: np.random.Generator) -> tuple[np.ndarray, list[tuple]]:
    """A picture `(rows, columns, 3)` with pale discs of one of two colors, and their boxes."""
    pixels = np.full((SHAPE[1], SHAPE[0], 3), 200.0) + rng.normal(0, 5, (SHAPE[1], SHAPE[0], 3))
    row, column = np.mgrid[: SHAPE[1], : SHAPE[0]] + 0.5
    boxes: list[tuple] = []
    for place in rng.permutation(6)[: rng.integers(2, 6)]:
        x, y = 16 + 32 * (place % 3) + rng.uniform(-3, 3), 16 + 32 * (place // 3)
        dark = rng.random() < 0.3
        pixels[np.hypot(column - x, row - y) < 10] -= (120, 140, 20) if dark else (10, 90, 90)
        boxes.append(("white" if dark else "red", x - 10, y - 10, x + 10, y + 10))
    return pixels.clip(0, 255).astype(np.uint8), boxes


def table(path: Path) -> list[dict]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A scanned folder of pictures with VOC boxes, and a run trained on it."""
    root = tmp_path_factory.mktemp("smears")
    (root / "data" / "images").mkdir(parents=True)
    (root / "data" / "annotations").mkdir()
    rng = np.random.default_rng(0)
    for number in range(30):
        pixels, boxes = smear(rng)
        Image.fromarray(pixels).save(root / "data" / "images" / f"{number:03}.png")
        objects = "".join(_OBJECT.format(*box) for box in boxes)
        text = _VOC.format(name=f"{number:03}", objects=objects)
        (root / "data" / "annotations" / f"{number:03}.xml").write_text(text)
    scan(root / "data", out=root / "cohort", workers=1)
    train("detect", root / "cohort", steps=30, model="resnet10", out=root / "run", seed=1)
    return root


def test_a_picture_is_counted(root: Path, tmp_path: Path) -> None:
    right = 0
    for number in range(6):
        pixels, boxes = smear(np.random.default_rng(100 + number))
        Image.fromarray(pixels).save(tmp_path / "new.png")
        answer = count(root / "run", tmp_path / "new.png", out=tmp_path / "out")
        right += sum(
            answer.totals[name] == sum(box[0] == name for box in boxes) for name in ("red", "white")
        )
    assert right >= 9  # of 12 counts
    record = json.loads((tmp_path / "out" / "counts.json").read_text())
    assert record["totals"] == dict(answer.totals)
    assert record["files"] == ["counts.json", "counts.csv", "boxes.csv"]
    rows = table(tmp_path / "out" / "boxes.csv")
    assert len(rows) == sum(answer.totals.values())
    assert all(float(row["x0"]) < float(row["x1"]) <= SHAPE[0] for row in rows)
    counts = table(tmp_path / "out" / "counts.csv")
    assert [row["label"] for row in counts] == ["red", "white"]
    with Image.open(tmp_path / "out" / "boxes-1.jpg") as picture:
        assert picture.format == "JPEG"
        assert picture.size[0] == SHAPE[0]
    assert any("90 % interval" in line for line in answer.lines())


def test_training_again_is_no_work(root: Path) -> None:
    cohort = root / "cohort"
    asked = {"model": "resnet10", "out": root / "run", "seed": 1}
    again = train("detect", cohort, steps=30, **asked)
    assert any("finished before" in line for line in again.audit())
    with pytest.raises(RunError, match="different: budget"):
        train("detect", cohort, steps=31, **asked)
    with pytest.raises(UsageError, match="steps must be at least 1"):
        train("detect", cohort, steps=0, **asked)


def test_crops_are_named_by_a_function(root: Path, tmp_path: Path) -> None:
    pixels, _ = smear(np.random.default_rng(107))
    Image.fromarray(pixels).save(tmp_path / "new.png")
    seen: list[tuple[int, ...]] = []

    def darkness(volume: Volume) -> dict[str, float]:
        seen.append(volume.shape)
        if len(seen) == 1:
            raise NormalizationRefused("constant", "nothing to see")
        dark = float((volume.data[1] < 90).mean() > 0.3)
        return {"dark": dark, "pale": 1 - dark}

    asked = {"out": tmp_path / "out", "classify": darkness, "of": "red"}
    answer = count(root / "run", tmp_path / "new.png", **asked)
    assert len(seen) == answer.totals["red"] >= 1
    assert answer.differential["unknown"] == 1
    assert answer.differential.get("pale", 0) == len(seen) - 1
    named = [box for box in answer.images[0].boxes if "kind" in box]
    assert {box["label"] for box in named} == {"red"}
    columns = (tmp_path / "out" / "boxes.csv").read_text().splitlines()[0].split(",")
    assert columns[-2:] == ["kind", "kind_probability"]


def test_a_crop_lies_where_its_box_does() -> None:
    data = np.arange(40 * 30, dtype=np.float32).reshape(1, 40, 30, 1)
    volume = Volume(data, flat_affine((2.0, 2.0, 1.0)))
    part = crop(volume, {"x0": 10, "y0": 8, "x1": 20, "y1": 14})
    assert part.shape == (12, 12, 1)  # the longer side, and a tenth on either
    index = np.array([3, 4, 0, 1])
    world = part.affine @ index
    same = (np.linalg.inv(volume.affine) @ world)[:3].round().astype(int)
    assert part.data[0, 3, 4, 0] == volume.data[(0, *same)]
    edge = crop(volume, {"x0": 35, "y0": 25, "x1": 40, "y1": 30})
    assert edge.shape == (6, 6, 1)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"of": "red"}, "go together"),
        ({"classify": lambda _: {}}, "go together"),
        ({"classify": lambda _: {}, "of": "reds"}, "Did you mean 'red'"),
    ],
)
def test_wrong_arguments_are_named(root: Path, tmp_path: Path, asked: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        count(root / "run", tmp_path / "absent.png", out=tmp_path / "out", **asked)


def test_runs_that_cannot_serve_are_refused(root: Path, tmp_path: Path) -> None:
    run = Run.load(root / "run")
    open_run = replace(run, plan={**run.plan, "measured": {}})
    with pytest.raises(RunError, match="not finished"):
        count(open_run, tmp_path / "x.png", out=tmp_path / "out")
    other = replace(run, plan={**run.plan, "task": "segment"})
    with pytest.raises(RunError, match="task 'detect', got 'segment'"):
        count(other, tmp_path / "x.png", out=tmp_path / "out")


def test_an_exam_without_a_2d_image_is_refused(root: Path, tmp_path: Path) -> None:
    from vesalius import io

    volume = Volume(np.random.default_rng(0).normal(size=(1, 20, 20, 5)), np.eye(4))
    io.write(volume, tmp_path / "volume.nii.gz")
    with pytest.raises(DataError, match="image 1 left out: detection takes 2D images"):
        count(root / "run", tmp_path / "volume.nii.gz", out=tmp_path / "out")
