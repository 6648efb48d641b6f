# SPDX-License-Identifier: Apache-2.0
"""The segmenter learns, and answers exactly on the grid of its source, whatever that grid is."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from vesalius.errors import CohortError, UsageError
from vesalius.files import write_json
from vesalius.geometry import flat_affine, same_grid
from vesalius.io import read_labels
from vesalius.normalization import Normalizer
from vesalius.tasks.cases import segmentation_cases
from vesalius.tasks.run import Run, start_run
from vesalius.tasks.segment import plan as planning
from vesalius.tasks.segment.argmax import Argmax
from vesalius.tasks.segment.fit import train_run
from vesalius.tasks.segment.grid import empty_labels, mask_to_plan, to_plan
from vesalius.tasks.segment.patches import draw, prepare
from vesalius.tasks.segment.predict import Segmenter
from vesalius.tasks.segment.scoring import score_cases
from vesalius.training.log import read_log
from vesalius.volume import LabelMap, Volume


def rotation(degrees: float) -> np.ndarray:
    a, b = np.radians(degrees), np.radians(degrees / 2)
    z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    return z @ x


def balls(rng, shape, affine, *, names=True) -> tuple[Volume, LabelMap]:
    """A bright ball and a dark one inside it, a box, in millimeters, on any grid."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    middle = world.reshape(-1, 3).mean(0)
    span = np.ptp(world.reshape(-1, 3), axis=0).max()
    one = middle + rng.uniform(-0.1, 0.1, 3) * span * (np.array(shape) > 1)
    mask = np.zeros(shape, np.uint8)
    distance = np.linalg.norm(world - one, axis=-1)
    mask[distance < 0.28 * span] = 3
    mask[distance < 0.16 * span] = 7
    values = 100 + 25.0 * (mask == 3) - 25.0 * (mask == 7) + rng.normal(0, 8, shape)
    label = LabelMap(mask[None], affine, names={3: "shell", 7: "core"} if names else {})
    return Volume(values[None].astype(np.float32), affine, modality="MR"), label


def cohort_of(memory, pairs):
    return memory.of(
        [{"volume": v, "mask": m, "patient": f"p-{n:02}"} for n, (v, m) in enumerate(pairs)]
    )


def train(cohort, rows, out: Path, steps: int, **changes):
    cases = segmentation_cases(cohort)
    found = planning.fingerprint(cohort, cases.subset(rows, "train"))
    decisions = planning.decide(found, model="auto", budget={"steps": steps}) | changes
    widths = decisions["network"]["options"]["widths"]
    decisions["network"]["options"]["widths"] = [max(4, w // 2) for w in widths]
    decisions["optimizer"] = {**decisions["optimizer"], "lr": 0.01}
    plan = {
        "task": "segment",
        "target": None,
        "seed": 0,
        "request": {"task": "segment"},
        "fingerprint": found,
        "decisions": decisions,
        "measured": {},
        "command": "test",
        "cohort": {"digest": cohort.digest(), "version": 1, "license": "CC0"},
        "split_digest": "s",
        "audit": [],
    }
    run = start_run(plan, out)
    write_json(out / "split.json", {"rows": rows})
    return train_run(run, cohort, cases, started=time.monotonic()), cases


@pytest.fixture
def volumes(memory):
    rng = np.random.default_rng(0)
    pairs = []
    for number in range(12):
        affine = np.eye(4)
        affine[:3, :3] = rotation(5 * number) @ np.diag([1.0, -1.0, 1.2])
        pairs.append(balls(rng, (24, 22, 20), affine))
    rows = {f"{n:016x}": "train" if n < 8 else "val" if n < 10 else "test" for n in range(12)}
    return cohort_of(memory, pairs), rows


def test_it_learns_3d_and_writes_the_run_folder(volumes, tmp_path) -> None:
    cohort, rows = volumes
    run, cases = train(cohort, rows, tmp_path / "run", 50)
    losses = [e["loss"] for e in read_log(run.path / "log.jsonl") if e["event"] == "step"]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:3])
    run = Run.load(run.path)
    segmenter = Segmenter.load(run)
    test = cases.subset(rows, "test")
    metrics = score_cases(run, segmenter, cohort, test, "test")
    assert metrics["labels"] == ["shell", "core"]
    scores = {(s["name"], s["label"]): s for s in metrics["splits"]["test"]["scores"]}
    assert scores["dice", ""]["value"] > 0.7
    assert metrics["splits"]["test"]["n_cases"] == 2
    table = run.predictions().to_pandas().set_index("key")
    for case in test:
        row = table.loc[case.key]
        written = read_labels(run.path / row["file"])
        truth = cohort.masks[case.key]
        assert same_grid(
            written.affine, written.shape, truth.affine, truth.shape, tolerance_mm=1e-3
        )
        own = (
            2
            * ((written.data == 7) & (truth.data == 7)).sum()
            / ((written.data == 7).sum() + (truth.data == 7).sum())
        )
        assert row["dice_core"] == pytest.approx(own)
    # Another grid in the same world gives the same answer there: oblique, anisotropic, flipped.
    other = np.eye(4)
    other[:3, :3] = rotation(40) @ np.diag([-0.9, 1.1, 2.5])
    volume, truth = balls(np.random.default_rng(5), (26, 24, 9), other)
    found = segmenter.predict(volume)
    assert same_grid(found.affine, found.shape, volume.affine, volume.shape, tolerance_mm=1e-9)
    assert set(np.unique(found.data)) <= {0, 3, 7}
    assert ((found.data > 0) == (truth.data > 0)).mean() > 0.9
    assert not (run.path / "cache").exists()


