# SPDX-License-Identifier: Apache-2.0
"""A segmenter begins with another run's weights, from files to the audit, and never leaks."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import vesalius as vs
from vesalius import io
from vesalius.cohorts import Cohort
from vesalius.errors import UsageError
from vesalius.tasks.run import Run
from vesalius.training.log import read_log
from vesalius.volume import LabelMap, Volume

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported


def write_rings(root: Path, count: int, seed: int, names: dict[int, str]) -> Path:
    """Scan 2D images of a disc in a ring; of the two structures in turn, `names` says which."""
    rng = np.random.default_rng(seed)
    index = np.stack(np.meshgrid(np.arange(32), np.arange(32), indexing="ij"), -1)
    for number in range(count):
        distance = np.linalg.norm(index - rng.uniform(14, 18, 2), axis=-1)
        mask = np.where(distance < 5, 2, np.where(distance < 10, 1, 0)).astype(np.uint8)
        values = 100 + 40.0 * (mask == 1) - 40.0 * (mask == 2) + rng.normal(0, 6, mask.shape)
        for folder, image in (
            ("images", Volume(values.astype(np.float32)[None, ..., None], np.eye(4))),
            ("labels", LabelMap(mask[None, ..., None], np.eye(4), names=names)),
        ):
            (root / "data" / folder).mkdir(parents=True, exist_ok=True)
            io.write(image, root / "data" / folder / f"case_{number:03}.nrrd")
    vs.scan(root / "data", out=root / "cohort", workers=1)
    return root / "cohort"


@pytest.fixture(scope="module")
def rings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rings(tmp_path_factory.mktemp("rings"), 12, 0, {1: "ring", 2: "core"})


@pytest.fixture(scope="module")
def first(rings: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return vs.train("segment", rings, steps=12, out=tmp_path_factory.mktemp("first") / "run")


def same_split(run: Run) -> dict:
    return {"start": run.path, "split": run.path / "split.json"}


def audit(run: Run) -> str:
    return "\n".join(run.audit())


def test_it_becomes_better_or_stays_as_it_was(rings: Path, first: Run, tmp_path: Path) -> None:
    better = vs.train("segment", rings, steps=25, out=tmp_path / "better", **same_split(first))
    assert better.decisions["start"] == first.id
    assert better.id != first.id
    assert better.decisions["optimizer"]["lr"] == pytest.approx(2e-3 / 3)
    assert "\nbetter than the run it began from: mean Dice" in audit(better)
    checks = [e for e in read_log(better.path / "log.jsonl") if e["event"] == "validation"]
    assert checks[0]["step"] == 0
    dice = [
        next(s["value"] for s in run.metrics["splits"]["val"]["scores"] if s["name"] == "dice")
        for run in (first, better)
    ]
    assert dice[1] > dice[0]

    plan = vs.plan("segment", rings, steps=4, **same_split(better))
    plan.decisions["optimizer"]["lr"] = 1e-12  # nothing can become better
    asked = {"plan": plan, "out": tmp_path / "same", **same_split(better)}
    same = vs.train("segment", rings, **asked)
    assert "\nno better than the run it began from, whose weights are kept" in audit(same)
    assert same.plan["measured"]["best_step"] == 0
    old, new = better.weights(), same.weights()
    assert all(torch.equal(old[name], new[name]) for name in old)
    assert (same.path / "normalizer.json").read_bytes() == (
        better.path / "normalizer.json"
    ).read_bytes()


def test_other_structures_are_learned_from_where_names_end(
    rings: Path, first: Run, tmp_path: Path
) -> None:
    asked = {"steps": 1, "labels": "core,whole=ring+core", **same_split(first)}
    run = vs.train("segment", rings, out=tmp_path / "run", **asked)
    assert "not known to it, and drawn anew: whole" in audit(run)
    assert "the run it began from" not in audit(run)  # the scores cannot be compared
    other = write_rings(tmp_path / "other", 6, 9, {1: "shell", 2: "core"})
    run = vs.train("segment", other, steps=1, start=first.path, out=tmp_path / "new")
    assert "not known to it, and drawn anew: shell" in audit(run)
    assert run.decisions["network"] == first.decisions["network"]


def test_what_judges_must_be_new_to_the_run_begun_from(
    rings: Path, first: Run, tmp_path: Path
) -> None:
    no = {"steps": 1, "out": tmp_path / "no"}
    with pytest.raises(UsageError, match=r"were used by the run .* give its split"):
        vs.train("segment", rings, start=first.path, seed=3, **no)
    with pytest.raises(UsageError, match="same split and number of folds"):
        vs.train("segment", rings, folds=2, **same_split(first), **no)
    shutil.copytree(rings.parent / "data", tmp_path / "copy" / "data")
    vs.scan(tmp_path / "copy" / "data", out=tmp_path / "copy" / "cohort", workers=1)
    keys = [set(Cohort.open(path).keys()) for path in (rings, tmp_path / "copy" / "cohort")]
    assert not keys[0] & keys[1]
    with pytest.raises(UsageError, match="were used by the run"):  # other keys, the same voxels
        vs.train("segment", tmp_path / "copy" / "cohort", start=first.path, seed=3, **no)
    assert not (tmp_path / "no").exists()


def test_a_run_with_folds_hands_each_network_on(rings: Path, first: Run, tmp_path: Path) -> None:
    asked = {"folds": 2, "steps": 2}
    old = vs.train("segment", rings, out=tmp_path / "old", **asked)
    with pytest.raises(UsageError, match="same split and number of folds"):
        vs.train("segment", rings, steps=1, out=tmp_path / "no", **same_split(old))
    with pytest.raises(UsageError, match="same split and number of folds"):
        vs.train("segment", rings, folds=3, steps=1, out=tmp_path / "no", **same_split(old))
    plan = vs.plan("segment", rings, **asked, **same_split(old))
    plan.decisions["optimizer"]["lr"] = 1e-12
    new = vs.train("segment", rings, plan=plan, out=tmp_path / "new", **same_split(old))
    assert audit(new).count("no better than the run it began from") == 2
    before, after = old.weights(), new.weights()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_cannot_begin_is_said(rings: Path, first: Run, tmp_path: Path) -> None:
    no = {"steps": 1, "out": tmp_path / "no", **same_split(first)}
    with pytest.raises(UsageError, match="keeps the model of that run"):
        vs.train("segment", rings, model="fcn", **no)
    with pytest.raises(UsageError, match="begins a network of classify or segment"):
        vs.train("detect", rings, **no)
    unfinished = tmp_path / "unfinished"
    shutil.copytree(first.path, unfinished)
    Run.load(unfinished).measure(finished=False)
    with pytest.raises(UsageError, match="is not finished"):
        vs.train("segment", rings, **(no | {"start": unfinished}))
