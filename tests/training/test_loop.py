# SPDX-License-Identifier: Apache-2.0
"""The loop: resume is exact, the best validation is kept, time is respected."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from vesalius.errors import RunError
from vesalius.training import checkpoint, device
from vesalius.training.log import read_log
from vesalius.training.loop import BEST, LOG, STATE, Outcome, Settings, fit
from vesalius.training.order import batch_positions, step_random

SETTINGS = Settings(
    steps=30, lr=0.02, warmup=3, weight_decay=0.01, clip_norm=1.0, validate_every=7,
    checkpoint_seconds=0.0,
)  # fmt: skip
RNG = np.random.default_rng(0)
X = torch.tensor(RNG.normal(size=(40, 6)), dtype=torch.float32)
Y = (X[:, 0] + X[:, 1] > 0).long()


class Killed(Exception):
    pass


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def run(folder: Path, settings: Settings = SETTINGS, die_at: int | None = None):
    def step_loss(model: nn.Module, step: int) -> torch.Tensor:
        if step == die_at:
            raise Killed
        rows = batch_positions(len(X), 8, step, seed=3)
        noise = torch.tensor(step_random(3, step).normal(0, 0.1, (8, 6)), dtype=torch.float32)
        return nn.functional.cross_entropy(model(X[rows] + noise), Y[rows])

    def validate(model: nn.Module) -> dict[str, float]:
        return {"score": -float(nn.functional.cross_entropy(model(X), Y))}

    model = network()
    outcome = fit(
        model,
        step_loss=step_loss,
        validate=validate,
        settings=settings,
        folder=folder,
        fabric=device.start(),
    )
    return model, outcome


def test_it_learns_and_logs(tmp_path: Path) -> None:
    model, outcome = run(tmp_path)
    events = read_log(tmp_path / LOG)
    losses = [e["loss"] for e in events if e["event"] == "step"]
    assert len(losses) == 30
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    assert [e["step"] for e in events if e["event"] == "validation"] == [7, 14, 21, 28, 30]
    assert outcome == Outcome(
        30, outcome.best_step, outcome.best_scores, outcome.seconds, "schedule"
    )
    accuracy = (model.eval()(X).argmax(1) == Y).float().mean()
    assert accuracy > 0.8


@pytest.mark.parametrize("deaths", [(5,), (14, 15), (29,), (0, 1, 2)])
def test_resume_equals_uninterrupted(tmp_path: Path, deaths: tuple[int, ...]) -> None:
    whole, _ = run(tmp_path / "whole")
    for step in deaths:
        with pytest.raises(Killed):
            run(tmp_path / "broken", die_at=step)
    resumed, _ = run(tmp_path / "broken")
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=0, atol=0)
    strip = [
        [{k: v for k, v in e.items() if k != "seconds"} for e in read_log(tmp_path / n / LOG)]
        for n in ("whole", "broken")
    ]
    assert strip[0] == strip[1]


def test_a_finished_loop_does_no_further_step(tmp_path: Path) -> None:
    run(tmp_path)
    _, outcome = run(tmp_path, die_at=30)
    assert outcome.steps == 30


def test_time_ends_the_loop_for_good_and_at_a_rate_near_zero(tmp_path: Path) -> None:
    settings = Settings(
        steps=10_000, lr=0.01, warmup=3, weight_decay=0, clip_norm=1, validate_every=5000,
        stop_after=1.0,
    )  # fmt: skip
    _, outcome = run(tmp_path, settings)
    assert outcome.steps < 10_000
    assert outcome.seconds < 3
    rates = [event["lr"] for event in read_log(tmp_path / LOG) if event["event"] == "step"]
    assert max(rates) > 0.009
    assert rates[-1] < 0.001  # annealed in fewer steps
    assert outcome.best_step == outcome.steps
    _, again = run(tmp_path, settings, die_at=outcome.steps)
    assert again.steps == outcome.steps


def test_loss_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    model = network()
    with pytest.raises(RunError, match="loss is nan at step 1"):
        fit(
            model,
            step_loss=lambda net, _: net(X).sum() * float("nan"),
            validate=lambda _: {"score": 0.0},
            settings=SETTINGS,
            folder=tmp_path,
            fabric=device.start(),
        )


def test_files_are_safetensors_and_nothing_else(tmp_path: Path) -> None:
    run(tmp_path)
    names = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert names == sorted([BEST, STATE, LOG])
    (tmp_path / BEST).write_bytes(b"\x80\x04broken pickle")
    with pytest.raises(RunError, match="cannot be read"):
        checkpoint.load_tensors(tmp_path / BEST)


def test_every_case_comes_once_per_epoch() -> None:
    places = [p for step in range(5) for p in batch_positions(10, 4, step, seed=1)]
    assert sorted(places[:10]) == list(range(10))
    assert sorted(places[10:20]) == list(range(10))
    assert places[:10] != places[10:20]
    assert batch_positions(10, 4, 3, seed=1) == places[12:16]
