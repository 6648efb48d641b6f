# SPDX-License-Identifier: Apache-2.0
"""Windows without a structure are left out, and only where validation images say it is safe."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vesalius.files import read_json, write_json
from vesalius.tasks.cases import segmentation_cases
from vesalius.tasks.run import Run, start_run
from vesalius.tasks.segment import locate_fit
from vesalius.tasks.segment import plan as planning
from vesalius.tasks.segment.argmax import Argmax
from vesalius.tasks.segment.fit import train_run
from vesalius.tasks.segment.locate import (
    RECORD,
    WEIGHTS,
    Locator,
    coarser,
    coarser_codes,
    touched,
    widened,
)
from vesalius.tasks.segment.predict import Segmenter
from vesalius.tasks.segment.slide import Unseen, lay_out, slide
from vesalius.tasks.segment.structures import IGNORED, Structures
from vesalius.volume import LabelMap, Volume

CLASSES = Structures({"a": [1], "b": [2]}, [1, 2], ignored=[9])
REGIONS = Structures({"a": [1], "b": [2]}, [1, 2], regions=True)
shapes = st.tuples(*[st.integers(1, 13)] * 3)
factors = st.tuples(*[st.integers(1, 4)] * 3)


def in_blocks(values: np.ndarray, factor: tuple[int, int, int]) -> dict[tuple, np.ndarray]:
    """The voxels of each block."""
    counts = [-(-n // f) for n, f in zip(values.shape, factor, strict=True)]
    return {
        place: values[tuple(slice(p * f, (p + 1) * f) for p, f in zip(place, factor, strict=True))]
        for place in np.ndindex(*counts)
    }


@settings(deadline=None, max_examples=40)
@given(shapes, factors, st.integers(0, 99))
def test_a_block_is_what_its_voxels_are(shape, factor, seed) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.choice([0, 0, 0, 0, 1, 2, IGNORED], shape).astype(np.uint8)
    found = coarser_codes(codes, list(factor), CLASSES)
    for place, voxels in in_blocks(codes, factor).items():
        marked = ((voxels == 1) | (voxels == 2)).any()
        assert found[place] == (1 if marked else IGNORED if (voxels == IGNORED).any() else 0)
    bits = rng.choice([0, 1, 2, 4, 6], shape).astype(np.uint8)
    regions = coarser_codes(bits, list(factor), REGIONS)
    for place, voxels in in_blocks(bits, factor).items():
        assert (regions[place] == 1) == (voxels > 1).any()
    image = rng.normal(size=(2, *shape)).astype(np.float16)
    means = coarser(image, list(factor))
    assert means.shape[1:] == found.shape
    for channel in range(2):
        for place, voxels in in_blocks(image[channel].astype(np.float64), factor).items():
            assert means[channel][place] == pytest.approx(voxels.mean(), abs=2e-3)


@settings(deadline=None, max_examples=40)
@given(shapes, factors, st.integers(3, 9), st.integers(0, 99))
def test_no_window_with_a_marked_voxel_is_left_out(shape, factor, edge, seed) -> None:
    rng = np.random.default_rng(seed)
    mask = (rng.random(shape) < 0.03).astype(np.uint8)
    layout = lay_out(shape, {"patch": [edge] * 3, "overlap": 0.5}, classes=2, memory=1 << 30)
    found = touched(coarser_codes(mask, list(factor), CLASSES) == 1, layout, list(factor))
    assert len(found) == layout.windows
    for place, hit in found.items():
        window = tuple(slice(max(0, a), a + edge) for a in place)
        assert hit or not mask[window].any()


def test_the_network_is_not_asked_for_windows_that_are_known() -> None:
    decisions = {"patch": [8, 8, 8], "overlap": 0.5}
    image = np.random.default_rng(0).normal(size=(1, 40, 12, 12)).astype(np.float32)
    image[:, 20:] -= 100  # which the network answers as background, everywhere alike
    layout = lay_out((40, 12, 12), decisions, classes=2, memory=1 << 30)
    asked = []

    def network(x: torch.Tensor) -> torch.Tensor:
        asked.append(len(x))
        sure = torch.where(x < -50, 10.0, x)
        return torch.cat([sure, torch.where(x < -50, -10.0, -x)], 1)

    maps = []
    for unseen in (None, Unseen(lambda place: place[0] >= 20, torch.tensor([10.0, -10.0]))):
        asked.clear()
        out = np.zeros((40, 12, 12), np.uint8)
        slide(network, image, layout, Argmax(out, [0, 1], layout.shape).take, unseen=unseen)
        maps.append((out, sum(asked)))
    assert (maps[0][0] == maps[1][0]).all()
    assert maps[0][0][:20].any()
    assert maps[0][1] == layout.windows
    rows = [place for place in layout.places(layout.strips[0]) if place[0] >= 20]
    assert maps[1][1] == layout.windows - len(rows) < layout.windows


class Bright(nn.Module):
    """Sure of a structure where the coarse image is above 1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([1 - x, x - 1], 1) * 20


