# SPDX-License-Identifier: Apache-2.0
"""What does not fit into the minutes is left out, said, and left out again by a resumed run."""

from __future__ import annotations

import math

import pytest

from vesalius.tasks.classify.clock import AT_THE_END, Clock


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    held = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: held[0])
    return held


def test_minutes_run_down_to_the_work_at_the_end(now: list[float]) -> None:
    clock = Clock.of({"minutes": 1}, 100.0, {})
    assert clock.left == 60 - AT_THE_END
    now[0] += 30
    assert clock.left == 30 - AT_THE_END
    now[0] += 100
    assert clock.left == 0


def test_a_candidate_is_tried_first_and_left_out_where_it_takes_too_long(now: list[float]) -> None:
    clock = Clock.of({"minutes": 1}, 100.0, {})
    assert clock.fits("quick", lambda: 10.0)
    assert not clock.fits("slow", lambda: 57.0)
    assert not clock.fits("half", lambda: 40.0, share=0.5)
    assert clock.fits("half again", lambda: 27.0, share=0.5)
    assert list(clock.left_out) == ["slow", "half"]
    now[0] += 60
    assert not clock.fits("late", lambda: pytest.fail("there is no time to try"))
    assert clock.lines() == [
        "slow is left out for time: it takes about 57 s, and 56 s were to be had",
        "half is left out for time: it takes about 40 s, and 28 s were to be had",
        "late is left out for time: no time is left",
    ]


def test_trying_counts_as_well(now: list[float]) -> None:
    clock = Clock.of({"minutes": 1}, 100.0, {})

    def costly() -> float:
        now[0] += 20
        return 50.0

    assert not clock.fits("slow", costly)


def test_steps_leave_nothing_out() -> None:
    clock = Clock.of({"steps": 5}, 0.0, {})
    assert clock.left == math.inf
    assert clock.fits("slow", lambda: pytest.fail("nothing has to be tried"))


def test_a_resumed_run_leaves_out_the_same() -> None:
    clock = Clock.of({"minutes": 1000}, 0.0, {"slow": "it took too long"})
    assert not clock.fits("slow", lambda: 0.0)
    assert clock.left_out == {"slow": "it took too long"}