def test_it_learns_2d_and_counts_failures(memory, tmp_path) -> None:
    rng = np.random.default_rng(0)
    pairs = [balls(rng, (40, 36, 1), flat_affine(), names=False) for _ in range(14)]
    cohort = cohort_of(memory, pairs)
    rows = {f"{n:016x}": "train" if n < 8 else "val" if n < 10 else "test" for n in range(14)}
    run, cases = train(cohort, rows, tmp_path / "run", 40)
    assert run.decisions["network"]["spatial_dims"] == 2
    assert run.decisions["labels"] == ["label-3", "label-7"]
    keys = [f"{n:016x}" for n in range(10, 14)]
    cohort.volumes[keys[0]] = None
    cohort.volumes[keys[1]] = Volume(np.zeros((1, 40, 36, 1)), flat_affine())
    cohort.masks[keys[2]] = LabelMap(np.zeros((1, 9, 9, 1), np.uint8), flat_affine())
    metrics = score_cases(run, Segmenter.load(run), cohort, cases.subset(rows, "test"), "test")[
        "splits"
    ]["test"]
    assert metrics["n_cases"] == 3
    assert metrics["n_failed"] == 2
    assert len(metrics["left_out"]) == 1
    table = run.predictions().to_pandas().query("split == 'test'").set_index("key")
    assert table.loc[keys[0], "dice"] == 0
    assert table.loc[keys[0], "hd95"] == pytest.approx(np.hypot(40, 36), rel=0.05)
    assert "constant" in table.loc[keys[1], "reason"]
    assert table.loc[keys[3], "dice"] > 0.6


@pytest.mark.parametrize("spacing", [[1.0, 1.0, 1.0], [0.8, 1.5, 2.0]])
def test_a_mask_goes_to_the_plan_and_back(spacing) -> None:
    decisions = {
        "orientation": "RAS", "spacing": spacing, "values": [3, 7], "labels": ["shell", "core"],
        "network": {"in_channels": 1}, "color": False,
    }  # fmt: skip
    affine = np.eye(4)
    affine[:3, :3] = rotation(25) @ np.diag([-1.0, 1.0, 1.0])
    affine[:3, 3] = [10, -20, 30]
    volume, mask = balls(np.random.default_rng(0), (30, 28, 26), affine)
    there = mask_to_plan(mask, volume, decisions)
    grid = to_plan(volume, decisions, Normalizer())
    assert grid.shape == there.shape
    np.testing.assert_allclose(grid.spacing, spacing, rtol=0.05)
    logits = torch.stack([torch.from_numpy(there == index) * 10.0 for index in range(3)])
    back, along_plan = empty_labels(volume, decisions)
    Argmax(along_plan[0], [0, 3, 7], grid.shape).take(logits, (0, 0, 0))
    assert back.names == {3: "shell", 7: "core"}
    if spacing == [1.0, 1.0, 1.0]:
        assert (back.data == mask.data).all()
    else:
        assert (back.data == mask.data).mean() > 0.93


