# SPDX-License-Identifier: Apache-2.0
"""A search as a user makes it: a tiny real one, what its data allow, wrong arguments."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vesalius.cohorts import Cohort
from vesalius.cohorts.splits import make_split
from vesalius.errors import BudgetError, RunError, UsageError
from vesalius.flows.leaderboard import leaderboard
from vesalius.flows.planning.asked import Asked
from vesalius.flows.planning.draft import draft, gather
from vesalius.flows.planning.edits import with_decisions
from vesalius.flows.scan import scan
from vesalius.flows.search import search
from vesalius.flows.searching import segmentation
from vesalius.flows.searching.classification import (
    NAMES,
    candidate_models,
    declare,
    edited,
    planned_model,
    smaller,
)  # fmt: skip
from vesalius.flows.searching.held_out import set_apart
from vesalius.flows.searching.preparation import _points_of
from vesalius.tasks.cases import classification_cases
from vesalius.tasks.run import Run, plan_id
from vesalius.tuning.space import Space

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported


@pytest.fixture(scope="module")
def stripes(tmp_path_factory) -> Path:
    """A scanned cohort of 160 PNG images, one folder a class."""
    from PIL import Image

    root = tmp_path_factory.mktemp("stripes")
    rng = np.random.default_rng(0)
    for number in range(160):
        wave = np.repeat(np.sin(np.arange(16) * 0.9 + rng.uniform(0, 6))[None], 16, axis=0)
        pixels = 128 + 50 * (wave if number % 2 else wave.T) + rng.normal(0, 30, (16, 16))
        folder = root / "data" / ("along", "across")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        image.save(folder / f"{number:03}.png")
    scan(root / "data", out=root / "cohort", workers=1)
    return root


@pytest.fixture(scope="module")
def planned(stripes: Path) -> Callable[[str], tuple[dict, object]]:
    """Return `planned(model)`: the plan of a model for the cohort, drafted once."""
    held: dict = {}

    def of(model: str) -> dict:
        if model not in held:
            data = gather(Asked(task="classify", steps=10, model=model), stripes / "cohort")
            held[model] = draft(data)
        return held[model]

    return of


@pytest.fixture(scope="module")
def space(planned) -> Space:
    plan = planned("auto")
    return declare(plan["fingerprint"], plan["decisions"], candidate_models(plan["decisions"]))


def test_every_point_of_the_space_is_a_plan_of_its_own(space: Space, planned) -> None:
    rng = np.random.default_rng(0)
    seen = set()
    models = space.parameters[0].values
    assert {"frozen", "auto", "cnn", "resnet18", "resnet18+frozen"} <= set(models)
    for number in range(120):
        point = space.draw(rng) if number >= len(models) else space.defaults(model=models[number])
        plan = planned(planned_model(point))
        held = {"id": "", **json.loads(json.dumps(plan))}
        held["decisions"] = edited(held["decisions"], point)
        made = with_decisions(plan, held)  # raises where the edit is not allowed
        seen.add(plan_id(made))
        for spec in made["decisions"]["networks"]:
            if "lr" in point:
                assert spec["optimizer"]["lr"] == point["lr"]
                assert spec["batch"] == point["batch"]
        less = smaller(point)
        while less is not None:  # comes to an end
            held["decisions"] = edited(plan["decisions"], less)
            with_decisions(plan, held)
            less = smaller(less)
    assert len(seen) > 100


def test_the_defaults_are_what_train_would_do(space: Space, planned) -> None:
    for model in ("auto", "frozen", "resnet18", "cnn"):
        plan = planned(model)
        assert edited(plan["decisions"], space.defaults(model=model)) == plan["decisions"]


def test_only_what_the_data_allow_is_searched(space: Space, planned) -> None:
    names = [parameter.name for parameter in space.parameters]
    assert set(names) <= set(NAMES)
    assert "pooling" not in names  # a case has one image
    plan = planned("auto")
    decisions = {**plan["decisions"], "target": {**plan["decisions"]["target"]}}
    decisions["target"]["kind"] = "regression"
    several = {**plan["fingerprint"], "images_per_case": 3.0}
    other = [p.name for p in declare(several, decisions, ["frozen", "cnn"]).parameters]
    assert "pooling" in other
    assert "label_smoothing" not in other
    assert "width" not in other
    alone = [p.name for p in declare(several, decisions, ["frozen"]).parameters]
    assert alone == ["model", "normalization", "frozen_size"]


def test_cases_set_apart_are_whole_groups_of_training_or_validation(stripes: Path) -> None:
    cohort = Cohort.open(stripes / "cohort")
    cases = classification_cases(cohort, None)
    split = make_split(cohort, target=["class"])
    left, keys, lines = set_apart(split, cohort, cases, seed=0)
    assert 15 < len(keys) < 60
    assert set(left.rows) | set(keys) == set(split.rows)
    assert not set(left.rows) & set(keys)
    assert "test" not in {split.rows[key] for key in keys}
    assert left.keys("test") == split.keys("test")
    truths = [case.truth for case in cases.cases if case.rows[0]["key"] in keys]
    assert abs(truths.count("along") - truths.count("across")) <= 2
    assert "no trial sees them" in lines[0]
    few = cohort.filter("key in (" + ",".join(f"'{k}'" for k in split.keys("train")[:40]) + ")")
    cases = classification_cases(few, None)
    _, keys, lines = set_apart(make_split(few, target=["class"]), few, cases, seed=0)
    assert keys == []
    assert "too few cases" in lines[0]


def test_a_small_search_from_cohort_to_confirmed_winner(stripes: Path, tmp_path: Path) -> None:
    held = {
        "format": "space 1",
        "parameters": {
            "model": {"kind": "choice", "values": ["cnn"]},
            "lr": {"kind": "float", "low": 1e-3, "high": 1e-2, "log": True},
        },
    }
    (tmp_path / "space.json").write_text(json.dumps(held))
    shown = []
    asked = {
        "minutes": 60, "steps": 10, "trials": 2, "space": tmp_path / "space.json",
        "out": tmp_path / "search",
    }  # fmt: skip
    found = search("classify", stripes / "cohort", say=shown.append, **asked)
    assert [trial.state for trial in found.trials] == ["done", "done"]
    assert found.trials[0].parameters["lr"] != found.trials[1].parameters["lr"]
    for trial in found.trials:
        run = Run.load(found.run_of(trial))
        assert run.finished
        assert run.decisions["networks"][0]["optimizer"]["lr"] == trial.parameters["lr"]
        assert trial.plan == plan_id(run.plan)
        assert 0 < trial.values["latency"] < 30
        assert trial.values["size"] > (run.path / "model.safetensors").stat().st_size
        assert 50e6 < trial.values["memory"] < 3e9
        scores = run.metrics["splits"]["val"]["scores"]
        auc = next(s["value"] for s in scores if s["name"] == "auc" and not s["label"])
        assert trial.values["auc"] == auc
        assert not set(found.setting["held_out"]) & set(run.subsets())
    assert found.ranked[0].values["auc"] == max(t.values["auc"] for t in found.trials)
    assert shown[-1].trials == found.trials
    assert found.confirmed["winner"] == found.ranked[0].number
    assert found.confirmed["corrected"]["value"] <= found.confirmed["corrected"]["raw"] + 1e-9
    assert found.confirmed["held_out"]["n"] == len(found.setting["held_out"])
    assert any("on cases that no trial saw" in line for line in found.lines())
    page = found.report.read_text()
    assert "AUC, held out" in page
    assert str(stripes) not in page
    listed = leaderboard(tmp_path / "search")
    assert listed.trials == found.trials
    assert listed.to_json()["best"]["number"] == found.ranked[0].number
    assert all(row["weights"] for row in listed.to_json()["trials"])

    wider = json.loads(json.dumps(held))
    wider["parameters"]["lr"] |= {"low": found.ranked[0].parameters["lr"]}
    points, said = _points_of(str(found.path), Space.from_json(wider))
    assert points[0] == found.ranked[0].parameters
    assert f"the best {len(points)} points" in said[0]

    before = found.report.stat().st_mtime_ns
    again = search("classify", stripes / "cohort", **asked)  # the same call
    assert again.trials == found.trials
    assert again.report.stat().st_mtime_ns == before
    with pytest.raises(RunError, match=r"another search .different: seed"):
        search("classify", stripes / "cohort", seed=1, **asked)
    with pytest.raises(UsageError, match="a search that is resumed says seed"):
        search(resume=tmp_path / "search", seed=1)


@pytest.fixture(scope="module")
def balls(tmp_path_factory) -> Path:
    """A scanned cohort of 10 NIfTI volumes with masks."""
    from vesalius import io
    from vesalius.volume import LabelMap, Volume

    root = tmp_path_factory.mktemp("balls")
    rng = np.random.default_rng(0)
    for number in range(10):
        index = np.stack(np.meshgrid(*[np.arange(n) for n in (20, 18, 16)], indexing="ij"), -1)
        mask = np.linalg.norm(index - rng.uniform(7, 11, 3), axis=-1) < 6
        values = 100 + 30 * mask + rng.normal(0, 8, mask.shape)
        for kind, folder, data in (
            (Volume, "images", values.astype(np.float32)),
            (LabelMap, "labels", mask.astype(np.uint8)),
        ):
            (root / "data" / folder).mkdir(parents=True, exist_ok=True)
            path = root / "data" / folder / f"case_{number:03}.nii.gz"
            io.write(kind(data[None], np.eye(4)), path)
    scan(root / "data", out=root / "cohort", workers=1)
    return root


def test_every_point_of_a_segmentation_is_a_plan_of_its_own(balls: Path) -> None:
    def planned(model: str) -> dict:
        return draft(gather(Asked(task="segment", steps=10, model=model), balls / "cohort"))

    plan = planned("auto")
    decisions = json.loads(json.dumps(plan["decisions"]))
    models = segmentation.candidate_models(decisions)
    assert models[0] == plan["decisions"]["network"]["name"]
    space = segmentation.declare(plan["fingerprint"], decisions, models)
    plans = {model: planned(model) for model in models}
    assert segmentation.edited(decisions, space.defaults()) == decisions
    rng, seen = np.random.default_rng(0), set()
    for _ in range(60):
        point = space.draw(rng)
        own = plans[segmentation.planned_model(point)]
        held = {"id": "", **json.loads(json.dumps(own))}
        held["decisions"] = segmentation.edited(held["decisions"], point)
        seen.add(plan_id(with_decisions(own, held)))
        less = segmentation.smaller(point)
        while less is not None:  # comes to an end
            held["decisions"] = segmentation.edited(held["decisions"], less)
            with_decisions(own, held)
            less = segmentation.smaller(less)
    assert len(seen) == 60


@pytest.mark.slow
def test_a_small_search_of_a_segmentation(balls: Path, tmp_path: Path) -> None:
    found = search("segment", balls / "cohort", steps=12, trials=2, minutes=90, out=tmp_path / "s")
    assert [trial.state for trial in found.trials] == ["done", "done"]
    assert all(0 < trial.values["dice"] <= 1 for trial in found.trials)
    assert all(trial.values["size"] > 1e5 for trial in found.trials)
    assert found.confirmed["corrected"]["raw"] == pytest.approx(found.ranked[0].values["dice"])
    assert found.confirmed["held_out"] is None  # too few cases
    assert found.report.exists()


def test_wrong_arguments_are_named(stripes: Path, tmp_path: Path) -> None:
    cohort = stripes / "cohort"
    with pytest.raises(UsageError, match="needs a task and a cohort"):
        search("classify")
    with pytest.raises(UsageError, match="task of a search must be one of classify, segment"):
        search("detect", cohort)
    with pytest.raises(UsageError, match="Did you mean 'random'"):
        search("classify", cohort, tuner="randon")
    with pytest.raises(UsageError, match="minutes must be above 0"):
        search("classify", cohort, minutes=0)
    with pytest.raises(UsageError, match="max_latency must be above 0"):
        search("classify", cohort, max_latency=-1.0)
    with pytest.raises(UsageError, match="workers must be at least 1"):
        search("classify", cohort, workers=0, out=tmp_path / "a")
    with pytest.raises(RunError, match="is no search"):
        search(resume=tmp_path)
    with pytest.raises(RunError, match="is no search"):
        leaderboard(tmp_path)
    (tmp_path / "space.json").write_text(
        '{"format": "space 1", "parameters": {"batsch": {"kind": "int", "low": 1, "high": 2}}}'
    )
    with pytest.raises(UsageError, match="Did you mean 'batch'"):
        search("classify", cohort, space=tmp_path / "space.json", out=tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_impossible_limits_end_in_a_clear_word(tmp_path: Path) -> None:
    from vesalius.flows.searching.result import SearchResult
    from vesalius.flows.searching.session import _beyond
    from vesalius.tuning.trial import Trial

    asked = {"max_latency": 0.001, "max_memory": None, "max_size": None, "task": "classify"}
    setting = {"asked": asked, "quality": "auc", "steps": [10]}
    values = {"auc": 0.9, "latency": 0.02, "memory": 5e8, "size": 1e7}
    trial = Trial(0, {"model": "cnn"}, 0, "done", values)
    result = SearchResult(tmp_path, setting, (trial,), 1.0)
    assert not result.within
    assert "latency 20.0 ms (at most 1.0 ms)" in _beyond(result)
    assert issubclass(BudgetError, Exception)