@pytest.mark.parametrize("regions", [False, True])
def test_a_locator_points_at_what_its_network_finds_or_at_everything(regions: bool) -> None:
    decisions = {
        "labels": ["a", "b"], "values": [1, 2], "regions": regions, "spacing": [1.0, 1.0, 1.0],
        "patch": [8, 8, 8], "overlap": 0.5, "network": {"spatial_dims": 3, "in_channels": 1},
        "locator": {"factor": [2, 2, 2], "margin": 1, "patch": [16, 16, 16], "batch": 2,
                    "network": {"name": "unet"}},
    }  # fmt: skip
    layout = lay_out((40, 24, 24), decisions, classes=3, memory=1 << 30)
    locator = Locator(Bright(), decisions, 0.5, 1)
    image = np.zeros((1, 40, 24, 24), np.float16)
    assert locator.unseen(Bright(), image, layout, torch.device("cpu")) is None
    image[0, 2:6, 10:14, 10:14] = 5
    unseen = locator.unseen(Bright(), image, layout, torch.device("cpu"))
    assert unseen is not None
    assert not unseen.holds((0, 8, 8))
    assert unseen.holds((32, 8, 8))
    signs = unseen.logits.sign().tolist()
    assert signs == ([-1, -1] if regions else [1, -1, -1])
    kept = [place for place in layout.places(layout.strips[0]) if not unseen.holds(place)]
    assert 0 < len(kept) < 0.5 * layout.windows


def test_the_widest_value_within_the_margin_counts() -> None:
    values = np.zeros((7, 7, 7), np.float32)
    values[3, 3, 3] = 0.8
    wide = widened(values, 1)
    assert (wide > 0).sum() == 27
    assert wide.max() == np.float32(0.8)


