# SPDX-License-Identifier: Apache-2.0
"""A plan says what training will do and take; edited, it is what training does."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vesalius as vs
from vesalius import io
from vesalius.errors import BudgetError, RunError, UsageError
from vesalius.flows.planning.asked import Asked
from vesalius.flows.planning.draft import draft, gather
from vesalius.flows.planning.edits import with_decisions
from vesalius.flows.planning.memory import PeakMemory, held_memory
from vesalius.tasks.run import plan_id
from vesalius.volume import LabelMap, Volume

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported


def make_balls(root: Path, count: int, side: int) -> Path:
    """Scan `count` NIfTI volumes of `side` voxels along each axis, with the mask of a ball."""
    rng = np.random.default_rng(0)
    index = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1)
    for number in range(count):
        middle = rng.uniform(0.4 * side, 0.6 * side, 3)
        mask = np.linalg.norm(index - middle, axis=-1) < 0.3 * side
        values = 100 + 30 * mask + rng.normal(0, 8, mask.shape)
        images = {"images": values.astype(np.float32), "labels": mask.astype(np.uint8)}
        for folder, data in images.items():
            (root / "data" / folder).mkdir(parents=True, exist_ok=True)
            kind = Volume if folder == "images" else LabelMap
            path = root / "data" / folder / f"case_{number:03}.nii.gz"
            io.write(kind(data[None], np.eye(4)), path)
    vs.scan(root / "data", out=root / "cohort", workers=1)
    return root / "cohort"


@pytest.fixture(scope="module")
def balls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_balls(tmp_path_factory.mktemp("balls"), 10, 16)


@pytest.fixture(scope="module")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scanned cohort of 60 PNG images, one folder a class."""
    from PIL import Image

    root = tmp_path_factory.mktemp("stripes")
    rng = np.random.default_rng(0)
    for number in range(60):
        wave = np.repeat(np.sin(np.arange(20) * 0.9 + rng.uniform(0, 6))[None], 20, axis=0)
        pixels = 128 + 50 * (wave if number % 2 else wave.T) + rng.normal(0, 20, (20, 20))
        folder = root / "data" / ("along", "across")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        image.save(folder / f"{number:03}.png")
    vs.scan(root / "data", out=root / "cohort", workers=1)
    return root / "cohort"


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scanned cohort of 20 drawn pictures with COCO boxes."""
    from PIL import Image, ImageDraw

    root = tmp_path_factory.mktemp("cells")
    (root / "data").mkdir()
    rng = np.random.default_rng(0)
    images, boxes = [], []
    for number in range(20):
        picture = Image.fromarray(rng.integers(190, 210, (64, 64, 3), dtype=np.uint8))
        for column in range(2):
            x, y = 6 + 32 * column, int(rng.integers(4, 40))
            ImageDraw.Draw(picture).ellipse([x, y, x + 20, y + 20], fill=(190, 90, 100))
            boxes.append({"image_id": number, "category_id": 1, "bbox": [x, y, 20, 20]})
        picture.save(root / "data" / f"{number:02}.png")
        images.append({"id": number, "file_name": f"{number:02}.png"})
    coco = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "RBC"}]}
    (root / "data" / "boxes.json").write_text(json.dumps(coco))
    vs.scan(root / "data", out=root / "cohort", workers=1)
    return root / "cohort"


def edits(run: vs.Run) -> list[str]:
    return [line for line in run.audit() if line.startswith("decision ")]


def test_a_plan_is_what_training_does(
    balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = vs.plan("segment", balls, steps=2, out="plan.json")
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]
    assert json.loads((tmp_path / "plan.json").read_text()) == plan.to_json()
    text = "\n".join(plan.lines())
    assert "patch: 16, 16, 16" in text
    assert "2 steps of" in text
    run = vs.train("segment", balls, steps=2)
    assert run.decisions == plan.decisions
    assert run.id == plan.record["id"]
    weights = sum(tensor.numel() for tensor in run.weights().values())
    (network,) = plan.estimates["networks"].values()
    assert network["parameters"] <= weights < 1.05 * network["parameters"]  # and buffers
    again = vs.train("segment", balls, plan="plan.json")  # unedited: the same run
    assert again.path == run.path
    assert again.id == run.id
    assert any("finished before" in line for line in again.audit())
    assert not edits(again)
    assert len(list((tmp_path / "runs").iterdir())) == 1


def test_estimates_are_measured_and_minutes_become_steps(balls: Path) -> None:
    held = vs.plan("segment", balls, minutes=30).estimates
    (network,) = held["networks"].values()
    assert network["seconds_per_step"] > 0
    assert network["seconds_per_validation"] > 0
    assert network["steps"] >= 10
    assert network["steps"] * network["seconds_per_step"] < 30 * 60
    assert 0 < held["preparing_seconds"] < held["seconds"] < 30 * 60
    assert held["images"] == 8  # of training and of validation
    # 16 ** 3 voxels of 2 bytes and a mask of 1, of 6 training images, and a fifth
    assert held["cache_bytes"] == pytest.approx(1.2 * 6 * 3 * 16**3, rel=0.01)
    assert held["memory_bytes"] > 100e6  # PyTorch alone takes more
    with pytest.raises(BudgetError, match="minutes more"):
        vs.plan("segment", balls, minutes=0.001)


def test_a_network_that_heads_answer_for_may_be_left_out_for_time(stripes: Path) -> None:
    plan = vs.plan("classify", stripes, minutes=0.001)
    assert plan.estimates["networks"] == {}
    assert "minutes more" in plan.estimates["left_out"]["resnet18-20"]
    assert any("resnet18-20: would be left out for time" in line for line in plan.lines())
    with pytest.raises(BudgetError, match="minutes more"):
        vs.plan("classify", stripes, minutes=0.001, model="resnet18")


def test_an_edited_plan_is_trained_as_it_stands(
    balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vesalius.tasks.segment import fit

    seen: list[tuple[int, ...]] = []
    plain = fit.draw

    def watched(*arguments: Any) -> Any:
        images, labels = plain(*arguments)
        seen.append(images.shape)
        return images, labels

    monkeypatch.setattr(fit, "draw", watched)
    plan = vs.plan("segment", balls, steps=9)
    before = plan.record["id"]
    plan.decisions["batch"] = 3
    plan.decisions["patch"] = [8, 16, 16]
    plan.decisions["optimizer"]["lr"] = 0.0001
    plan.decisions["budget"] = {"steps": 2}
    path = plan.save(tmp_path / "plan.json")
    run = vs.train("segment", balls, plan=path, out=tmp_path / "run")
    assert seen == [(3, 1, 8, 16, 16)] * 2
    assert run.plan["measured"]["steps_done"] == 2
    assert run.decisions == plan.decisions
    assert run.id == plan_id(plan.record) != before
    assert set(edits(run)) == {
        f"decision batch edited: {vs.plan('segment', balls, steps=9).decisions['batch']} -> 3",
        "decision patch edited: [16, 16, 16] -> [8, 16, 16]",
        "decision optimizer.lr edited: 0.002 -> 0.0001",
        'decision budget edited: {"steps": 9} -> {"steps": 2}',
    }
    again = vs.train("segment", balls, plan=plan, out=tmp_path / "run")
    assert any("finished before" in line for line in again.audit())
    with pytest.raises(RunError, match="different: budget, plan"):
        vs.train("segment", balls, steps=2, out=tmp_path / "run")
    plan.decisions["batch"] = 2
    with pytest.raises(RunError, match="different: plan"):
        vs.train("segment", balls, plan=plan, out=tmp_path / "run")


def test_a_classifier_trains_what_its_plan_leaves_in(stripes: Path, tmp_path: Path) -> None:
    plan = vs.plan("classify", stripes, model="auto", steps=2)
    assert set(plan.estimates["networks"]) == {n["name"] for n in plan.decisions["networks"]}
    assert [one["seconds"] > 0 for one in plan.estimates["frozen"].values()] == [True]
    plan.decisions["networks"] = []
    heads = plan.decisions["frozen"][0]["heads"]
    plan.decisions["frozen"][0]["heads"] = [one for one in heads if one["name"] == "logistic-mean"]
    plan.decisions["class_weights"] = None
    run = vs.train("classify", stripes, plan=plan, out=tmp_path / "run")
    (candidate,) = run.plan["measured"]["candidates"]
    assert candidate.endswith("logistic-mean")
    assert not (run.path / "networks").exists()
    lines = edits(run)
    assert any("frozen.efficientnet_lite0.heads.knn edited: left out" in line for line in lines)
    assert any(re.search(r"networks\.resnet18-\d+ edited: left out", line) for line in lines)
    assert any("class_weights edited: [" in line and "-> null" in line for line in lines)
    plan.decisions["frozen"][0]["heads"] = []
    with pytest.raises(UsageError, match="the plan trains nothing"):
        vs.train("classify", stripes, plan=plan, out=tmp_path / "no")


def test_a_detector_begins_where_the_other_tasks_do(cells: Path, tmp_path: Path) -> None:
    plan = vs.plan("detect", cells, model="resnet10", steps=2)
    assert plan.estimates["networks"]["resnet10"]["seconds_per_step"] > 0
    plan.decisions["batch"] = 2
    run = vs.train("detect", cells, plan=plan, out=tmp_path / "run")
    assert edits(run) == ["decision batch edited: 4 -> 2"]
    assert run.id == plan_id(plan.record)
    assert {"seen.json", "split.json", "counting.json"} <= {p.name for p in run.path.iterdir()}
    assert (run.path / "report.html").exists()
    assert vs.train("detect", cells, plan=plan, out=tmp_path / "run").plan == {
        **run.plan,
        "audit": [*run.audit(), "this run was finished before; nothing was trained again"],
    }


@pytest.fixture(scope="module")
def drafted(balls: Path) -> dict[str, Any]:
    plan = draft(gather(Asked(task="segment", steps=2), balls))
    return {**plan, "id": plan_id(plan)}


@pytest.fixture(scope="module")
def classified(stripes: Path) -> dict[str, Any]:
    plan = draft(gather(Asked(task="classify", steps=2), stripes))
    return {**plan, "id": plan_id(plan)}


def keys_of(part: Any) -> set[str]:
    """Return the keys of decisions, those that name data or budgets left out."""
    if isinstance(part, list):
        return {name for item in part for name in keys_of(item)}
    if not isinstance(part, dict):
        return set()
    named = ("facts", "usual_count", "budget", "structures")
    inner = [keys_of(value) for name, value in part.items() if name not in named]
    return set(part).union(*inner)


def test_every_field_of_a_plan_is_documented(
    drafted: dict, classified: dict, cells: Path, tmp_path: Path
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "plan.md").read_text()
    detected = vs.plan("detect", cells, model="resnet10", steps=1).to_json()
    found = set(detected) | set(detected["estimates"])
    for plan in (drafted, classified, detected):
        found |= keys_of(plan["decisions"]) | set(plan["fingerprint"])
    for network in detected["estimates"]["networks"].values():
        found |= set(network)
    assert sorted(name for name in found if f"`{name}`" not in page) == []


def changed(plan: dict, path: str, change: Callable[[Any], Any]) -> dict:
    """Return a copy of a plan, as JSON holds it, with one part of its decisions changed."""
    held = json.loads(json.dumps(plan))
    *parents, last = path.split(".")
    part = held["decisions"]
    for name in parents:
        part = part[int(name) if isinstance(part, list) else name]
    if change(part.get(last)) is Ellipsis:
        del part[last]
    else:
        part[last] = change(part.get(last))
    return held


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("batchs", 3, "decisions has an unknown key 'batchs'.* Did you mean 'batch'"),
        ("optimizer.learning", 3, "decisions.optimizer has an unknown key 'learning'"),
        ("network.options.widht", 3, "decisions.network.options has an unknown key 'widht'"),
        ("batch", ..., "decisions lacks batch"),
        ("batch", "two", 'decisions.batch must be a whole number, got "two"'),
        ("batch", 2.5, "decisions.batch must be a whole number, got 2.5"),
        ("batch", True, "decisions.batch must be a whole number, got true"),
        ("batch", 0, "decisions.batch must be a whole number above 0, got 0"),
        ("optimizer.lr", -1, "decisions.optimizer.lr must be a number above 0, got -1"),
        ("optimizer", [], "decisions.optimizer must be an object"),
        ("patch", 16, "decisions.patch must be a list, got 16"),
        ("patch", [16, 16], r"decisions.patch must be 3 values, got \[16, 16\]"),
        ("patch", [16, 16, "a"], "decisions.patch must be a whole number"),
        ("network.options.strides", [1, 2], "decisions.network.options.strides must be a list"),
        ("precision", 16, "decisions.precision must be text, got 16"),
        ("labels", ["lung"], "decisions.labels must stay .* follows from the data"),
        ("network.in_channels", 3, "decisions.network.in_channels must stay 1, got 3"),
        ("optimizer.name", "SGD", "decisions.optimizer.name must stay"),
        ("budget", {"minutes": 1, "steps": 2}, "of minutes or of steps, one of them"),
        ("budget", {"steps": 0}, "steps must be at least 1"),
        ("budget", {"minutes": "10"}, "minutes must be positive"),
        ("normalization", "zscroe", "Did you mean 'zscore'"),
    ],
)
def test_a_misshapen_decision_is_named(
    drafted: dict, path: str, value: object, message: str
) -> None:
    held = changed(drafted, path, lambda _: value)
    with pytest.raises(UsageError, match=message):
        with_decisions(drafted, held)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("networks.0.name", "resnet99", r"one of resnet18-\d+, once; got 'resnet99'"),
        ("networks.0.batchs", 3, r"networks\.resnet18-\d+ has an unknown key 'batchs'"),
        ("frozen.0.heads", [{"name": "mpl"}], "got 'mpl'. Did you mean 'mlp'"),
        ("frozen.0.heads.2.dropout", "much", "heads.mlp.dropout must be a number"),
        ("target.classes", ["a", "b"], "decisions.target must stay"),
    ],
)
def test_a_misshapen_part_of_a_classifiers_plan_is_named(
    classified: dict, path: str, value: object, message: str
) -> None:
    held = changed(classified, path, lambda _: value)
    with pytest.raises(UsageError, match=message):
        with_decisions(classified, held)
    doubled = changed(classified, "networks", lambda held: held * 2)
    with pytest.raises(UsageError, match="once"):
        with_decisions(classified, doubled)


def numbers(part: Any, name: str = "") -> list[str]:
    """Return the dotted names of the numbers in decisions, lists left out."""
    if isinstance(part, dict):
        return [found for key, value in part.items() for found in numbers(value, f"{name}.{key}")]
    return [name[1:]] if isinstance(part, (int, float)) and not isinstance(part, bool) else []


@settings(deadline=None, max_examples=40)
@given(draw=st.data())
def test_a_changed_number_is_one_line_of_the_audit(drafted: dict, draw: st.DataObject) -> None:
    kept = ("in_channels", "spatial_dims", "folds", "neighbors")
    free = [name for name in numbers(drafted["decisions"]) if not name.endswith(kept)]
    name = draw.draw(st.sampled_from([n for n in free if not n.startswith("budget")]))
    factor = draw.draw(st.integers(2, 9))
    held = changed(drafted, name, lambda value: value * factor + 1)
    plan = with_decisions(copy.deepcopy(drafted), held)
    assert plan["decisions"] == held["decisions"]
    (line,) = [line for line in plan["audit"] if line.startswith("decision ")]
    assert line.startswith(f"decision {name} edited: ")
    assert plan_id({**plan}) != drafted["id"]
    there = with_decisions(copy.deepcopy(drafted), {**held, "id": plan_id(held)})
    assert f"decision {name} planned elsewhere: " in there["audit"][-1]
    same = with_decisions(copy.deepcopy(drafted), json.loads(json.dumps(drafted)))
    assert same["audit"] == drafted["audit"]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("patch", [9, 16, 16], "multiple"),
        ("network.options.strides", [[1, 1, 1], [2, 2, 2]], "one entry a level"),
        ("augmentation.planes", [[0, 7]], "its first step says"),
        ("network.name", "vgg99", "model must be one of"),
        ("precision", "64-lossy", "its first step says"),
    ],
)
def test_a_plan_whose_first_step_fails_is_refused_before_anything_is_written(
    balls: Path, drafted: dict, tmp_path: Path, path: str, value: object, message: str
) -> None:
    held = changed(drafted, path, lambda _: value)
    (tmp_path / "plan.json").write_text(json.dumps(held))
    with pytest.raises(UsageError, match=message):
        vs.train("segment", balls, plan=tmp_path / "plan.json", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_plan_of_other_data_or_split_is_refused(
    balls: Path, stripes: Path, drafted: dict, tmp_path: Path
) -> None:
    path = tmp_path / "plan.json"

    def trained(cohort: Path = balls, task: str = "segment", **asked: Any) -> None:
        vs.train(task, cohort, plan=path, out=tmp_path / "run", **asked)

    path.write_text(json.dumps(drafted))
    with pytest.raises(UsageError, match="the plan is one of 'segment', and the task 'detect'"):
        trained(task="detect")
    with pytest.raises(UsageError, match="the plan says steps, seed; leave it out"):
        trained(steps=3, seed=2)
    some = make_balls(tmp_path / "other", 6, 16)
    with pytest.raises(UsageError, match="made for other rows or labels"):
        trained(some)
    from vesalius.cohorts import Cohort
    from vesalius.cohorts.splits import make_split

    other = make_split(Cohort.open(balls), seed=5).save(tmp_path / "split.json")
    with pytest.raises(UsageError, match="made for another split"):
        trained(split=other)
    path.write_text(json.dumps(draft(gather(Asked(task="segment", split=other), balls))))
    with pytest.raises(UsageError, match="it lacks id"):
        trained()
    vs.plan("segment", balls, steps=1, split=other, out=path)
    with pytest.raises(UsageError, match="give the --split file"):
        trained()
    held = json.loads(path.read_text())
    path.write_text(json.dumps({**held, "seed": 3}))
    with pytest.raises(UsageError, match="only its decisions are for editing"):
        trained(split=other)
    path.write_text("{")
    with pytest.raises(UsageError, match="cannot be read"):
        trained()
    path.write_text("[1]")
    with pytest.raises(UsageError, match="is no plan"):
        trained()
    path.write_text(json.dumps({**held, "request": {}}))
    with pytest.raises(UsageError, match="request lacks target"):
        trained()
    assert not (tmp_path / "run").exists()


def test_a_plan_remembers_what_was_asked(stripes: Path) -> None:
    asked = Asked(
        task="classify",
        target=vs.Cohort.open(stripes).targets[0],
        target_kind="multiclass",
        case="image",
        steps=3,
        model="cnn",
        normalize="zscore",
        where="kind = 'image'",
        ungrouped_split=True,
        seed=4,
    )
    data = gather(asked, stripes)
    again = Asked(task="classify").planned(draft(data))
    assert again == asked
    assert gather(again, stripes).request == data.request


def test_a_run_is_begun_with_the_file_that_its_plan_names(stripes: Path, tmp_path: Path) -> None:
    import torch

    from vesalius.networks import build
    from vesalius.networks.external import save_encoder

    torch.manual_seed(0)
    network = build("cnn", spatial_dims=2, in_channels=1, out_channels=2, stem="small", width=8)
    weights = save_encoder(network, tmp_path / "own.safetensors", name="cnn", stem="small")
    plan = vs.plan("classify", stripes, model="frozen", encoder=weights)
    assert plan.estimates["networks"] == {}
    with pytest.raises(UsageError, match="made with another encoder"):
        vs.train("classify", stripes, plan=plan, out=tmp_path / "run")
    run = vs.train("classify", stripes, plan=plan, encoder=weights, out=tmp_path / "run")
    assert run.finished
    assert run.id == plan.record["id"]


def test_the_peak_is_of_what_is_done_within() -> None:
    peaks = {}
    for size in (128 << 20, 48 << 20):  # larger than what the process keeps for itself when freed
        before = held_memory()
        with PeakMemory() as memory:
            np.ones(size, np.uint8).sum()
        peaks[size] = memory.peak
        assert size - (1 << 20) < memory.peak - before < size + (16 << 20)
    assert peaks[48 << 20] < peaks[128 << 20] - (60 << 20)


@pytest.mark.slow
def test_training_takes_the_memory_that_was_estimated(tmp_path: Path) -> None:
    cohort = make_balls(tmp_path, 10, 56)
    code = (
        "import sys, re, vesalius as vs\n"
        "getattr(vs, sys.argv[1])('segment', sys.argv[2], steps=3, out=sys.argv[3])\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
    )

    def peak(verb: str, out: Path) -> int:
        done = subprocess.run(
            [sys.executable, "-c", code, verb, str(cohort), str(out)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return int(done.stdout) * 1024

    peak("plan", tmp_path / "plan.json")
    said = json.loads((tmp_path / "plan.json").read_text())["estimates"]
    (network,) = said["networks"].values()
    assert network["training_bytes"] > 100e6  # of a patch of 48 or more voxels along each axis
    assert 0.5 < peak("train", tmp_path / "run") / said["memory_bytes"] < 2
