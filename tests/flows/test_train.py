# SPDX-License-Identifier: Apache-2.0
"""Train, evaluate and predict as a user does: files in, scan, run folder, answers for new files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from vesalius import io
from vesalius.errors import BudgetError, DataError, RunError, UsageError
from vesalius.flows.evaluate import evaluate
from vesalius.flows.predict import predict
from vesalius.flows.scan import scan
from vesalius.flows.train import train
from vesalius.geometry import same_grid
from vesalius.tasks.run import Run
from vesalius.volume import LabelMap, Volume

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported


@pytest.fixture(scope="module")
def stripes(tmp_path_factory) -> Path:
    """A scanned cohort of 60 PNG images, one folder a class."""
    from PIL import Image

    root = tmp_path_factory.mktemp("stripes")
    rng = np.random.default_rng(0)
    for number in range(60):
        wave = np.repeat(np.sin(np.arange(28) * 0.9 + rng.uniform(0, 6))[None], 28, axis=0)
        pixels = 128 + 50 * (wave if number % 2 else wave.T) + rng.normal(0, 20, (28, 28))
        folder = root / "data" / ("along", "across")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        image.save(folder / f"{number:03}.png")
    scan(root / "data", out=root / "cohort", workers=1)
    return root


@pytest.fixture(scope="module")
def balls(tmp_path_factory) -> Path:
    """A scanned cohort of 10 oblique NIfTI volumes with masks."""
    root = tmp_path_factory.mktemp("balls")
    rng = np.random.default_rng(0)
    turn = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1.0]])
    for number in range(10):
        affine = np.eye(4)
        affine[:3, :3] = turn @ np.diag([1.0, -1.0, 1.5])
        index = np.stack(np.meshgrid(*[np.arange(n) for n in (20, 18, 16)], indexing="ij"), -1)
        mask = np.linalg.norm((index - rng.uniform(7, 11, 3)) * [1, 1, 1.5], axis=-1) < 6
        values = 100 + 30 * mask + rng.normal(0, 8, mask.shape)
        for folder, data in (
            ("images", values.astype(np.float32)),
            ("labels", mask.astype(np.uint8)),
        ):
            (root / "data" / folder).mkdir(parents=True, exist_ok=True)
            kind = Volume if folder == "images" else LabelMap
            io.write(kind(data[None], affine), root / "data" / folder / f"case_{number:03}.nii.gz")
    scan(root / "data", out=root / "cohort", workers=1)
    return root


def test_classify_from_files_to_an_answer(stripes: Path, tmp_path: Path) -> None:
    asked = {"steps": 40, "model": "resnet10", "out": tmp_path / "run"}
    shown: list[tuple[str, int, int | None]] = []
    run = train("classify", stripes / "cohort", progress=lambda *args: shown.append(args), **asked)
    assert ("training", 40, 40) in shown
    assert {path.name for path in run.path.iterdir()} >= {
        "plan.json", "split.json", "normalizer.json", "model.safetensors", "metrics.json",
        "predictions.parquet", "networks", "trust.json", "report.html", "card.md",
    }  # fmt: skip
    weights = (run.path / "model.safetensors").stat().st_mtime_ns
    again = train("classify", stripes / "cohort", **asked)
    assert again.id == run.id
    assert any("finished before" in line for line in again.audit())
    assert (run.path / "model.safetensors").stat().st_mtime_ns == weights
    (run.path / "report.html").unlink()  # as after a kill between training and report
    train("classify", stripes / "cohort", **asked)
    assert (run.path / "report.html").exists()
    assert (run.path / "model.safetensors").stat().st_mtime_ns == weights
    with pytest.raises(RunError, match="different: seed"):
        train("classify", stripes / "cohort", seed=1, **asked)

    metrics = evaluate(run.path, stripes / "cohort")
    scores = {s["name"]: s for s in metrics["splits"]["test"]["scores"] if not s["label"]}
    assert scores["auc"]["value"] > 0.9
    assert scores["accuracy"]["value"] > scores["accuracy"]["baseline"]
    with pytest.raises(UsageError, match="split must be one of"):
        evaluate(run.path, stripes / "cohort", split="tests")  # type: ignore[arg-type]  # meant

    row = Run.load(run.path).predictions().to_pandas().query("split == 'test'").iloc[0]
    from vesalius.cohorts import Cohort

    cohort = Cohort.open(stripes / "cohort")
    image = cohort.row(row["key"])
    exam = stripes / "data" / image["files"][0]
    answer = predict(run.path, exam, out=tmp_path / "out")
    assert answer.predicted == row["predicted"]
    for name, value in answer.probabilities.items():
        assert value == pytest.approx(row[f"p_{name}"], abs=1e-6)  # serve = offline
    written = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert written["probabilities"] == dict(answer.probabilities)
    assert any(answer.predicted in line for line in answer.lines())


def test_segment_from_files_to_a_label_map(balls: Path, tmp_path: Path) -> None:
    run = train("segment", balls / "cohort", steps=40, out=tmp_path / "run")
    metrics = evaluate(run, balls / "cohort")
    dice = next(s for s in metrics["splits"]["test"]["scores"] if s["name"] == "dice")
    assert dice["value"] > 0.6
    assert dice["value"] > dice["baseline"]
    exam = balls / "data" / "images" / "case_000.nii.gz"
    answer = predict(run.path, exam, out=tmp_path / "out")
    source, found = io.read(exam), io.read_labels(answer.files[0])
    assert same_grid(found.affine, found.shape, source.affine, source.shape, tolerance_mm=1e-3)
    truth = io.read_labels(balls / "data" / "labels" / "case_000.nii.gz").data > 0
    assert (2 * (truth & (found.data > 0)).sum()) / (truth.sum() + (found.data > 0).sum()) > 0.6
    assert answer.previews[0].read_bytes()[:2] == b"\xff\xd8"
    (volumes,) = answer.volumes_ml
    assert sum(volumes.values()) == pytest.approx((found.data > 0).sum() * 1.5 / 1000, rel=1e-3)
    assert predict(run.path, exam, out=tmp_path / "nrrd", format="nrrd").files[0].exists()
    with pytest.raises(UsageError, match="refers to the DICOM files"):
        predict(run.path, exam, out=tmp_path / "no", format="dicom-seg")
    with pytest.raises(UsageError, match="Did you mean 'nifti'"):
        predict(run.path, exam, out=tmp_path / "no", format="nifty")


def test_too_little_disk_is_refused_before_the_work(
    stripes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=50_000))
    with pytest.raises(BudgetError, match="GB are free"):
        train("classify", stripes / "cohort", steps=1, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_wrong_arguments_are_named(stripes: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="task must be one of"):
        train("detekt", stripes / "cohort")  # type: ignore[arg-type]  # meant
    with pytest.raises(UsageError, match="minutes must be positive"):
        train("classify", stripes / "cohort", minutes=0)
    with pytest.raises(UsageError, match="steps must be at least 1"):
        train("classify", stripes / "cohort", steps=0)
    with pytest.raises(UsageError, match="segment learns the masks"):
        train("segment", stripes / "cohort", target="label")
    with pytest.raises(DataError, match="has a mask"):
        train("segment", stripes / "cohort", steps=1, out=tmp_path / "run")
