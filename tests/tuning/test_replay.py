# SPDX-License-Identifier: Apache-2.0
"""Replays of recorded trials: the clock, the nearest point, and that a better searcher wins."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest

from vesalius.tuning.protocol import Proposal
from vesalius.tuning.space import Space, key_of
from vesalius.tuning.trial import Trial

SPACE = {
    "format": "space 1",
    "parameters": {
        "model": {"kind": "choice", "values": ["frozen", "cnn", "resnet18"]},
        "lr": {
            "kind": "float", "low": 1e-5, "high": 1e-1, "log": True,
            "when": {"model": ["cnn", "resnet18"]},
        },
        "dropout": {
            "kind": "float", "low": 0, "high": 0.8, "when": {"model": ["cnn", "resnet18"]},
        },
    },
}  # fmt: skip


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    from benchmarks import search_replay, search_table

    return search_replay, search_table


def recorded(search_table) -> dict:
    """Return a table of made-up trials."""
    space = Space.from_json(SPACE)
    tuner = search_table.Everything(space, 120, 3, seed=0)
    trials = []
    while (proposal := tuner.ask()) is not None:
        point, rung = proposal.parameters, proposal.rung
        auc, seconds = 0.8, 20.0
        if point["model"] != "frozen":
            auc = 0.9 - 0.03 * (math.log10(point["lr"]) + 3) ** 2 - 0.2 * point["dropout"] ** 2
            auc -= 0.04 * (2 - rung) + 0.02 * (point["model"] == "cnn")
            seconds = 300.0 / 3 ** (2 - rung)
        values = {"auc": auc, "latency": 0.01, "memory": 4e8, "size": 1e7}
        trial = Trial(
            len(trials), point, rung, "done", values, 2 * seconds, facts={"seconds": seconds}
        )
        tuner.tell(trial)
        trials.append(trial)
    return search_table.table_of(space, {"steps": [10, 30, 90], "quality": "auc"}, trials)


def test_a_table_holds_each_point_at_every_rung(benchmarks) -> None:
    held = recorded(benchmarks[1])
    rungs: dict[str, set[int]] = {}
    for trial in held["trials"]:
        rungs.setdefault(key_of(trial["parameters"]), set()).add(trial["rung"])
    assert set(map(tuple, map(sorted, rungs.values()))) == {(2,), (0, 1, 2)}
    assert {t["seconds"] for t in held["trials"]} == {20.0, 33.33, 100.0, 300.0}


def test_the_nearest_point_that_was_not_tried_is_taken(benchmarks) -> None:
    table = benchmarks[0].Table(recorded(benchmarks[1]))
    point = table.points[table.keys[5]]
    tried: set = set()
    first = table.take(Proposal(point, 1, ""), tried)
    assert first == (table.keys[5], 1)
    tried.add(first)
    second = table.take(Proposal(point, 1, ""), tried)
    assert second is not None
    assert second[0] != first[0]
    assert table.take(Proposal(point, 1, ""), set(table.trials)) is None


def test_a_replay_goes_by_the_recorded_clock(benchmarks) -> None:
    search_replay = benchmarks[0]
    table = search_replay.Table(recorded(benchmarks[1]))
    path = search_replay.replay(table, search_replay.tuners(table)["random"](3), 3600)
    clocks, best = np.array(path).T
    assert set(np.round(np.diff(clocks))) <= {20.0, 300.0}
    assert clocks[-1] >= 3600 > clocks[-2]
    assert (np.diff(best) >= 0).all()
    assert search_replay.reached(path, best[-1]) == clocks[best.argmax()]
    assert search_replay.reached(path, 2.0) == float("inf")


def test_a_ladder_with_a_model_reaches_it_sooner(benchmarks) -> None:
    search_replay = benchmarks[0]
    table = search_replay.Table(recorded(benchmarks[1]))
    found = search_replay.compare(table, 5)
    assert found["random"]["reached"] >= 0.5
    assert found["ours"]["median_minutes"] < found["random"]["median_minutes"] / 1.5
    assert "benchmarks" in sys.modules
