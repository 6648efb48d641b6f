# SPDX-License-Identifier: Apache-2.0
"""A segmenter begins with another run's weights: structures by name, whatever the network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vesalius.errors import RunError, UsageError
from vesalius.networks import SEGMENTATION_NETWORKS
from vesalius.tasks.run import Run
from vesalius.tasks.segment.ensemble import Ensemble
from vesalius.tasks.segment.predict import new_model
from vesalius.tasks.segment.warm_start import begin_with, gained, same_answers, take_over
from vesalius.training.checkpoint import save_model

OPTIONS = {
    "unet": {"widths": [4, 8, 8], "deep_supervision": True},
    "resenc-unet": {"widths": [4, 8, 8], "deep_supervision": True},
    "light-unet": {"stem": "small", "width": 8, "deep_supervision": True},
    "fcn": {"stem": "small", "width": 4},
}


def decisions(name: str = "unet", labels: tuple[str, ...] = ("liver", "spleen"), **changes) -> dict:
    network = {"name": name, "spatial_dims": 2, "in_channels": 1, "weights": "random"}
    return {
        "labels": list(labels),
        "network": {**network, "options": OPTIONS[name]},
        "spacing": [1.0, 1.0], "patch": [32, 32], "batch": 2, "normalization": "mad",
        "optimizer": {"name": "AdamW", "lr": 3e-3},
        **changes,
    }  # fmt: skip


def origin(folder: Path, held: dict, *seeds: int) -> Run:
    """A run with the weights of one network, or of an ensemble."""
    members = [new_model(held, seed) for seed in seeds]
    model = members[0] if len(members) == 1 else Ensemble(members, regions=False)
    held = {**held, "folds": len(seeds)}
    save_model(folder / "model.safetensors", model, {})
    return Run(folder, {"id": "f" * 16, "decisions": held})


@pytest.mark.parametrize("name", SEGMENTATION_NETWORKS)
def test_structures_are_copied_by_name_and_others_are_drawn(name: str, tmp_path: Path) -> None:
    old = origin(tmp_path, decisions(name), 1)
    asked = decisions(name, ("spleen", "tumor"))
    model, fresh = new_model(asked, 2).eval(), new_model(asked, 2).eval()
    begin_with(model, asked, old, 0)
    x = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, before = model(x), new_model(old.decisions, 1).eval()(x)
    torch.testing.assert_close(found[:, :2], before[:, [0, 2]])
    assert min((found[:, 2] - before[:, n]).abs().max() for n in range(3)) > 1e-3
    for (key, tensor), drawn in zip(
        model.state_dict().items(), fresh.state_dict().values(), strict=True
    ):
        if tensor.shape[:1] == (3,) and key.endswith("weight"):  # a layer that answers
            assert torch.equal(tensor[2], drawn[2])


def test_a_run_with_folds_hands_on_its_members_in_turn(tmp_path: Path) -> None:
    old = origin(tmp_path, decisions(), 1, 2)
    for number, seed in ((0, 1), (1, 2), (2, 1)):
        model = new_model(decisions(), 7)
        begin_with(model, decisions(), old, number)
        expected = new_model(decisions(), seed).state_dict()
        assert all(torch.equal(t, expected[name]) for name, t in model.state_dict().items())


def test_another_network_is_refused(tmp_path: Path) -> None:
    old = origin(tmp_path, decisions(), 1)
    wider = decisions()
    wider["network"] = {**wider["network"], "options": {"widths": [8, 8, 8]}}
    with pytest.raises(RunError, match="as it was planned"):
        begin_with(new_model(wider, 0), wider, old, 0)
    with pytest.raises(UsageError, match="keeps the model of that run, 'unet', and 'fcn'"):
        take_over(decisions(), old, model="fcn", normalize="auto")
    with pytest.raises(UsageError, match="keeps the normalize of that run, 'mad', and 'nyul'"):
        take_over(decisions(), old, model="auto", normalize="nyul")
    colored = decisions()
    colored["network"] = {**colored["network"], "in_channels": 3}
    with pytest.raises(UsageError, match="takes images of 1 channels, and these have 3"):
        take_over(colored, old, model="auto", normalize="auto")
    deep = decisions()
    deep["network"] = {**deep["network"], "spatial_dims": 3}
    with pytest.raises(UsageError, match="takes images of 2 axes, and these have 3"):
        take_over(deep, old, model="auto", normalize="auto")


def test_grid_network_and_normalization_are_the_old_runs_and_the_steps_smaller(
    tmp_path: Path,
) -> None:
    old = origin(tmp_path, decisions(), 1)
    planned = decisions(labels=("liver", "tumor"), spacing=[0.5, 0.5], patch=[64, 64])
    taken, (line,) = take_over(planned, old, model="unet", normalize="mad")
    assert taken["spacing"] == [1.0, 1.0]
    assert taken["patch"] == [32, 32]
    assert taken["optimizer"]["lr"] == pytest.approx(1e-3)
    assert taken["labels"] == ["liver", "tumor"]
    assert line.endswith("drawn anew: tumor")
    assert planned["optimizer"]["lr"] == 3e-3
    assert not same_answers(taken, old)
    assert same_answers(decisions(), old)
    assert not same_answers(decisions(regions=True), old)
    assert same_answers(decisions(regions=False), old)


def test_the_audit_says_whether_it_became_better() -> None:
    log = [
        {"event": "validation", "step": step, "scores": {"score": score}}
        for step, score in ((0, 0.8), (5, 0.7), (10, 0.8))
    ]
    assert gained(log, "").startswith("no better than the run it began from")
    log.append({"event": "validation", "step": 15, "scores": {"score": 0.9}})
    assert gained(log, "fold-2").startswith("fold-2: better")
    assert "0.8000 -> 0.9000" in gained(log, "")
