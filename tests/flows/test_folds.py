# SPDX-License-Identifier: Apache-2.0
"""Folds from files to answers: resumed after every death, scored out of fold, one ensemble."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

import vesalius as vs
from vesalius import io
from vesalius.cohorts import Cohort
from vesalius.cohorts.splits import Split
from vesalius.errors import CohortError, UsageError
from vesalius.tasks.run import Run
from vesalius.tasks.segment import fit as training
from vesalius.tasks.segment.folds import read_folds
from vesalius.tasks.segment.largest_choice import told
from vesalius.tasks.segment.predict import Segmenter
from vesalius.training.checkpoint import load_tensors
from vesalius.training.log import read_log
from vesalius.volume import LabelMap, Volume

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported


def write_pairs(root: Path, pairs: list[tuple[np.ndarray, np.ndarray]]) -> Path:
    """Scan 2D images `(i, j)` and their masks, written as NIfTI."""
    for number, (values, mask) in enumerate(pairs):
        for folder, kind, data in (
            ("images", Volume, values.astype(np.float32)),
            ("labels", LabelMap, mask.astype(np.uint8)),
        ):
            (root / "data" / folder).mkdir(parents=True, exist_ok=True)
            image = kind(data[None, ..., None], np.eye(4))
            io.write(image, root / "data" / folder / f"case_{number:03}.nii.gz")
    vs.scan(root / "data", out=root / "cohort", workers=1)
    return root / "cohort"


def disc(center: tuple[float, float], radius: float, side: int = 32) -> np.ndarray:
    index = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), -1)
    return np.linalg.norm(index - np.array(center), axis=-1) < radius


def spotted(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A bright disc with a bright speck in each corner: values, the disc, and both."""
    large = disc(tuple(rng.uniform(15, 17, 2)), 7)
    specks = np.zeros_like(large)
    for corner in ((4, 4), (4, 27), (27, 4), (27, 27)):
        specks |= disc(tuple(np.array(corner) + rng.uniform(-0.5, 0.5, 2)), 3)
    values = 100 + 60 * (large | specks) + rng.normal(0, 5, large.shape)
    return values, large, large | specks


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images of one disc each, scanned."""
    rng = np.random.default_rng(0)
    found = [spotted(rng) for _ in range(12)]
    return write_pairs(tmp_path_factory.mktemp("discs"), [(v, large) for v, large, _ in found])


def weights_of(run: Run) -> dict[str, torch.Tensor]:
    return load_tensors(run.path / "model.safetensors")[0]


def same(one: Run, other: Run) -> bool:
    a, b = weights_of(one), weights_of(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def whole(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return vs.train("segment", discs, folds=2, steps=5, out=tmp_path_factory.mktemp("whole") / "r")


def test_each_network_is_judged_by_what_it_never_saw(discs: Path, whole: Run) -> None:
    run = Run.load(whole.path)
    subsets, folds = run.subsets(), read_folds(run)
    assert set(folds) == {key for key, name in subsets.items() if name != "test"}
    assert run.decisions["folds"] == 2
    assert set(run.plan["measured"]["networks"]) == {"fold-1", "fold-2"}
    for name in ("fold-1", "fold-2"):
        steps = [
            e for e in read_log(run.path / "networks" / name / "log.jsonl") if e["event"] == "step"
        ]
        assert len(steps) == 5
    part = run.metrics["splits"]["val"]
    assert part["n_cases"] == len(folds)
    assert part["folds"] == 2
    assert len(json.loads((run.path / "quality.json").read_text())) == 1
    rows = run.predictions().to_pandas().set_index("key")
    cohort, segmenter = Cohort.open(discs), Segmenter.load(run)
    differ = 0
    for key, fold in folds.items():
        volume = cohort.read(cohort.row(key))
        alone = [segmenter.member(n).predict(volume).data for n in (0, 1)]
        written = io.read_labels(run.path / rows.loc[key, "file"]).data
        assert (written == alone[fold]).all()
        differ += int((alone[0] != alone[1]).any())
    assert differ
    assert any("scores of 'val' are out of fold" in line for line in run.audit())
    page = (run.path / "report.html").read_text()
    assert "2 folds, each answered by the network that did not learn from it" in page
    assert "Training and validation subsets, 2 folds" in (run.path / "card.md").read_text()


def test_the_run_answers_by_the_mean_of_its_networks(discs: Path, whole: Run, tmp_path) -> None:
    segmenter = Segmenter.load(Run.load(whole.path))
    x = torch.randn(2, 1, *whole.decisions["patch"])
    members = [torch.softmax(segmenter.member(n).logits(x).float(), 1) for n in (0, 1)]
    mean = torch.softmax(segmenter.logits(x), 1)
    torch.testing.assert_close(mean, (members[0] + members[1]) / 2, rtol=1e-3, atol=1e-4)
    metrics = vs.evaluate(whole, discs)
    test = [key for key, name in whole.subsets().items() if name == "test"]
    assert metrics["splits"]["test"]["n_cases"] == len(test)
    assert "folds" not in metrics["splits"]["test"]
    before = Run.load(whole.path).metrics["splits"]["val"]
    again = vs.evaluate(whole, discs, split="val")["splits"]["val"]
    assert again["scores"] == before["scores"]
    with pytest.raises(UsageError, match="--split val"):
        vs.evaluate(whole, discs, split="train")
    exam = discs.parent / "data" / "images" / "case_000.nii.gz"
    answers = [
        vs.predict(whole, exam, out=tmp_path / str(mirror), mirror=mirror).files[0]
        for mirror in (False, True)
    ]
    plain, mirrored = (io.read_labels(path).data for path in answers)
    volume = io.read(exam)
    assert (plain == segmenter.predict(volume).data).all()
    assert (mirrored == segmenter.predict(volume, mirror=True).data).all()


class Killed(BaseException):
    """Stands for a death at a moment that a test chooses."""


def dying(call: Callable, at: int) -> Callable:
    """Return `call` that dies the `at`-th time."""
    count = 0

    def wrapped(*args, **kwargs):
        nonlocal count
        count += 1
        if count == at:
            raise Killed
        return call(*args, **kwargs)

    return wrapped


def test_deaths_change_nothing(
    discs: Path, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"folds": 2, "steps": 5, "out": tmp_path / "run"}
    # in the first network, in the second, before the weights are one file, before the scores
    deaths = [("draw", 3), ("draw", 7), ("Ensemble", 1), ("score_cases", 1)]
    for name, at in deaths:
        with monkeypatch.context() as patch:
            patch.setattr(training, name, dying(getattr(training, name), at))
            with pytest.raises(Killed):
                vs.train("segment", discs, **asked)
        assert not Run.load(tmp_path / "run").finished
    run = vs.train("segment", discs, **asked)
    assert run.id == whole.id
    assert same(run, whole)
    assert run.metrics["splits"]["val"]["scores"] == whole.metrics["splits"]["val"]["scores"]
    assert (run.path / "folds.json").read_bytes() == (whole.path / "folds.json").read_bytes()
    assert not (run.path / "cache").exists()


CHILD = """
import sys, time
import vesalius as vs
from vesalius.tasks.segment import fit
drawn = fit.draw