def test_patches_force_foreground_and_are_a_function_of_the_generator(memory, tmp_path) -> None:
    data = np.random.default_rng(0).normal(100, 20, (1, 40, 40, 40)).astype(np.float32)
    mask = np.zeros((1, 40, 40, 40), np.uint8)
    mask[0, 35, 3, 30] = 2
    cohort = cohort_of(memory, [(Volume(data, np.eye(4)), LabelMap(mask, np.eye(4)))])
    decisions = {
        "orientation": "RAS", "spacing": [1.0, 1.0, 1.0], "values": [2], "labels": ["spot"],
        "network": {"in_channels": 1}, "color": False, "patch": [12, 12, 12],
        "forced_foreground": 1 / 3,
    }  # fmt: skip
    cases = list(segmentation_cases(cohort).cases)
    prepared = prepare(tmp_path, cohort, cases, decisions, Normalizer())
    key = cases[0].key
    hits = []
    for step in range(10):
        _, y = draw(prepared, [key] * 6, decisions, 6 * step, np.random.default_rng(step))
        hits.append((y == 1).any(axis=(1, 2, 3)))
    assert np.array(hits)[:, [0, 3]].all()
    assert np.array(hits)[:, [1, 2, 4, 5]].mean() < 0.3
    one = draw(prepared, [key] * 3, decisions, 0, np.random.default_rng(7))
    two = draw(prepared, [key] * 3, decisions, 0, np.random.default_rng(7))
    assert all((a == b).all() for a, b in zip(one, two, strict=True))
    decisions["patch"] = [48, 48, 48]
    x, y = draw(prepared, [key], decisions, 0, np.random.default_rng(0))
    assert x.shape == (1, 1, 48, 48, 48)
    assert y.sum() == 1


def test_plan_follows_the_fingerprint() -> None:
    found = {
        "spatial_dims": 3, "channels": 1, "modalities": {"CT": 9}, "labels": {"1": "liver"},
        "median_shape": [512, 512, 100], "median_spacing": [0.7, 0.7, 5.0],
        "fine_spacing": [0.6, 0.6, 2.5],
    }  # fmt: skip
    thick = planning.decide(found, model="auto", budget={"steps": 1})
    options = thick["network"]["options"]
    patch, strides = np.array(thick["patch"]), np.array(options["strides"])
    assert (patch % strides.prod(0) == 0).all()
    assert np.prod(patch) <= 2**17
    extent = np.array([512, 512, 100]) * [0.7, 0.7, 5.0]
    assert np.prod(extent / thick["spacing"]) <= 1.05 * 24 * 2**17
    assert thick["spacing"][2] < 5
    assert strides[1].tolist() == [2, 2, 2]
    assert options["kernels"][0] == [3, 3, 3]
    assert thick["augmentation"]["flips"] == [0]  # no label has a side
    stack = planning.decide(
        {
            **found,
            "median_shape": [160, 160, 20],
            "median_spacing": [1.0, 1.0, 6.0],
            "fine_spacing": [1.0, 1.0, 6.0],
        },
        model="auto",
        budget={"steps": 1},
    )
    assert stack["network"]["options"]["strides"][1] == [2, 2, 1]
    assert stack["network"]["options"]["kernels"][0] == [3, 3, 1]
    assert stack["augmentation"]["planes"] == [[0, 1]]
    small = planning.decide(
        {**found, "median_shape": [35, 50, 36], "median_spacing": [1.0, 1.0, 1.0]},
        model="unet",
        budget={"steps": 1},
    )
    assert small["patch"] == [40, 56, 40]
    assert small["spacing"] == [1.0, 1.0, 1.0]
    slices = planning.decide(
        {**found, "spatial_dims": 2, "median_shape": [256, 256, 1], "modalities": {"SM": 1}},
        model="auto",
        budget={"steps": 1},
    )
    assert len(slices["patch"]) == 2
    assert (np.array(slices["patch"]) >= 256 * 0.7 / np.array(slices["spacing"]) - 0.5).all()
    assert slices["augmentation"]["flips"] == [0, 1]
    with pytest.raises(UsageError, match="auto or one of unet, fcn"):
        planning.decide(found, model="resnet18", budget={"steps": 1})


def test_a_cohort_without_masks_is_refused(memory) -> None:
    cohort = memory.of([{"volume": Volume(np.ones((1, 4, 4, 1)), flat_affine())}])
    with pytest.raises(CohortError, match="none of the 1 images of the cohort has a mask"):
        segmentation_cases(cohort)
