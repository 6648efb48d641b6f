# SPDX-License-Identifier: Apache-2.0
"""An exported classifier answers as the run does, whatever the number of images."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vesalius import io
from vesalius.deployment.onnx import export_classifier
from vesalius.errors import RunError, UsageError
from vesalius.flows.export import export
from vesalius.flows.scan import scan
from vesalius.flows.train import train
from vesalius.geometry import flat_affine
from vesalius.networks.engine import EngineNetwork
from vesalius.optional import available
from vesalius.tasks.classify.batch import FACTS, Image
from vesalius.tasks.classify.heads import Embedded, fit_head, new_head
from vesalius.tasks.classify.members import HeadMember, Member, NetworkMember, save_members
from vesalius.tasks.classify.model import new_model
from vesalius.tasks.classify.predict import Classifier
from vesalius.tasks.frozen import FrozenEncoder
from vesalius.tasks.run import Run
from vesalius.tasks.targets import Target
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


def seven(run: Run, classifier: Classifier) -> list[Image]:
    """Return seven of the run's images as its members take them."""
    files = sorted((run.path.parent / "data").glob("*.png"))[:7]
    return [classifier.image(replace(io.read(file), modality="US")) for file in files]


def test_the_file_gives_the_runs_answers(run: Run, tmp_path: Path) -> None:
    path = export_classifier(run, tmp_path / "model.onnx")
    classifier = Classifier.load(run)
    images = seven(run, classifier)
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


def test_openvinos_file_gives_the_runs_answers(run: Run, tmp_path: Path) -> None:
    if not available("openvino"):
        pytest.skip("openvino is absent")
    path = export(run, to="openvino", out=tmp_path / "model.xml")
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "model.bin", "model.xml", "model.xml.json",
    ]  # fmt: skip
    classifier = Classifier.load(run)
    images = seven(run, classifier)
    expected = classifier.probabilities([[image] for image in images])
    views = torch.from_numpy(np.concatenate([image.views for image in images]))
    found = EngineNetwork(path, half=False)(views).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_a_files_name_must_fit_its_engine(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"end in \.xml for a classifier to openvino"):
        export(run, to="openvino", out=tmp_path / "model.onnx")
    with pytest.raises(UsageError, match="belong to a segmenter"):
        export(run, int8=True, out=tmp_path / "model.onnx")


@pytest.fixture
def of_sets(run: Run, tmp_path: Path) -> Run:
    """The run, with members that pool sets by attention in place of its own."""
    frozen = {**run.decisions["frozen"][0], "mirror": False}  # half the time of an export
    decisions = {**run.decisions, "frozen": [frozen]}
    target = Target.from_json(decisions["target"])
    known = [len(decisions["facts"][fact]) for fact in FACTS]
    encoder = FrozenEncoder(frozen, run.path)
    rng = np.random.default_rng(0)
    facts = torch.zeros(60, len(FACTS), dtype=torch.long)
    items = torch.tensor(rng.normal(size=(60, encoder.features)), dtype=torch.float32)
    cases = Embedded(items, facts, (2,) * 30)
    members: list[Member] = []
    for pooling in ("transformer", "attention"):
        head = {"head": "mlp", "pooling": pooling, "dropout": 0.5}
        module = new_head(head, encoder.features, known, target)
        fit_head(module, head, cases, ["a", "b"] * 15, target, None, 0)
        members.append(HeadMember(f"mlp-{pooling}", 0, head, module, target))
    spec = {**decisions["networks"][0], "pooling": "transformer"}
    network = {"name": "resnet10", "options": {"stem": "small", "width": 8}}
    spec["network"] = {**spec["network"], **network, "weights": "random"}
    members.append(NetworkMember("network", spec, new_model(spec, 2, 1).eval(), target))
    plan = {**run.plan, "decisions": decisions}
    held = Run(shutil.copytree(run.path, tmp_path / "sets"), plan)
    save_members(held.path / "model.safetensors", members, {0: encoder}, run.id)
    return held.measure(members=[{**m.to_json(), "weight": 1 / len(members)} for m in members])


def test_attention_between_images_is_exported_for_any_number_of_cases(
    run: Run, of_sets: Run, tmp_path: Path
) -> None:
    path = export_classifier(of_sets, tmp_path / "model.onnx")
    classifier = Classifier.load(of_sets)
    assert [type(member.module.pooling).__name__ for member in classifier.mixture.members] == [
        "SetTransformer", "GatedAttention", "SetTransformer",
    ]  # fmt: skip
    images = seven(run, classifier)
    expected = classifier.probabilities([[image] for image in images])
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    views = np.concatenate([image.views for image in images]).astype(np.float32)
    for count in (1, 3, 7):
        found = session.run(None, {"views": views[:count]})[0]
        np.testing.assert_allclose(found, expected[:count], atol=1e-3)
    assert np.ptp(expected[:, 0]) > 0.01  # not one constant


def test_only_a_classifier_is_exported(run: Run, tmp_path: Path) -> None:
    other = Run(run.path, {**run.plan, "task": "segment"})
    with pytest.raises(RunError, match="task 'classify'"):
        export_classifier(other, tmp_path / "no.onnx")
