# SPDX-License-Identifier: Apache-2.0
"""Train and evaluate a retrieval run as a user does: labels, captions, a twin, refusals."""

from __future__ import annotations

import csv
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported

import numpy as np
import pytest
from PIL import Image

from vesalius.cohorts import Cohort
from vesalius.errors import CohortError, RunError, UsageError
from vesalius.flows.evaluate import evaluate
from vesalius.flows.plan import plan
from vesalius.flows.scan import scan
from vesalius.flows.train import train
from vesalius.tasks.retrieve.embedder import Embedder

SHAPES = {"stripes": "Stripes that run across", "rings": "Rings around the middle", "dots": ""}


def picture(kind: str, rng: np.random.Generator) -> np.ndarray:
    i, j = np.indices((40, 40))
    phase = rng.uniform(0, 6)
    wave = {
        "stripes": np.sin(i * 0.9 + phase),
        "rings": np.sin(np.hypot(i - 20, j - 20) * 0.9 + phase),
        "dots": np.sin(i * 0.9 + phase) * np.sin(j * 0.9 + phase),
    }[kind]
    return (128 + 60 * wave + rng.normal(0, 15, (40, 40))).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    """A scanned cohort of 72 pictures of three kinds, two a patient, with words for two kinds."""
    root = tmp_path_factory.mktemp("shapes")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(72):
        kind = list(SHAPES)[number // 2 % 3]
        (root / "data").mkdir(exist_ok=True)
        Image.fromarray(picture(kind, rng)).save(root / "data" / f"{number:03}.png")
        rows.append({
            "image": f"{number:03}.png", "case_id": f"P{number // 2:03}", "shape": kind,
            "caption": f"{SHAPES[kind]}, number {number // 6 % 4}" if SHAPES[kind] else "",
        })  # fmt: skip
    table = root / "labels.csv"
    with table.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    scan(root / "data", out=root / "cohort", labels=table, workers=1)
    return root / "cohort"


def value(metrics: dict, split: str, name: str, label: str) -> float:
    scores = metrics["splits"][split]["scores"]
    return next(s["value"] for s in scores if (s["name"], s["label"]) == (name, label))


def test_labels_and_captions_from_files_to_vectors(shapes: Path, tmp_path: Path) -> None:
    asked = {"pairs": "same-label,captions", "target": "shape", "model": "frozen", "steps": 60}
    run = train("retrieve", shapes, out=tmp_path / "run", **asked)
    assert {path.name for path in run.path.iterdir()} >= {
        "plan.json", "split.json", "normalizer.json", "model.safetensors", "metrics.json",
        "predictions.parquet", "words.json", "report.html", "card.md",
    }  # fmt: skip
    assert value(run.metrics, "val", "precision@5", "shape") > 0.75
    again = train("retrieve", shapes, out=tmp_path / "run", **asked)
    assert any("finished before" in line for line in again.audit())
    metrics = evaluate(run, shapes, split="test")
    test = metrics["splits"]["test"]
    assert value(metrics, "test", "precision@5", "shape") > 0.8
    assert value(metrics, "test", "mrr", "words, first 10") > 0.3
    base = {one["name"]: one["scores"][0]["value"] for one in test["baselines"]}
    assert set(base) == {"frozen encoder", "raw pixels", "BM25 of own words"}
    assert all(0 <= one <= 1 for one in base.values())
    rows = [row for row in run.predictions().to_pylist() if row["split"] == "test"]
    assert len(rows) == test["n_cases"]
    embedder = Embedder.load(run.path)
    cohort = Cohort.open(shapes)
    table = cohort.to_arrow().to_pylist()
    found = embedder.embed(cohort, table)
    assert found.table.shape == (72, embedder.dimension)
    np.testing.assert_allclose(np.linalg.norm(found.table, axis=1), 1, atol=1e-5)
    words = embedder.words(["rings around the middle", "stripes that run across"])
    assert words is not None
    assert words.shape == (2, embedder.dimension)
    likeness = found.table @ words.T
    kinds = np.array([row["label_shape"] for row in table])
    assert likeness[kinds == "rings", 0].mean() > likeness[kinds == "stripes", 0].mean() + 0.1
    assert likeness[kinds == "stripes", 1].mean() > likeness[kinds == "rings", 1].mean() + 0.1
    heat = embedder.similarity_map(cohort.read(table[0]), cohort.read(table[1]))
    assert [one.shape for one in heat] == [(40, 40, 1)] * 2
    assert max(one.max() for one in heat) == pytest.approx(1)
    assert embedder.identity["plan"] == run.id
    assert Embedder.load(run.path).identity == embedder.identity != Embedder.load("frozen").identity


def test_a_twin_learns_and_goes_on_after_an_interruption(shapes: Path, tmp_path: Path) -> None:
    asked = {"target": "shape", "model": "resnet18", "steps": 24}

    class StopError(Exception):
        pass

    def stop(stage: str, done: int, total: int | None) -> None:
        if stage == "training" and total == 24 and done == 17:
            raise StopError

    with pytest.raises(StopError):
        train("retrieve", shapes, out=tmp_path / "run", progress=stop, **asked)
    with pytest.raises(RunError, match="not finished"):
        Embedder.load(tmp_path / "run")
    resumed = train("retrieve", shapes, out=tmp_path / "run", **asked)
    whole = train("retrieve", shapes, out=tmp_path / "whole", **asked)
    assert resumed.id == whole.id
    assert Embedder.load(resumed.path).identity == Embedder.load(whole.path).identity
    assert resumed.metrics["splits"] == whole.metrics["splits"]
    assert "twin_share" in whole.plan["measured"]


def test_the_plan_says_what_it_takes(shapes: Path) -> None:
    made = plan("retrieve", shapes, target="shape", model="resnet18", steps=10)
    assert set(made.estimates["networks"]) == {"towers", "resnet18-40"}
    assert made.decisions["pairs"] == ["same-label"]
    assert "towers" in "\n".join(made.lines())


def test_what_does_not_fit_is_refused(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--pairs takes"):
        train("retrieve", shapes, pairs="same-labels", steps=1)
    with pytest.raises(UsageError, match="has no label 'form'"):
        train("retrieve", shapes, target="form", steps=1)
    with pytest.raises(UsageError, match="belongs to --pairs same-label"):
        train("retrieve", shapes, pairs="captions", target="shape", steps=1)
    with pytest.raises(CohortError, match="share a study"):
        train("retrieve", shapes, pairs="same-study", steps=1)
    with pytest.raises(UsageError, match="pairs belong to retrieve"):
        train("classify", shapes, target="shape", pairs="captions", steps=1)
    with pytest.raises(RunError, match="no run folder"):
        Embedder.load(tmp_path / "nothing")