def slowly(*args):
    time.sleep(float(sys.argv[3]))
    return drawn(*args)

fit.draw = slowly
vs.train("segment", sys.argv[1], folds=2, steps=12, out=sys.argv[2])
"""


@pytest.mark.slow
def test_two_kills_change_nothing(discs: Path, tmp_path: Path) -> None:
    def start(folder: Path, pause: float) -> subprocess.Popen[bytes]:
        source = str(Path(__file__).parents[2] / "src")
        paths = os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", CHILD, str(discs), str(folder), str(pause)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert start(whole, 0).wait(timeout=120) == 0
    for name in ("fold-1", "fold-2"):
        child = start(broken, 0.3)
        deadline = time.monotonic() + 100
        log = broken / "networks" / name / "log.jsonl"
        while len(read_log(log)) < 6 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert child.poll() is None
        child.send_signal(signal.SIGKILL)
        assert child.wait(timeout=10) == -signal.SIGKILL
    assert start(broken, 0).wait(timeout=120) == 0
    assert same(Run.load(whole), Run.load(broken))


def test_what_folds_cannot_be_is_said(discs: Path, whole: Run, tmp_path: Path) -> None:
    for folds in (0, -3):
        with pytest.raises(UsageError, match="folds must be 2 or more, or 1"):
            vs.train("segment", discs, folds=folds, steps=1, out=tmp_path / "no")
    with pytest.raises(UsageError, match="folds belong to segment"):
        vs.train("detect", discs, folds=2, steps=1, out=tmp_path / "no")
    with pytest.raises(CohortError, match="cannot fill 40 folds; ask for fewer"):
        vs.train("segment", discs, folds=40, steps=1, out=tmp_path / "no")
    assert not (tmp_path / "no").exists()
    plan = vs.plan("segment", discs, folds=2, steps=1)
    plan.decisions["folds"] = 3
    with pytest.raises(UsageError, match=r"decisions\.folds must stay 2"):
        vs.train("segment", discs, plan=plan, out=tmp_path / "no")


def test_a_plan_counts_every_fold(discs: Path) -> None:
    one, three = (vs.plan("segment", discs, folds=n, minutes=60) for n in (1, 3))
    (alone,), (each,) = (p.estimates["networks"].values() for p in (one, three))
    assert each["folds"] == 3
    assert "folds" not in alone
    assert each["seconds"] < 20 * 60
    assert three.record["fingerprint"]["images"] > one.record["fingerprint"]["images"]
    assert three.estimates["images"] == three.record["fingerprint"]["images"]
    assert "for each of 3 folds" in "\n".join(three.lines())


@pytest.mark.parametrize("helps", [True, False])
def test_the_largest_piece_is_kept_where_validation_shows_that_it_helps(
    helps: bool, tmp_path: Path
) -> None:
    # Specks look like the disc. Where they are of the structure, they must stay.
    rng = np.random.default_rng(1)
    found = [spotted(rng) for _ in range(21)]
    pairs = [(values, large if helps else both) for values, large, both in found[:20]]
    cohort = write_pairs(tmp_path, pairs)
    keys = Cohort.open(cohort).keys()
    rows = {key: "val" if n % 2 else "train" for n, key in enumerate(sorted(keys))}
    split = Split(rows).save(tmp_path / "split.json")
    plan = vs.plan("segment", cohort, steps=30, split=split)
    options = plan.decisions["network"]["options"]
    for name, values in options.items():  # one level sees too little to tell them apart
        options[name] = values[:1] if isinstance(values, list) else values
    plan.decisions["optimizer"] |= {"lr": 0.02, "ema": 0.9}
    run = vs.train("segment", cohort, plan=plan, split=split, out=tmp_path / "run")
    (line,) = json.loads((run.path / "postprocessing.json").read_text())["largest_piece"]
    assert line["kept"] == helps
    assert (line["better"], line["worse"])[not helps] >= 8
    assert (line["gain"] > 0) == helps
    assert told(run) == [text for text in run.audit() if "largest piece" in text]
    assert len(told(run)) == helps
    image = Volume(found[20][0][None, ..., None].astype(np.float32), np.eye(4))
    io.write(image, tmp_path / "new.nii.gz")
    answer = vs.predict(run, tmp_path / "new.nii.gz", out=tmp_path / "out")
    pieces = ndimage.label(io.read_labels(answer.files[0]).data[0], np.ones((3, 3, 3)))[1]
    assert (pieces == 1) == helps
    for _, row in run.predictions().to_pandas().iterrows():
        written = io.read_labels(run.path / row["file"]).data > 0
        truth = Cohort.open(cohort).read_mask(Cohort.open(cohort).row(row["key"])).data > 0
        own = 2 * (written & truth).sum() / (written.sum() + truth.sum())
        assert row["dice"] == pytest.approx(own)
        if helps:
            assert ndimage.label(written[0], np.ones((3, 3, 3)))[1] == 1
    scores = vs.evaluate(run, cohort, split="val")["splits"]["val"]["scores"]
    assert scores == run.metrics["splits"]["val"]["scores"]
