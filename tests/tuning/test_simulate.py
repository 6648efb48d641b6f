# SPDX-License-Identifier: Apache-2.0
"""The simulator against answers known by hand, against the real ladder, and against its laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.errors import DataError, UsageError
from vesalius.tuning.asha import Asha, Ladder
from vesalius.tuning.simulate import Costs, _Rungs, costs_of, simulate
from vesalius.tuning.space import Space
from vesalius.tuning.told import Told
from vesalius.tuning.trial import Objective, Trial

ONE = Costs(rungs=(10.0,))
SPACE = Space.from_json(
    {"format": "space 1", "parameters": {"x": {"kind": "float", "low": 0, "high": 1}}}
)


def test_equal_trials_take_what_a_hand_says() -> None:
    for workers, wall in ((1, 120.0), (2, 60.0), (5, 30.0), (12, 10.0), (100, 10.0)):
        found = simulate(ONE, workers=workers, trials=12)
        assert (found.seconds, found.busy, found.finished) == (wall, 120.0, [12])
        assert found.paid == workers * wall
        assert (found.failed, found.lost, found.wasted) == (0, 0, 0.0)


def test_the_head_serves_one_after_the_other() -> None:
    found = simulate(Costs(rungs=(1.0,), head=0.5), workers=1000, trials=100)
    assert found.seconds == pytest.approx(100 * 0.5 + 1.0)  # two workers' worth, however many
    assert found.head == pytest.approx(50.0)
    assert max(0, found.busy) == pytest.approx(100.0)


def test_who_climbs_is_who_climbs_on_the_real_ladder() -> None:
    goals = (Objective("auc", maximize=True),)
    tuner, ladder = Asha(SPACE, goals, Ladder(3), Told(0)), _Rungs(3, 3)
    arms: list[float] = []
    for number in range(90):  # one worker: each trial ends before the next begins
        proposal = tuner.ask()
        assert proposal is not None
        x = proposal.parameters["x"]
        climber = ladder.climb()
        if climber is None:
            assert proposal.rung == 0
            arms.append(x)
            climber = (len(arms) - 1, 0)
        assert (arms[climber[0]], climber[1]) == (x, proposal.rung)
        ladder.add(proposal.rung, -x, climber[0])
        tuner.tell(Trial(number, {"x": x}, proposal.rung, "done", {"auc": x}))
    assert len(arms) < 70
    played = simulate(Costs(rungs=(1.0, 3.0, 9.0)), workers=1, trials=90)
    assert sum(played.finished) == 90
    assert 20 < played.finished[1] < 30
    assert played.seconds == pytest.approx(np.dot(played.finished, (1, 3, 9)))


def test_lost_workers_cost_what_was_not_kept() -> None:
    quiet = simulate(Costs(rungs=(1000.0,)), workers=4, trials=400)
    for checkpoint in (10.0, 1e9):
        costs = Costs(rungs=(1000.0,), lost=1 / 10_000, recovery=5.0, checkpoint=checkpoint)
        stormy = simulate(costs, workers=4, trials=400)
        assert 20 < stormy.lost < 70  # 40 are to be expected
        again = stormy.lost * (5.0 + (checkpoint / 2 if checkpoint < 1000 else 500.0))
        assert stormy.wasted == pytest.approx(again, rel=0.35)
        assert stormy.busy == pytest.approx(quiet.busy + stormy.wasted, rel=0.02)
    assert sum(stormy.finished) + stormy.failed == 400
    hopeless = simulate(Costs(rungs=(1000.0,), lost=1.0), workers=4, trials=40)
    assert (hopeless.finished, hopeless.failed) == ([0], 40)


def test_time_ends_what_runs() -> None:
    found = simulate(ONE, workers=2, seconds=35.0)
    assert (found.seconds, found.finished, found.busy) == (35.0, [6], 70.0)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.floats(0.1, 100), min_size=1, max_size=3),
    st.lists(st.floats(0.2, 5), min_size=1, max_size=5),
    st.integers(1, 20),
    st.integers(1, 60),
    st.integers(0, 9),
)
def test_no_schedule_beats_what_is_possible(
    rungs: list[float], spread: list[float], workers: int, trials: int, seed: int
) -> None:
    costs = Costs(rungs=tuple(rungs), spread=tuple(spread), failing=0.1, lost=0.001)
    found = simulate(costs, workers=workers, trials=trials, seed=seed)
    assert found == simulate(costs, workers=workers, trials=trials, seed=seed)
    assert sum(found.finished) + found.failed == trials
    assert found.busy / workers <= found.seconds * (1 + 1e-9)
    assert found.busy <= found.paid * (1 + 1e-9)
    assert found.wasted <= found.busy * (1 + 1e-9)


def test_costs_come_from_the_trials_of_a_journal() -> None:
    ended = [(0, "done", 10.0, 1), (0, "done", 30.0, 1), (0, "done", 20.0, 2), (1, "done", 66.0, 1),
             (0, "failed", 4.0, 1), (0, "late", 9.0, 1)]  # fmt: skip
    trials = [
        Trial(n, {}, rung, state, {"auc": 0.5} if state == "done" else {}, seconds, attempts=count)
        for n, (rung, state, seconds, count) in enumerate(ended)
    ]
    costs = costs_of(trials, 3, wall=140.0)
    assert costs.rungs == (20.0, 66.0, 198.0)
    assert costs.spread == (0.5, 1.5, 1.0, 1.0)
    assert costs.failing == pytest.approx(1 / 5)
    assert costs.lost == pytest.approx(1 / 130)
    assert costs.head == pytest.approx(2.0)
    with pytest.raises(DataError, match="no finished trial"):
        costs_of(trials[4:], 3, wall=1.0)
    with pytest.raises(UsageError, match="needs a worker"):
        simulate(costs, workers=0, trials=1)
    with pytest.raises(UsageError, match="needs an end"):
        simulate(costs, workers=1)


def test_a_thousand_workers_are_played_in_seconds() -> None:
    costs = Costs(rungs=(60.0, 180.0, 540.0), spread=(0.5, 1.0, 2.0), lost=1e-6, head=0.01)
    found = simulate(costs, workers=1000, trials=20_000)
    assert sum(found.finished) + found.failed == 20_000
    assert 0.7 < found.busy / found.paid < 0.9  # the last trials run alone