def test_plans_of_large_volumes_have_one() -> None:
    found = {
        "spatial_dims": 3, "channels": 1, "modalities": {"MR": 9}, "labels": {"1": "spot"},
        "median_shape": [200, 180, 60], "median_spacing": [1.0, 1.0, 3.0],
        "fine_spacing": [1.0, 1.0, 3.0],
    }  # fmt: skip
    large = planning.decide(found, model="auto", budget={"steps": 1})
    held = large["locator"]
    assert held["factor"][2] <= min(held["factor"][:2])
    blocks = -(-np.array([200, 180, 60]) // held["factor"])
    assert np.prod(blocks) <= 2**16
    assert (np.array(held["patch"]) >= blocks).all()
    for shape in ([40, 50, 40], [90, 60, 60]):
        small = planning.decide(found | {"median_shape": shape}, model="auto", budget={"steps": 1})
        assert small["locator"] is None
    flat = found | {"spatial_dims": 2, "median_shape": [900, 900, 1]}
    assert planning.decide(flat, model="auto", budget={"steps": 1})["locator"] is None


def beads(rng: np.random.Generator) -> tuple[Volume, LabelMap]:
    """A bright bead in one half of a long noisy box."""
    shape = (64, 20, 20)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    center = rng.uniform((6, 7, 7), (58, 13, 13))
    mask = np.linalg.norm(index - center, axis=-1) < 4
    values = 100 + 60.0 * mask + rng.normal(0, 10, shape)
    return (
        Volume(values[None].astype(np.float32), np.eye(4), modality="MR"),
        LabelMap(mask[None].astype(np.uint8), np.eye(4), names={1: "bead"}),
    )


def trained(memory, out: Path, *, val: int, steps: int = 80) -> tuple[Run, object]:
    rng = np.random.default_rng(0)
    pairs = [beads(rng) for _ in range(12 + val)]
    cohort = memory.of(
        [{"volume": v, "mask": m, "patient": f"p-{n:02}"} for n, (v, m) in enumerate(pairs)]
    )
    rows = {f"{n:016x}": "train" if n < 12 else "val" for n in range(len(pairs))}
    cases = segmentation_cases(cohort)
    found = planning.fingerprint(cohort, cases.subset(rows, "train"))
    decisions = planning.decide(found, model="auto", budget={"steps": steps})
    options = {
        "widths": [4, 8], "strides": [[1] * 3, [2] * 3], "kernels": [[3] * 3] * 2,
        "deep_supervision": True,
    }  # fmt: skip
    decisions["network"]["options"] = options
    decisions["optimizer"] |= {"lr": 0.01, "ema": 0.9}
    decisions |= {
        "patch": [12, 12, 12],
        "locator": {"factor": [2, 2, 2], "margin": 1, "patch": [32, 12, 12], "batch": 2,
                    "network": {"name": "unet", "weights": "random", "options": options}},
    }  # fmt: skip
    plan = {
        "task": "segment", "target": None, "seed": 0, "request": {"task": "segment"},
        "fingerprint": found, "decisions": decisions, "measured": {}, "command": "test",
        "cohort": {"digest": cohort.digest(), "version": 1, "license": "CC0"},
        "split_digest": "s", "audit": [],
    }  # fmt: skip
    run = start_run(plan, out)
    write_json(out / "split.json", {"rows": rows})
    return train_run(run, cohort, cases, started=time.monotonic()), cohort


def test_a_run_looks_only_where_beads_may_be(memory, tmp_path: Path) -> None:
    run, _ = trained(memory, tmp_path / "run", val=6)
    record = read_json(run.path / RECORD)
    assert record["used"], record
    assert record["images"] == 6
    assert record["windows"] < 0.6
    assert 0 < record["threshold"] <= 0.5
    assert any("a coarse network leaves windows out" in line for line in run.audit())
    segmenter = Segmenter.load(Run.load(run.path))
    rng = np.random.default_rng(7)
    for _ in range(4):
        volume, truth = beads(rng)
        asked = []
        maps = []
        for way in (segmenter, segmenter.everywhere()):
            count = 0
            plain = way.model.forward

            def counted(x, plain=plain):
                nonlocal count
                count += len(x)
                return plain(x)

            way.model.forward = counted
            maps.append(way.predict(volume).data[0] > 0)
            way.model.forward = plain
            asked.append(count)
        assert asked[0] < 0.7 * asked[1]
        bead = truth.data[0] > 0
        assert 2 * (maps[0] & bead).sum() / (maps[0].sum() + bead.sum()) > 0.7
        assert (maps[0] & bead).sum() == (maps[1] & bead).sum()  # nothing of it is lost


def test_few_validation_images_are_no_proof(memory, tmp_path: Path) -> None:
    run, _ = trained(memory, tmp_path / "run", val=locate_fit.FEWEST - 1, steps=3)
    assert not read_json(run.path / RECORD)["used"]
    assert Locator.load(run) is None
    assert any("are needed to leave windows out" in line for line in run.audit())


def test_where_structures_are_everywhere_no_coarse_network_is_trained(
    memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locate_fit, "MOST_WINDOWS", 0.01)
    run, _ = trained(memory, tmp_path / "run", val=5, steps=2)
    assert "of the windows" in read_json(run.path / RECORD)["why"]
    assert not (run.path / WEIGHTS).exists()
    assert Locator.load(run) is None
