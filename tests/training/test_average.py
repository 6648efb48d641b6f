# SPDX-License-Identifier: Apache-2.0
"""The running mean of the weights: as computed by hand, judged and kept, resumed exactly."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported

import pytest
import torch
from torch import nn

from vesalius.training import checkpoint, device
from vesalius.training.log import read_log
from vesalius.training.loop import BEST, LOG, STATE, Outcome, Settings, fit

SETTINGS = Settings(
    steps=25, lr=0.05, warmup=2, weight_decay=0.01, clip_norm=1.0, validate_every=6,
    checkpoint_seconds=0.0, ema=0.9,
)  # fmt: skip
X = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] - X[:, 1] > 0).long()


class Killed(Exception):
    pass


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))


def run(
    folder: Path, settings: Settings = SETTINGS, die_at: int | None = None
) -> tuple[nn.Module, Outcome, list[dict], list[dict]]:
    """Return the network, the outcome, the weights after each step, and those that were judged."""
    states: list[dict] = []
    judged: list[dict] = []
    model = network()

    def keep(where: list[dict], module: nn.Module) -> None:
        held = module.state_dict().items()
        where.append({k.removeprefix("_forward_module."): v.clone() for k, v in held})

    def step_loss(wrapped: nn.Module, step: int) -> torch.Tensor:
        if step:
            keep(states, model)
        rows = (torch.arange(12) + 12 * step) % 60
        return nn.functional.cross_entropy(wrapped(X[rows]), Y[rows])

    def validate(module: nn.Module) -> dict[str, float]:
        keep(judged, module)
        return {"score": -float(nn.functional.cross_entropy(module(X), Y))}

    def progress(_stage: str, done: int, _total: int | None) -> None:
        if done == die_at:
            raise Killed

    outcome = fit(
        model, step_loss=step_loss, validate=validate, settings=settings, folder=folder,
        fabric=device.start(), progress=progress,
    )  # fmt: skip
    return model, outcome, states, judged


def test_the_mean_is_the_one_computed_by_hand(tmp_path: Path) -> None:
    settings = replace(SETTINGS, validate_every=1)
    _, _, states, judged = run(tmp_path, settings)
    wanted = {name: value.double() for name, value in network().state_dict().items()}
    assert len(judged) == 25
    for step, state in enumerate(states, 1):
        decay = min(0.9, (1 + step) / (10 + step))
        for name, value in state.items():
            if name.endswith("num_batches_tracked"):
                assert judged[step - 1][name] == value == step
                continue
            wanted[name] = decay * wanted[name] + (1 - decay) * value.double()
            torch.testing.assert_close(
                judged[step - 1][name].double(), wanted[name], rtol=1e-4, atol=1e-5
            )
    last = states[-1]["0.weight"]
    assert not torch.allclose(judged[-1]["0.weight"], last, atol=1e-3)  # it lags behind


def test_the_best_mean_is_what_is_kept(tmp_path: Path) -> None:
    model, outcome, _, judged = run(tmp_path)
    place = [6, 12, 18, 24, 25].index(outcome.best_step)
    kept, record = checkpoint.load_tensors(tmp_path / BEST)
    assert record["step"] == outcome.best_step
    for name, value in judged[place].items():
        assert torch.equal(kept[name], value)
        assert torch.equal(model.state_dict()[name], value)
    score = -float(nn.functional.cross_entropy(model.eval()(X), Y).detach())
    assert score == pytest.approx(outcome.best_scores["score"])


@pytest.mark.parametrize("deaths", [(7,), (12, 13), (1, 2, 24)])
def test_resume_equals_uninterrupted(tmp_path: Path, deaths: tuple[int, ...]) -> None:
    whole, outcome, _, _ = run(tmp_path / "whole")
    for step in deaths:
        with pytest.raises(Killed):
            run(tmp_path / "broken", die_at=step)
    resumed, again, _, _ = run(tmp_path / "broken")
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value)
    assert (again.best_step, again.best_scores) == (outcome.best_step, outcome.best_scores)
    for file in (STATE, BEST):
        tensors = [checkpoint.load_tensors(tmp_path / n / file)[0] for n in ("whole", "broken")]
        assert tensors[0].keys() == tensors[1].keys()
        assert all(torch.equal(value, tensors[1][name]) for name, value in tensors[0].items())
    strip = [
        [{k: v for k, v in e.items() if k != "seconds"} for e in read_log(tmp_path / n / LOG)]
        for n in ("whole", "broken")
    ]
    assert strip[0] == strip[1]


def test_the_state_holds_the_mean_where_there_is_one(tmp_path: Path) -> None:
    run(tmp_path / "mean")
    run(tmp_path / "plain", replace(SETTINGS, ema=0.0))
    names = {
        folder: set(checkpoint.load_tensors(tmp_path / folder / STATE)[0])
        for folder in ("mean", "plain")
    }
    averages = {name for name in names["mean"] if name.startswith(checkpoint.AVERAGE)}
    assert averages == {checkpoint.AVERAGE + name for name in network().state_dict()}
    assert names["plain"] == names["mean"] - averages


def test_training_itself_does_not_depend_on_the_mean(tmp_path: Path) -> None:
    _, _, with_mean, _ = run(tmp_path / "mean")
    _, _, without, judged = run(tmp_path / "plain", replace(SETTINGS, ema=0.0))
    for one, two in zip(with_mean, without, strict=True):
        assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert all(torch.equal(value, judged[0][name]) for name, value in without[5].items())


def test_a_plan_asks_for_it() -> None:
    optimizer = {"lr": 0.1, "weight_decay": 0.0, "clip_norm": 1.0}
    assert Settings.from_plan({**optimizer, "ema": 0.99}, {"steps": 5}, 2).ema == 0.99
    assert Settings.from_plan(optimizer, {"steps": 5}, 2).ema == 0.0
