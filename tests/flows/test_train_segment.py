# SPDX-License-Identifier: Apache-2.0
"""What a segmenter is asked to learn, and what it is told of data that cannot serve."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vesalius as vs
from vesalius import io
from vesalius.cohorts.splits import Split
from vesalius.errors import BudgetError, CohortError, DataError, UsageError
from vesalius.flows.planning.asked import Asked
from vesalius.flows.planning.draft import draft, gather
from vesalius.tasks.run import plan_id
from vesalius.types import Json
from vesalius.volume import LabelMap, Volume

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported

Case = tuple[list[np.ndarray], np.ndarray]  # channels, mask
Change = Callable[[int, list[np.ndarray], np.ndarray], Case]
NAMES = {"background": 0, "shell": 1, "core": 2, "doubtful": 3}
SHAPE = (16, 16, 14)


def nested(rng: np.random.Generator, shape: tuple[int, int, int] = SHAPE) -> Case:
    """A dark core in a bright shell, and a slab of a third label at the edge."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    middle = np.array(shape) / 2 + rng.uniform(-1, 1, 3)
    distance = np.linalg.norm((index - middle) * (np.array(shape) > 1), axis=-1)
    mask = (distance < 0.38 * shape[0]).astype(np.uint8) + (distance < 0.2 * shape[0])
    mask[:2] = 3
    values = 100 + 40.0 * (mask == 1) - 40.0 * (mask == 2) + rng.normal(0, 6, shape)
    return [values.astype(np.float32)], mask.astype(np.uint8)


def cohort(
    root: Path,
    change: Change = lambda _, channels, mask: (channels, mask),
    *,
    count: int = 10,
    channels: Mapping[str, str] | None = None,
    shape: tuple[int, int, int] = SHAPE,
    affines: Callable[[int], np.ndarray] = lambda _: np.eye(4),
) -> Path:
    """Scan a data set as nnU-Net has it: one file a channel; a channel of None is not written.

    Cases 0 to 5 are for training, 6 and 7 for validation, 8 and 9 for the test.

    Args:
        root: folder for it.
        change: what is done to each case's channels and mask.
        count: cases.
        channels: number -> name.
        shape: of the volumes.
        affines: of a case's mask.
    """
    rng = np.random.default_rng(0)
    names = channels or {"0": "MRI"}
    for folder in ("imagesTr", "labelsTr"):
        (root / "data" / folder).mkdir(parents=True)
    for case in range(count):
        parts, mask = change(case, *nested(rng, shape))
        for number, part in enumerate(parts):
            if part is not None:
                part = part if part.ndim == 4 else part[None]
                path = root / "data" / "imagesTr" / f"case{case:02}_{number:04}.nii.gz"
                io.write(Volume(part, np.eye(4)), path)
        mask = mask if mask.ndim == 4 else mask[None]
        path = root / "data" / "labelsTr" / f"case{case:02}.nii.gz"
        io.write(LabelMap(mask, affines(case)), path)
    info = {"channel_names": names, "labels": NAMES, "file_ending": ".nii.gz", "numTraining": count}
    (root / "data" / "dataset.json").write_text(json.dumps(info))
    vs.scan(root / "data", out=root / "cohort", workers=1)
    subsets = {}
    for row in vs.Cohort.open(root / "cohort").iter_rows(["key", "files"]):
        case = int(Path(row["files"][0]).name[4:6])
        subsets[row["key"]] = "train" if case < 6 else "val" if case < 8 else "test"
    Split(subsets).save(root / "split.json")
    return root / "cohort"


def asked(folder: Path, **more: Any) -> Asked:
    return Asked(task="segment", split=folder.parent / "split.json", **{"steps": 1, **more})


def planned(folder: Path, **more: Any) -> Json:
    return draft(gather(asked(folder, **more), folder))


def train(root: Path, folder: Path, **more: Any) -> vs.Run:
    split = folder.parent / "split.json"
    return vs.train("segment", folder, out=root / "run", split=split, **{"steps": 1, **more})


