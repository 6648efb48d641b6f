# SPDX-License-Identifier: Apache-2.0
"""A segmenter's export answers as the run does, wherever it lies, and holds no data of patients."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import vesalius as vs
from vesalius import io
from vesalius.cli.main import app
from vesalius.deployment import proof
from vesalius.deployment import segmenter as deployment
from vesalius.deployment.graph import write_graph
from vesalius.deployment.openvino import write_openvino
from vesalius.deployment.samples import Samples
from vesalius.errors import CohortError, MissingDependency, RunError, UsageError
from vesalius.networks import build
from vesalius.networks.engine import EngineNetwork
from vesalius.optional import available
from vesalius.tasks.run import Run
from vesalius.tasks.segment.ensemble import Ensemble
from vesalius.tasks.segment.exported import exported_network
from vesalius.tasks.segment.predict import Segmenter

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
if not available("openvino"):  # an import by pytest would start its telemetry
    pytest.skip("openvino is absent", allow_module_level=True)

WIDTHS = [4, 8, 12, 16]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a small U-Net on 16 real images: `data`, `cohort`, `run`; `exam.nii.gz`, unseen."""
    source = Path(os.environ.get("VESALIUS_DATA", "/nonexistent")) / "hippocampus"
    if not source.exists():
        pytest.skip("data set 'hippocampus' is absent (set VESALIUS_DATA)")
    root = tmp_path_factory.mktemp("export")
    *learned, exam = sorted((source / "images").iterdir())[:17]
    for folder in ("images", "labels"):
        (root / "data" / folder).mkdir(parents=True)
    for image in learned:
        shutil.copyfile(image, root / "data" / "images" / image.name)
        mask = io.read_labels(source / "labels" / image.name)
        whole = mask.with_data((mask.data > 0).astype(np.uint8))  # learned in few steps
        io.write(whole, root / "data" / "labels" / image.name)
    shutil.copyfile(exam, root / "exam.nii.gz")
    vs.scan(root / "data", out=root / "cohort", workers=1)
    plan = vs.plan("segment", root / "cohort", steps=25)
    plan.decisions["network"]["options"]["widths"] = WIDTHS
    plan.decisions["optimizer"] |= {"lr": 0.01, "ema": 0.9}
    plan.decisions["precision"] = "32-true"
    vs.train("segment", root / "cohort", plan=plan, out=root / "run")
    return root


@pytest.fixture(scope="module")
def exported(root: Path) -> Iterator[dict[str, Path]]:
    """The run for each engine; the graph is written once, which takes seconds."""
    cohort = vs.Cohort.open(root / "cohort")
    first = vs.export(root / "run", to="onnx", cohort=cohort, out=root / "onnx")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deployment, "write_graph", copy_of(first / "network.onnx"))
        yield {
            "onnx": first,
            "openvino": vs.export(
                root / "run", to="openvino", cohort=cohort, out=root / "openvino"
            ),
        }


