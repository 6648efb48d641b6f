# SPDX-License-Identifier: Apache-2.0
"""Tuners: the ladder's rule, the front, the model, and who finds a good point sooner."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.tuning.asha import Asha, Ladder
from vesalius.tuning.model_based import ModelBased, _log_improvement
from vesalius.tuning.pareto import efficient, front
from vesalius.tuning.protocol import Proposal, Tuner
from vesalius.tuning.random_search import RandomSearch
from vesalius.tuning.space import Space
from vesalius.tuning.surrogate import Surrogate
from vesalius.tuning.told import Told
from vesalius.tuning.tpe import Tpe
from vesalius.tuning.trial import Objective, Trial, rank

SPACE = Space.from_json(
    {
        "format": "space 1",
        "parameters": {
            "model": {"kind": "choice", "values": ["frozen", "net"]},
            "lr": {"kind": "float", "low": 1e-5, "high": 1e-1, "log": True,
                   "when": {"model": ["net"]}},
            "drop": {"kind": "float", "low": 0, "high": 0.8, "when": {"model": ["net"]}},
        },
    }
)  # fmt: skip
GOALS = (Objective("auc", maximize=True), Objective("ms", limit=15))
LADDER = Ladder(3, lambda point: 2 if point["model"] == "frozen" else 0)
SECONDS = (3.0, 9.0, 27.0)


def measure(point: dict, rung: int) -> tuple[float, float, float]:
    """Return quality, milliseconds and seconds of a made-up training."""
    if point["model"] == "frozen":
        return 0.8, 5.0, 2.0
    auc = 0.9 - 0.03 * (math.log10(point["lr"]) + 3) ** 2 - 0.1 * (point["drop"] - 0.4) ** 2
    return auc - 0.05 * (2 - rung), 10.0, SECONDS[rung]


def run(tuner: Tuner, seconds: float, until: float = 1.0) -> tuple[float, list[Trial]]:
    """Return when a quality was reached at full fidelity (else infinity), and the trials."""
    clock, trials = 0.0, []
    while clock < seconds and (proposal := tuner.ask()) is not None:
        trial = Trial(len(trials), proposal.parameters, proposal.rung)
        tuner.tell(trial)
        auc, ms, took = measure(proposal.parameters, proposal.rung)
        clock += took
        values = {"auc": auc, "ms": ms}
        trials.append(Trial(trial.number, trial.parameters, trial.rung, "done", values, took))
        tuner.tell(trials[-1])
        if trial.rung == 2 and auc >= until:
            return clock, trials
    return math.inf, trials


MAKERS: dict[str, Callable[[int], Tuner]] = {
    "random": lambda seed: RandomSearch(SPACE, 2, Told(seed)),
    "tpe": lambda seed: Tpe(SPACE, GOALS, 2, Told(seed)),
    "asha": lambda seed: Asha(SPACE, GOALS, LADDER, Told(seed)),
    "ours": lambda seed: ModelBased(SPACE, GOALS, LADDER, Told(seed)),
}


def test_a_model_on_a_ladder_is_sooner_than_random_draws() -> None:
    def median(name: str) -> float:
        return float(np.median([run(MAKERS[name](seed), 3000, 0.893)[0] for seed in range(5)]))

    assert median("ours") < median("random") / 2
    assert median("asha") < median("random")


@pytest.mark.parametrize("name", MAKERS)
def test_a_search_that_is_told_again_goes_on_as_it_would_have(name: str) -> None:
    _, trials = run(MAKERS[name](7), 150)
    half = MAKERS[name](7)
    for trial in trials[: len(trials) // 2]:
        half.tell(Trial(trial.number, trial.parameters, trial.rung))
        half.tell(trial)
    following = half.ask()
    assert following is not None
    expected = trials[len(trials) // 2]
    assert (following.parameters, following.rung) == (dict(expected.parameters), expected.rung)


@pytest.mark.parametrize("name", MAKERS)
def test_nothing_is_tried_twice_and_a_used_up_space_ends(name: str) -> None:
    _, trials = run(MAKERS[name](1), 100)
    assert len({(t.key, t.rung) for t in trials}) == len(trials)
    for trial in trials:
        SPACE.check(trial.parameters)
        assert trial.rung == 2 or name in ("asha", "ours")
    one = Space.from_json(
        {"format": "space 1", "parameters": {"model": {"kind": "choice", "values": ["frozen"]}}}
    )
    tuner = Asha(one, GOALS, LADDER, Told(0))
    assert len(run(tuner, 1e9)[1]) == 1


def test_what_is_known_to_be_good_comes_first() -> None:
    first = [
        Proposal({"model": "frozen"}, 2, "cheap"),
        Proposal(SPACE.defaults(model="net"), 0, ""),
    ]
    _, trials = run(ModelBased(SPACE, GOALS, LADDER, Told(0), first), 40)
    assert [(t.parameters["model"], t.rung) for t in trials[:2]] == [("frozen", 2), ("net", 0)]


def _trials(values: Sequence[tuple[float, float]], rung: int = 0) -> list[Trial]:
    return [
        Trial(n, {"model": "net", "lr": 1e-3, "drop": n / 100}, rung, "done", {"auc": a, "ms": m})
        for n, (a, m) in enumerate(values)
    ]


def test_the_best_third_climbs_and_nothing_beyond_a_limit() -> None:
    trials = _trials([(0.5, 1), (0.9, 1), (0.6, 1), (0.95, 99), (0.7, 1), (0.4, 1)])
    climber = next(LADDER.climbers(trials, GOALS), None)
    assert climber is not None
    assert climber.number == 1
    trials.append(Trial(6, trials[1].parameters, 1))
    climber = next(LADDER.climbers(trials, GOALS), None)
    assert climber is not None
    assert climber.number == 4
    trials.append(Trial(7, trials[4].parameters, 1))
    assert next(LADDER.climbers(trials, GOALS), None) is None
    assert [t.number for t in rank(trials, GOALS)][-1] == 3


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)), max_size=30))
def test_the_front_is_what_nothing_dominates(rows: list[tuple[int, int, int]]) -> None:
    table = np.array(rows, float).reshape(len(rows), 3)
    expected = [
        not any(
            all(a <= b for a, b in zip(other, row, strict=True)) and other != row for other in rows
        )
        for row in rows
    ]
    assert efficient(table).tolist() == expected


def test_the_front_keeps_the_limits_where_something_does() -> None:
    trials = _trials([(0.9, 99), (0.8, 10), (0.8, 10), (0.7, 5), (0.6, 7)])
    assert [t.number for t in front(trials, GOALS)] == [1, 3]
    assert [t.number for t in front(trials[:1], GOALS)] == [0]


def test_the_model_predicts_what_it_saw_and_doubts_what_it_did_not() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(size=(60, 2))
    values = np.sin(3 * points[:, 0]) + points[:, 1] ** 2
    fitted = Surrogate.fit(points, np.ones(60), values)
    new = rng.uniform(size=(40, 2))
    mean, sd = fitted.predict(new, np.ones(40))
    truth = np.sin(3 * new[:, 0]) + new[:, 1] ** 2
    assert np.abs(mean - truth).mean() < 0.1 * values.std()
    far_mean, far_sd = fitted.predict(np.array([[9.0, 9.0]]), np.ones(1))
    assert far_sd[0] > 5 * sd.mean()
    assert far_mean[0] == pytest.approx(values.mean(), abs=0.1)
    noisy = Surrogate.fit(points, np.ones(60), rng.normal(size=60))
    assert noisy.noise > fitted.noise


@settings(deadline=None)
@given(st.floats(-40, 5), st.floats(0.01, 3))
def test_the_expected_improvement_is_stable_and_falls_with_the_mean(z: float, sd: float) -> None:
    mean = np.array([-z * sd, -z * sd + 0.01 * sd])
    better, worse = _log_improvement(mean, np.array([sd, sd]), 0.0)
    assert np.isfinite(better)
    assert better >= worse - 0.02 or abs(z + 6) < 0.1