def refused(root: Path, folder: Path, message: str) -> None:
    with pytest.raises(CohortError, match=message):
        train(root, folder)
    assert not (root / "run").exists()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cohort(tmp_path_factory.mktemp("plain"))


def test_overlapping_structures_come_back_in_layers(plain: Path, tmp_path: Path) -> None:
    plan = planned(plain, labels="whole=shell+core,core", ignore="doubtful", steps=24)
    plan["decisions"]["optimizer"] |= {"lr": 0.01, "ema": 0.9}
    (tmp_path / "plan.json").write_text(json.dumps({**plan, "id": plan_id(plan)}))
    run = vs.train(
        "segment", plain, plan=tmp_path / "plan.json", split=plain.parent / "split.json",
        out=tmp_path / "run",
    )  # fmt: skip
    assert run.decisions["structures"] == {"whole": [1, 2], "core": [2]}
    assert run.decisions["regions"] is True
    assert run.decisions["ignore"] == [3]
    assert any("structures overlap" in line for line in run.audit())
    assert any("voxels of doubtful are ignored" in line for line in run.audit())
    scores = run.metrics["splits"]["val"]["scores"]
    dice = {s["label"]: s["value"] for s in scores if s["name"] == "dice"}
    assert dice["whole"] > 0.8
    assert dice["core"] > 0.6
    exam = plain.parent / "data" / "imagesTr" / "case00_0000.nii.gz"
    answer = vs.predict(run, exam, out=tmp_path / "out")
    found = io.read_labels(answer.files[0])
    assert found.data.shape == (2, *SHAPE)
    assert found.names == {1: "whole", 2: "core"}
    whole, core = (found.data[n] == n + 1 for n in range(2))
    assert (whole & core).sum() > 0.5 * core.sum() > 0
    (volumes,) = answer.volumes_ml
    assert volumes["whole"] == pytest.approx(whole.sum() / 1000)
    with pytest.raises(UsageError, match="choose dicom-seg"):
        vs.predict(run, exam, out=tmp_path / "out", format="dicom-labelmap")
    with pytest.raises(UsageError, match="PNG holds one layer"):
        io.write(LabelMap(found.data[..., 7:8], found.affine), tmp_path / "map.png")


def test_structures_that_are_apart_keep_the_values_of_the_masks(plain: Path) -> None:
    found = planned(plain, labels="core,shell")
    assert found["decisions"]["values"] == [2, 1]
    assert found["decisions"]["regions"] is False
    assert any("count as background: doubtful" in line for line in found["audit"])
    with pytest.raises(UsageError, match=r"'cor' that --labels names.*Did you mean 'core'"):
        vs.train("segment", plain, steps=1, labels="cor")
    for name in ("labels", "ignore"):
        with pytest.raises(UsageError, match=f"{name} belong to segment, not to classify"):
            vs.train("classify", plain, steps=1, **{name: "core"})


def test_masks_whose_layers_overlap_are_learned_as_regions(tmp_path: Path) -> None:
    def layered(_: int, channels: list[np.ndarray], mask: np.ndarray) -> Case:
        return channels, np.stack([(mask % 3 > 0).astype(np.uint8), 2 * (mask == 2)])

    folder = cohort(tmp_path, layered)
    found = planned(folder)
    assert found["fingerprint"]["overlaps"] == [[1, 2]]
    assert found["decisions"]["regions"] is True
    assert found["decisions"]["values"] == [1, 2]
    alone = planned(folder, labels="core")
    assert alone["decisions"]["regions"] is False


def test_patch_and_batch_fit_the_memory(plain: Path, tmp_path: Path) -> None:
    from vesalius.tasks.segment.footprint import training_bytes

    plan = planned(plain)
    needed = training_bytes(plan["decisions"])
    tight = planned(plain, memory=needed - 1)["decisions"]
    assert training_bytes(tight) < needed
    assert tight["memory"] == needed - 1
    assert tight["spacing"] == plan["decisions"]["spacing"]
    with pytest.raises(BudgetError, match=r"training takes at least 0\.\d+ GB, with patches of"):
        train(tmp_path, plain, memory=1000)
    assert not (tmp_path / "run").exists()