def copy_of(graph: Path) -> Callable[..., Path]:
    """Return what is called as `write_graph` and writes this graph."""

    def write(network: Any, example: Any, path: Path, **names: str) -> Path:
        return Path(shutil.copyfile(graph, path))

    return write


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_a_moved_export_predicts_as_the_run(
    root: Path, exported: dict[str, Path], to: str, tmp_path: Path
) -> None:
    moved = shutil.copytree(exported[to], tmp_path / "elsewhere" / "moved")
    expected = vs.predict(root / "run", root / "exam.nii.gz", out=tmp_path / "run")
    found = vs.predict(moved, root / "exam.nii.gz", out=tmp_path / "export")
    one, other = (io.read_labels(prediction.files[0]) for prediction in (expected, found))
    assert (one.data == other.data).mean() >= proof.EQUAL
    assert np.unique(one.data).tolist() == [0, 1]
    np.testing.assert_allclose(one.affine, other.affine)
    held = [
        json.loads((tmp_path / name / "prediction.json").read_text()) for name in ("run", "export")
    ]
    assert held[0]["run"] == held[1]["run"]
    assert held[0].keys() == held[1].keys()
    for name, dice in held[0]["expected_dice"][0].items():
        assert held[1]["expected_dice"][0][name] == pytest.approx(dice, abs=1e-3)
    record = json.loads((moved / "export.json").read_text())
    assert record["precision"] == "fp32"
    assert record["proof"]["equal_voxels"] >= proof.EQUAL
    assert record["proof"]["images"] == proof.COMPARED


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_an_export_holds_no_data_of_patients_and_no_path(
    root: Path, exported: dict[str, Path], to: str
) -> None:
    run = Run.load(root / "run")
    names = {path.name for path in exported[to].iterdir()}
    network = {"onnx": {"network.onnx"}, "openvino": {"network.xml", "network.bin"}}[to]
    assert names == network | {
        "export.json", "plan.json", "normalizer.json", "quality.json", "postprocessing.json",
        "card.md",
    }  # fmt: skip
    content = b"".join(path.read_bytes() for path in exported[to].iterdir())
    keys = run.subsets()
    assert keys
    files = [file.name for file in (root / "data" / "images").iterdir()]
    assert [name for name in (*keys, *files) if name.encode() in content] == []
    for path in (root, Path(vs.__file__).parent, Path(torch.__file__).parent):
        assert str(path).encode() not in content


def test_the_graph_takes_any_number_of_patches_and_answers_once(
    root: Path, exported: dict[str, Path]
) -> None:
    graph = onnx.load(exported["onnx"] / "network.onnx").graph
    (given,), (got,) = graph.input, graph.output
    sides = [axis.dim_value or axis.dim_param for axis in given.type.tensor_type.shape.dim]
    patch = Run.load(root / "run").decisions["patch"]
    assert sides[1:] == [1, *patch]
    assert isinstance(sides[0], str)
    assert [axis.dim_value for axis in got.type.tensor_type.shape.dim][1:] == [2, *patch]
    # The heads of coarser levels learn only.
    assert "heads.0.weight" in Run.load(root / "run").weights()
    assert [held.name for held in graph.initializer if "heads" in held.name] == []


@pytest.mark.parametrize("regions", [False, True])
def test_an_ensemble_is_one_graph(tmp_path: Path, regions: bool) -> None:
    torch.manual_seed(0)
    members = [
        build("unet", spatial_dims=2, in_channels=1, out_channels=3, widths=[2, 4])
        for _ in range(2)
    ]
    ensemble = Ensemble(members, regions=regions).eval()
    patches = 3 * torch.randn(3, 1, 8, 8)
    path = write_graph(ensemble, patches, tmp_path / "a.onnx", given="patches", got="logits")
    with torch.inference_mode():
        expected = ensemble(patches)
    for file in (path, write_openvino(path, tmp_path / "a.xml")):
        network = EngineNetwork(file, half=False)
        for count in (3, 1):
            torch.testing.assert_close(
                network(patches[:count]), expected[:count], atol=1e-3, rtol=1e-3
            )


def test_an_export_serves_predict_alone_and_says_so(
    root: Path, exported: dict[str, Path], tmp_path: Path
) -> None:
    for call in (
        lambda: vs.evaluate(exported["onnx"], root / "cohort"),
        lambda: vs.export(exported["onnx"], out=tmp_path / "again"),
    ):
        with pytest.raises(RunError, match="give the run that it was made from"):
            call()
    with pytest.raises(RunError, match="no run folder"):
        vs.predict(root / "data", root / "exam.nii.gz", out=tmp_path / "out")


