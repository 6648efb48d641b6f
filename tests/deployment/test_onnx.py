# SPDX-License-Identifier: Apache-2.0
"""An exported classifier answers as the run does, whatever the number of images."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vesalius import io
from vesalius.deployment.onnx import export_classifier
from vesalius.errors import RunError
from vesalius.flows.scan import scan
from vesalius.flows.train import train
from vesalius.geometry import flat_affine
from vesalius.tasks.classify.predict import Classifier
from vesalius.tasks.run import Run
from vesalius.volume import Volume

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("export")
    (root / "data").mkdir()
    rng = np.random.default_rng(0)
    with (root / "labels.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "modality", "kind"])
        for number in range(160):
            data = rng.normal(100, 20, (1, 24, 24, 1))
            data[0, 4 : 9 + 6 * (number % 2), 8:14] += 80
            name = f"{number:03}.png"
            io.write(
                Volume(data.clip(0, 255).astype(np.uint8), flat_affine()), root / "data" / name
            )
            writer.writerow([name, "US", "ab"[number % 2]])
    scan(root / "data", labels=root / "labels.csv", out=root / "cohort", workers=1)
    return train("classify", root / "cohort", target="kind", steps=6, out=root / "run")


def test_the_file_gives_the_runs_answers(run: Run, tmp_path: Path) -> None:
    path = export_classifier(run, tmp_path / "model.onnx")
    classifier = Classifier.load(run)
    files = sorted((run.path.parent / "data").glob("*.png"))[:7]
    volumes = [replace(io.read(file), modality="US") for file in files]
    images = [classifier.image(volume) for volume in volumes]
    expected = classifier.probabilities([[image] for image in images])
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    views = np.concatenate([image.views for image in images]).astype(np.float32)
    for rows in (slice(0, 7), slice(3, 4)):
        found = session.run(None, {"views": views[rows]})[0]
        np.testing.assert_allclose(found, expected[rows], atol=2e-3)
    assert np.ptp(expected[:, 0]) > 0.01  # not one constant
    beside = json.loads(path.with_name("model.onnx.json").read_text())
    assert beside["run"] == run.id
    assert beside["input"]["size"] == views.shape[-1]


def test_only_a_classifier_is_exported(run: Run, tmp_path: Path) -> None:
    other = Run(run.path, {**run.plan, "task": "segment"})
    with pytest.raises(RunError, match="task 'classify'"):
        export_classifier(other, tmp_path / "no.onnx")