def test_masks_off_the_grid(tmp_path: Path) -> None:
    away = np.eye(4)
    away[:3, 3] = 5
    some = cohort(tmp_path / "some", affines=lambda n: away if n % 2 else np.eye(4))
    run = train(tmp_path / "some", some)
    assert "3 of 6 training images are left out: mask-off-grid (3)" in run.audit()
    all_of_them = cohort(tmp_path / "all", affines=lambda _: away)
    refused(tmp_path, all_of_them, r"none of the 6 training images .*: mask-off-grid \(6\)")


def test_values_without_a_name(tmp_path: Path) -> None:
    def odd(case: int, channels: list[np.ndarray], mask: np.ndarray) -> Case:
        return channels, np.where(mask == 2, 9, mask).astype(np.uint8) if case % 2 else mask

    run = train(tmp_path, cohort(tmp_path, odd))
    assert "3 of 6 training images are left out: unknown-label-value (3)" in run.audit()
    assert run.decisions["labels"] == ["shell", "core", "doubtful"]


def test_masks_that_mark_nothing(tmp_path: Path) -> None:
    def half(case: int, channels: list[np.ndarray], mask: np.ndarray) -> Case:
        return channels, mask * (case % 2)

    run = train(tmp_path, cohort(tmp_path / "some", half))
    assert "3 of 6 training masks mark nothing: taken as it stands" in run.audit()
    nothing = cohort(tmp_path / "all", lambda _, channels, mask: (channels, 0 * mask))
    refused(tmp_path / "all", nothing, "none of the 6 training masks that were read marks a stru")


def test_images_of_another_number_of_channels(tmp_path: Path) -> None:
    def more(case: int, channels: list[np.ndarray], mask: np.ndarray) -> Case:
        wide = np.stack([channels[0]] * 3)  # in one file: its fourth axis
        return ([wide] if case % 3 == 0 else channels), mask

    run = train(tmp_path, cohort(tmp_path, more))
    assert run.decisions["network"]["in_channels"] == 1
    said = "2 of 6 training images are left out: they have another number of channels than 1"
    assert said in run.audit()
    assert any("has 3 channels, the plan expects 1; choose" in line for line in run.audit())


def test_single_slices_among_volumes(tmp_path: Path) -> None:
    def thin(case: int, channels: list[np.ndarray], mask: np.ndarray) -> Case:
        cut = np.s_[..., 6:7] if case % 3 == 0 else np.s_[...]
        return [channels[0][cut]], mask[cut]

    run = train(tmp_path, cohort(tmp_path, thin))
    assert "2 of 6 training images are left out: single slices among volumes" in run.audit()
    assert any("could not be prepared: a single slice" in line for line in run.audit())


def test_volumes_of_one_slice_are_learned_as_pictures(tmp_path: Path) -> None:
    run = train(tmp_path, cohort(tmp_path, shape=(16, 16, 1)))
    assert run.decisions["network"]["spatial_dims"] == 2
    assert run.finished


def test_values_that_are_no_numbers(tmp_path: Path) -> None:
    def holes(case: int, channels: list[np.ndarray], mask: np.ndarray) -> Case:
        channels[0][4:6, 3, 3] = np.nan if case % 2 else 100
        return channels, mask

    run = train(tmp_path, cohort(tmp_path, holes))
    assert "3 of 6 training images are left out: non-finite-values (3)" in run.audit()


def test_a_split_whose_validation_images_cannot_serve(tmp_path: Path) -> None:
    def holes(case: int, channels: list[np.ndarray], mask: np.ndarray) -> Case:
        channels[0][4:6, 3, 3] = np.nan if case in (6, 7) else 100
        return channels, mask

    folder = cohort(tmp_path, holes)
    refused(tmp_path, folder, r"none of the 2 validation images can serve: non-finite-values \(2\)")


def test_the_fourth_axis_is_channels_and_said_to_be(tmp_path: Path) -> None:
    def series(_: int, channels: list[np.ndarray], mask: np.ndarray) -> Case:
        return [np.stack([channels[0], channels[0].T.reshape(SHAPE)])], mask

    run = train(tmp_path, cohort(tmp_path, series))
    assert "each image has 2 channels: channel-1, channel-2" in run.audit()
    assert run.decisions["network"]["in_channels"] == 2
    assert run.decisions["channel_dropout"] == 0.1


