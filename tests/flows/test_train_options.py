# SPDX-License-Identifier: Apache-2.0
"""Ways to train a classifier: other targets, another run's weights, an encoder of the user's."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from vesalius import io
from vesalius.cohorts import Cohort
from vesalius.errors import CohortError, DataError, RunError, UsageError
from vesalius.flows.evaluate import evaluate
from vesalius.flows.predict import predict
from vesalius.flows.scan import scan
from vesalius.flows.train import train
from vesalius.geometry import flat_affine
from vesalius.networks import build
from vesalius.networks.external import save_encoder
from vesalius.tasks.run import Run
from vesalius.volume import Volume

SIDE = 20


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """180 noisy images with a bright square: its width is the answer, in several forms."""
    root = tmp_path_factory.mktemp("squares")
    (root / "data").mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for number in range(180):
        width = int(rng.integers(3, 12))
        data = rng.normal(100, 12, (1, SIDE, SIDE, 1))
        left, top = rng.integers(0, SIDE - width, 2)
        data[0, left : left + width, top : top + width] += 90
        high = bool(top > 6)
        io.write(
            Volume(data.clip(0, 255).astype(np.uint8), flat_affine()),
            root / "data" / f"{number:03}.png",
        )
        held = [name for name, is_so in (("big", width > 7), ("low", high)) if is_so]
        rows.append(
            {
                "image": f"{number:03}.png",
                "wide": "wide" if width > 7 else "narrow",
                "sex": "FM"[number % 2],
                "age": 20 + number % 60,
                "grade": width // 4,
                "width": width + 0.5,
                "big": int(width > 7),
                "low": int(high),
                "findings": ";".join(held) or "neither",
            }
        )
    with (root / "labels.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    scan(root / "data", labels=root / "labels.csv", out=root / "cohort", workers=1)
    return root / "cohort"


def scores(run: Run, split: str = "test") -> dict[str, float]:
    found = Run.load(run.path).metrics["splits"][split]["scores"]
    return {s["name"]: s["value"] for s in found if not s.get("label")}


@pytest.mark.parametrize(
    ("target", "kind", "score", "least"),
    [
        ("wide", "auto", "auc", 0.8),
        ("grade", "ordinal", "quadratic_weighted_kappa", 0.3),
        ("width", "auto", "r2", 0.3),
        ("big,low", "auto", "auc", 0.65),
    ],
)
def test_every_kind_of_target_is_learned_calibrated_and_reported(
    cohort: Path, tmp_path: Path, target: str, kind: str, score: str, least: float
) -> None:
    run = train(
        "classify", cohort, target=target, target_kind=kind, model="frozen", out=tmp_path / "run"
    )
    evaluate(run, cohort)
    found = scores(run)
    assert found[score] > least, found
    subsets = list(run.subsets().values())
    assert subsets.count("calibration") >= 20
    trust = json.loads((run.path / "trust.json").read_text())
    assert ("intervals" if target == "width" else "calibrator") in trust
    page = (run.path / "report.html").read_text()
    assert "held back for calibration" in page
    table = Run.load(run.path).predictions().to_pandas().query("split == 'test'")
    assert len(table) >= 20
    if target == "width":
        inside = (table["low"].astype(float) <= table["value"]) & (
            table["value"] <= table["high"].astype(float)
        )
        assert inside.all()
        assert found["interval_coverage"] > 0.6
    elif target != "big,low":
        assert table["label_set"].str.len().gt(0).all()


def test_an_operating_point_is_chosen_and_kept(cohort: Path, tmp_path: Path) -> None:
    asked = {"target": "wide", "target_kind": "binary:narrow<wide", "model": "frozen"}
    run = train("classify", cohort, operating="cost=20:1", out=tmp_path / "run", **asked)
    point = evaluate(run, cohort)["splits"]["test"]["operating_point"]
    rows = Run.load(run.path).predictions().to_pandas().query("split == 'test'")
    wide = rows[rows["truth"] == "wide"]
    assert point["sensitivity"]["value"] == pytest.approx((wide["called"] == "wide").mean())
    assert (rows["called"] == "").equals(rows["abstained"] != "")  # no call where it abstains
    rows = rows[rows["called"] != ""]
    cut = json.loads((run.path / "trust.json").read_text())["operating"]["threshold"]
    assert (rows["called"] == "wide").equals(rows["p_wide"] >= cut)
    by = Run.load(run.path).metrics["splits"]["test"]["by"]
    assert {(g["column"], g["value"]) for g in by if g["column"] == "sex"} == {
        ("sex", "F"), ("sex", "M"),
    }  # fmt: skip
    assert "40 to 59" in {g["value"] for g in by if g["column"] == "age"}
    threshold = json.loads((run.path / "trust.json").read_text())["operating"]["threshold"]
    assert ((rows["p_wide"] >= threshold) == (rows["called"] == "wide")).all()
    assert "operating point" in (run.path / "report.html").read_text()
    with pytest.raises(UsageError, match="cost=MISS:ALARM"):
        train("classify", cohort, operating="recall=1", out=tmp_path / "no", **asked)
    with pytest.raises(UsageError, match="above 0"):
        train("classify", cohort, operating="sensitivity=2", out=tmp_path / "no", **asked)
    with pytest.raises(UsageError, match="belongs to a binary target"):
        train(
            "classify", cohort, target="width", model="frozen", operating="cost=2:1",
            out=tmp_path / "no",
        )  # fmt: skip


def test_training_images_scanned_elsewhere_are_no_test(cohort: Path, tmp_path: Path) -> None:
    run = train("classify", cohort, target="wide", model="frozen", out=tmp_path / "run")
    shutil.copytree(cohort.parent / "data", tmp_path / "copy")
    labels = cohort.parent / "labels.csv"
    scan(tmp_path / "copy", labels=labels, out=tmp_path / "again", workers=1)
    with pytest.raises(CohortError, match=r"14\d of the cohort's 180 images are, voxel for voxel"):
        evaluate(run, tmp_path / "again")
    subsets = run.subsets()
    for row in Cohort.open(cohort).iter_rows(["key", "files"]):
        if subsets[row["key"]] != "test":
            (tmp_path / "copy" / row["files"][0]).unlink()
    scan(tmp_path / "copy", labels=labels, out=tmp_path / "fresh", workers=1)
    metrics = evaluate(run, tmp_path / "fresh")
    assert set(metrics["splits"]) == {"val", metrics["scored"]}  # it is not the run's own test
    part = metrics["splits"][metrics["scored"]]
    assert part["n_cases"] == list(subsets.values()).count("test")


def test_training_goes_on_from_another_runs_weights(cohort: Path, tmp_path: Path) -> None:
    asked = {"target": "wide", "model": "cnn"}
    first = train("classify", cohort, steps=12, out=tmp_path / "first", **asked)
    name = first.plan["measured"]["members"][0]["name"]
    asked |= {"steps": 1, "seed": 5, "split": first.path / "split.json"}
    none = train("classify", cohort, out=tmp_path / "none", **asked)
    begun = train("classify", cohort, start=first.path, out=tmp_path / "begun", **asked)
    key = next(k for k in first.weights() if k.startswith(f"{name}/encoder.") and "weight" in k)
    one, two, three = (run.weights()[key] for run in (first, begun, none))
    assert float((one - two).abs().max()) < 0.1 * float((one - three).abs().max())
    assert begun.id != none.id
    with pytest.raises(RunError, match="choose the same --model"):
        train(
            "classify", cohort, start=first.path, out=tmp_path / "no",
            **{**asked, "model": "resnet10"},
        )  # fmt: skip
    with pytest.raises(UsageError, match="give its split"):
        train("classify", cohort, start=first.path, out=tmp_path / "no", **{**asked, "split": None})
    with pytest.raises(UsageError, match="a network that --model names"):
        train("classify", cohort, target="wide", start=first.path, out=tmp_path / "no")
    with pytest.raises(DataError, match="has a mask"):
        train("segment", cohort, steps=1, start=first.path, out=tmp_path / "no")
    with pytest.raises(UsageError, match="begins a network of classify or segment"):
        train("detect", cohort, steps=1, start=first.path, out=tmp_path / "no")


def test_an_encoder_of_the_users_is_kept_with_the_run(cohort: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build("cnn", spatial_dims=2, in_channels=1, out_channels=2, stem="small", width=8)
    weights = save_encoder(network, tmp_path / "own.safetensors", name="cnn", stem="small")
    run = train(
        "classify", cohort, target="wide", model="frozen", encoder=weights, out=tmp_path / "run"
    )
    weights.unlink()  # the run holds its own copy
    metrics = evaluate(run, cohort)
    assert metrics["splits"]["test"]["n_failed"] == 0
    assert all(m["name"].startswith("file-") for m in run.plan["measured"]["members"])
    color = build("cnn", spatial_dims=2, in_channels=3, out_channels=2, stem="small", width=8)
    wrong = save_encoder(color, tmp_path / "color.safetensors", name="cnn", stem="small")
    with pytest.raises(UsageError, match="takes 3 channels"):
        train("classify", cohort, target="wide", model="frozen", encoder=wrong, out=tmp_path / "no")


def test_an_onnx_encoder_serves_too(cohort: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    import onnx
    from onnx import TensorProto, helper

    kernel = helper.make_tensor("w", TensorProto.FLOAT, (4, 1, 3, 3), np.random.default_rng(0).normal(size=36))  # fmt: skip  # noqa: E501
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"]), helper.make_node("Relu", ["y"], ["z"])],
        "encoder",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 1, "h", "w"))],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ("n", 4, None, None))],
        [kernel],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "own.onnx")
    run = train(
        "classify", cohort, target="wide", model="frozen", encoder=tmp_path / "own.onnx",
        out=tmp_path / "run",
    )  # fmt: skip
    (tmp_path / "own.onnx").unlink()
    assert evaluate(run, cohort)["splits"]["test"]["n_failed"] == 0
    exam = next((cohort.parent / "data").glob("*.png"))
    answer = predict(run, exam, out=tmp_path / "out", explain=True)
    assert sum(answer.probabilities.values()) == pytest.approx(1)
    assert answer.previews == ()  # an ONNX file has no gradient to look at


def test_what_cannot_be_learned_is_refused_by_name(cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="must have 3 to 100 classes, got 2"):
        train("classify", cohort, target="wide", target_kind="ordinal", out=tmp_path / "no")
    with pytest.raises(UsageError, match="Did you mean"):
        train("classify", cohort, target="wid", out=tmp_path / "no")
    with pytest.raises(CohortError, match="classes"):
        train("classify", cohort, target="wide", where="label_wide = 'wide'", out=tmp_path / "no")
    with pytest.raises(UsageError, match="one network's name"):
        train("classify", cohort, target="wide", model="auto:imagenet", out=tmp_path / "no")
    with pytest.raises(UsageError, match="operating belong to classify"):
        train("detect", cohort, operating="cost=1:1", out=tmp_path / "no")
    with pytest.raises(UsageError, match=":inflate and :acs are for volumes"):
        train("classify", cohort, target="wide", model="resnet18:acs", steps=1, out=tmp_path / "no")