def test_a_file_that_was_changed_or_lost_is_refused(
    exported: dict[str, Path], tmp_path: Path
) -> None:
    moved = shutil.copytree(exported["openvino"], tmp_path / "moved")
    weights = bytearray((moved / "network.bin").read_bytes())
    weights[100] ^= 1
    (moved / "network.bin").write_bytes(weights)
    run = Run.load(moved, exported=True)
    with pytest.raises(RunError, match=r"network\.bin' is not the file that was exported"):
        exported_network(run)
    (moved / "network.bin").unlink()
    with pytest.raises(RunError, match=r"network\.bin' is not the file that was exported"):
        exported_network(run)
    (moved / "export.json").write_text("{}")
    with pytest.raises(RunError, match="export again"):
        exported_network(run)


def test_an_export_that_answers_otherwise_leaves_nothing(
    root: Path, exported: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = onnx.load(exported["onnx"] / "network.onnx")
    (bias,) = (held for held in model.graph.initializer if held.name.endswith("head.bias"))
    values = onnx.numpy_helper.to_array(bias) + np.float32(0.1)
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    onnx.save(model, root / "wrong.onnx")
    monkeypatch.setattr(deployment, "write_graph", copy_of(root / "wrong.onnx"))
    (tmp_path / "out").mkdir()
    with pytest.raises(RunError, match="answers differ"):
        vs.export(root / "run", out=tmp_path / "out")
    assert list(tmp_path.rglob("*")) == [tmp_path / "out"]


def test_label_maps_that_differ_are_refused(root: Path, exported: dict[str, Path]) -> None:
    run = Segmenter.load(Run.load(root / "run"))
    other = Segmenter.load(Run.load(exported["onnx"], exported=True))
    other.decisions = {**other.decisions, "values": [2]}  # the same logits
    samples = Samples(Run.load(root / "run"), vs.Cohort.open(root / "cohort"))
    proof.prove(run, other, None)
    with pytest.raises(RunError, match="label maps of 3 validation images"):
        proof.prove(run, other, samples)


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_eight_bits_are_kept_where_the_dice_score_holds(
    root: Path, exported: dict[str, Path], to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if to == "openvino" and not available("nncf"):
        pytest.skip("nncf is absent")
    monkeypatch.setattr(deployment, "PATCHES", 8)
    out = vs.export(root / "run", to=to, int8=True, cohort=root / "cohort", out=tmp_path / "small")
    record = json.loads((out / "export.json").read_text())
    scores = record["int8"]
    assert record["precision"] == "int8"
    assert scores["patches"] == 8
    assert scores["images"] == 3
    assert scores["dice"]["fp32"] > 0.3
    assert scores["dice"]["fp32"] - scores["dice"]["int8"] <= proof.LOSS
    assert scores["dice"]["fp32"] != scores["dice"]["int8"]  # it is another network
    weights = {"onnx": "network.onnx", "openvino": "network.bin"}[to]
    assert (out / weights).stat().st_size < 0.6 * (exported[to] / weights).stat().st_size
    if to == "onnx":  # what sees the image, and what makes the logits, stay as they were
        graph = onnx.load(out / "network.onnx").graph
        whole = {h.name for h in graph.initializer if h.data_type == onnx.TensorProto.FLOAT}
        kept = [node for node in graph.node if node.op_type == "Conv" and node.input[1] in whole]
        assert len(kept) == 2
    found = vs.predict(out, root / "exam.nii.gz", out=tmp_path / "found")
    exact = vs.predict(root / "run", root / "exam.nii.gz", out=tmp_path / "exact")
    one, other = (io.read_labels(prediction.files[0]).data for prediction in (found, exact))
    assert (one == other).mean() > 0.98
    # … and refused where it does not.
    monkeypatch.setattr(proof, "LOSS", -1.0)
    with pytest.raises(RunError, match="export without int8"):
        vs.export(root / "run", to=to, int8=True, cohort=root / "cohort", out=tmp_path / "refused")
    assert not [path for path in tmp_path.iterdir() if "refused" in path.name]


def test_the_command_says_what_was_measured(
    root: Path, exported: dict[str, Path], tmp_path: Path
) -> None:
    arguments = [root / "run", "--cohort", root / "cohort", "--out", tmp_path / "made"]
    done = CliRunner().invoke(app, ["export", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    said = re.match(r"label maps of 3 validation images: (\d+\.\d{4})% of voxels", lines[-2])
    assert said is not None
    assert 99.99 < float(said[1]) <= 100  # two engines may round a tie to either side
    assert lines[-1] == f"written: {tmp_path / 'made'}"


def test_calibration_patches_are_what_the_network_is_given(root: Path) -> None:
    run = Run.load(root / "run")
    samples = Samples(run, vs.Cohort.open(root / "cohort"))
    patches = samples.patches(6)
    assert [patch.shape for patch in patches] == [(1, 1, *run.decisions["patch"])] * 6
    assert all(patch.dtype == np.float32 for patch in patches)
    assert len({patch.tobytes() for patch in patches}) == 6
    training = {key for key, subset in run.subsets().items() if subset == "train"}
    seen: list[np.ndarray] = []
    segmenter = Segmenter.load(run)
    logits = segmenter.logits
    segmenter.logits = lambda x: (seen.extend(x.numpy().copy()), logits(x))[1]  # type: ignore[method-assign]
    for row in samples.cohort.to_arrow().to_pylist():
        if row["key"] in training and row["kind"] == "image":
            segmenter.predict(samples.cohort.read(row))
    assert {patch[0].tobytes() for patch in patches} <= {patch.tobytes() for patch in seen}


def test_arguments_that_do_not_fit_are_refused(root: Path, tmp_path: Path) -> None:
    export: Callable[..., Path] = vs.export
    with pytest.raises(UsageError, match=r"one of onnx, openvino, got 'openvin'.*'openvino'"):
        export(root / "run", to="openvin", out=tmp_path / "out")
    with pytest.raises(UsageError, match="new or an empty folder"):
        export(root / "run", out=root / "data")
    with pytest.raises(UsageError, match="give the cohort"):
        export(root / "run", out=tmp_path / "out", int8=True)
    shutil.copytree(root / "data", tmp_path / "data", ignore=lambda _, names: names[4:])
    for path in (tmp_path / "data" / "images").iterdir():  # other images, other keys
        image = io.read(path)
        io.write(image.with_data(image.data + 1), path)
    vs.scan(tmp_path / "data", out=tmp_path / "cohort", workers=1)
    with pytest.raises(CohortError, match="the one that it was trained on"):
        export(root / "run", out=tmp_path / "out", cohort=tmp_path / "cohort")
    assert not (tmp_path / "out").exists()


def test_a_missing_engine_is_named(
    exported: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingDependency, match=r'pip install "vesalius\[openvino\]"'):
        EngineNetwork(exported["openvino"] / "network.xml", half=False)


@pytest.mark.parametrize("name", ["network.onnx", "network.xml"])
def test_a_file_that_is_no_network_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("no network")
    with pytest.raises(RunError, match="cannot open it"):
        EngineNetwork(tmp_path / name, half=False)


def test_the_engines_report_nothing_to_their_makers(exported: dict[str, Path]) -> None:
    code = f"""
import sys
calls = []
watched = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "os.fork",
           "subprocess.Popen", "urllib.Request")
sys.addaudithook(lambda event, _: calls.append(event) if event in watched else None)
import numpy as np
from vesalius.deployment.int8 import quantize
from vesalius.deployment.openvino import write_openvino
from pathlib import Path
path = write_openvino(Path({str(exported["onnx"] / "network.onnx")!r}), Path("network.xml"))
patches = np.random.default_rng(0).normal(size=(2, 1, 1, *{proof_patch(exported)})).astype("f4")
quantize(path, list(patches), given="patches")
print(calls, "openvino_telemetry" in sys.modules)
"""
    if not available("nncf"):
        pytest.skip("nncf is absent")
    folder = exported["onnx"].parent / "silent"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "[] False", done.stderr[-2000:]


def proof_patch(exported: dict[str, Path]) -> list[int]:
    """Return the patch of the run."""
    patch: list[int] = Run.load(exported["onnx"], exported=True).decisions["patch"]
    return patch