def test_images_that_lack_a_channel_are_trained_on_and_answered(tmp_path: Path) -> None:
    def two(case: int, channels: list[np.ndarray], mask: np.ndarray) -> Case:
        other = np.roll(channels[0], 1, axis=0)
        parts = [channels[0], other]
        if case in (1, 2):
            parts[case - 1] = None  # its file is not there
        return parts, mask

    folder = cohort(tmp_path, two, channels={"0": "T1", "1": "FLAIR"})
    run = train(tmp_path, folder)
    assert run.decisions["channels"] == ["T1", "FLAIR"]
    assert "each image has 2 channels: T1, FLAIR" in run.audit()
    assert any(line.startswith("2 of 6 training images lack channels") for line in run.audit())
    assert not any("could not be prepared" in line for line in run.audit())
    images = folder.parent / "data" / "imagesTr"
    exams = tmp_path / "exams"
    exams.mkdir()
    for case in (0, 1):
        for file in images.glob(f"case{case:02}_*.nii.gz"):
            (exams / file.name).write_bytes(file.read_bytes())
    answer = vs.predict(run, exams, out=tmp_path / "out")
    assert len(answer.files) == 2  # two files of one case are one image
    assert "image 2: the channel 'T1' is missing" in answer.notes
    alone = tmp_path / "flair.nii.gz"
    alone.write_bytes((images / "case02_0000.nii.gz").read_bytes())
    with pytest.raises(DataError, match="has 1 channel, the plan expects 2: T1, FLAIR"):
        vs.predict(run, alone, out=tmp_path / "no")
    named = vs.predict(run, alone, out=tmp_path / "named", channels="FLAIR")
    assert "image 1: the channel 'T1' is missing" in named.notes
    with pytest.raises(UsageError, match=r"no channel 'FLAR'; it has: T1, FLAIR. Did you mean"):
        vs.predict(run, alone, out=tmp_path / "no", channels="FLAR")


def test_a_cohort_whose_pixels_were_not_read(plain: Path, tmp_path: Path) -> None:
    vs.scan(plain.parent / "data", out=tmp_path / "cohort", pixels=False, workers=1)
    with pytest.raises(CohortError, match="scan the folder again, pixels included"):
        vs.train("segment", tmp_path / "cohort", steps=1, out=tmp_path / "run")


def test_thin_volumes_are_learned_from_the_slices_beside(tmp_path: Path) -> None:
    """Each slice's mask is the square that its lower neighbor shows: one slice says nothing."""
    rng = np.random.default_rng(1)

    def shifted(_: int, __: list[np.ndarray], mask: np.ndarray) -> Case:
        squares = np.zeros(mask.shape, np.uint8)
        for k in range(mask.shape[2]):
            i, j = rng.integers(0, 10, 2)
            squares[i : i + 6, j : j + 6, k] = 1
        values = 100 * squares + rng.normal(0, 5, mask.shape)
        mask = np.zeros_like(squares)
        mask[..., 1:] = squares[..., :-1]
        return [values.astype(np.float32)], mask

    folder = cohort(tmp_path / "a", shifted, shape=(16, 16, 6))
    plan = planned(folder, labels="shell", steps=60)
    assert plan["decisions"]["neighbors"] == 1
    assert plan["decisions"]["network"]["in_channels"] == 3
    plan["decisions"]["optimizer"] |= {"lr": 0.01, "ema": 0.9}
    plan["decisions"]["augmentation"] |= {"rotation": 0.0, "scale": 0.0, "shift": 0.0}
    (tmp_path / "plan.json").write_text(json.dumps({**plan, "id": plan_id(plan)}))
    run = vs.train(
        "segment", folder, plan=tmp_path / "plan.json", split=folder.parent / "split.json",
        out=tmp_path / "run",
    )  # fmt: skip
    scores = run.metrics["splits"]["val"]["scores"]
    assert next(s["value"] for s in scores if s["name"] == "dice") > 0.6
