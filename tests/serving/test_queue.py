# SPDX-License-Identifier: Apache-2.0
"""Leases, retries, poison, priorities; a clock that is set back harms none of them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.serving import queue
from vesalius.serving.clock import Clock
from vesalius.serving.queue import LeaseLost
from vesalius.serving.state import State


def _add(state, key, **changes):
    values = {"kind": "predict", "study_uid": "1.2", "subject": {}, "now": state.clock.now()}
    with state.transaction() as connection:
        return queue.add(connection, key=key, **values | changes)


def _state_of(state, key):
    query = "SELECT state, attempts, interruptions FROM jobs WHERE key = ?"
    return state.connection().execute(query, (key,)).fetchone()


def _due(state):
    """Make all jobs due now."""
    with state.transaction() as connection:
        connection.execute("UPDATE jobs SET not_before = 0")


def test_the_same_work_is_queued_once(state):
    assert _add(state, "a")
    assert not _add(state, "a")
    assert queue.depth(state) == {("predict", "ready"): 1}


def test_the_most_urgent_then_the_oldest_comes_first(state):
    for key, priority in [("a", 0), ("b", 5), ("c", 5), ("d", 0)]:
        _add(state, key, priority=priority, subject={"key": key})
    taken = [queue.lease(state, "predict").subject["key"] for _ in range(4)]
    assert taken == ["b", "c", "a", "d"]
    assert queue.lease(state, "predict") is None
    assert queue.lease(state, "push") is None


def test_a_finished_job_stays_finished_and_keeps_its_answer(state):
    _add(state, "a")
    job = queue.lease(state, "predict")
    with state.transaction() as connection:
        queue.finish(connection, job, now=1.0, answer={"files": 2})
    assert _state_of(state, "a")[0] == "done"
    assert not _add(state, "a")
    with pytest.raises(LeaseLost), state.transaction() as connection:
        queue.finish(connection, job, now=1.0)


def test_an_error_is_tried_again_later_and_not_for_ever(state):
    _add(state, "a")
    for attempt in range(1, queue.MOST_ATTEMPTS["predict"] + 1):
        assert _state_of(state, "a")[0] == "ready"
        job = queue.lease(state, "predict")
        assert job.attempts == attempt
        queue.fail(state, job, "broken")
        assert queue.lease(state, "predict") is None  # it waits, or is over
        _due(state)
    assert _state_of(state, "a")[0] == "failed"
    number = state.connection().execute("SELECT id FROM jobs").fetchone()[0]
    assert queue.retry(state, number)
    assert queue.lease(state, "predict").attempts == 1


def test_a_refusal_is_final_and_says_why(state):
    _add(state, "a")
    queue.refuse(state, queue.lease(state, "predict"), "slice 3 is missing")
    assert _state_of(state, "a")[0] == "refused"
    assert queue.lease(state, "predict") is None
    reason = state.connection().execute("SELECT reason FROM jobs").fetchone()[0]
    assert reason == "slice 3 is missing"


def test_a_lease_that_ran_out_is_another_workers(state):
    _add(state, "a")
    late = queue.lease(state, "predict", seconds=-1)
    assert queue.lease(state, "predict") is None  # put back, to be tried in a while
    _due(state)
    fresh = queue.lease(state, "predict")
    assert fresh.lease != late.lease
    for act in (
        lambda: queue.renew(state, late),
        lambda: queue.fail(state, late, ""),
        lambda: queue.refuse(state, late, ""),
    ):
        with pytest.raises(LeaseLost):
            act()
    queue.renew(state, fresh)


def test_a_dead_workers_job_is_given_back_with_its_attempt_counted(state):
    _add(state, "a")
    queue.lease(state, "predict", owner="41")
    assert queue.release(state, "4", "another worker died") == 0
    assert queue.release(state, "41", "its worker died") == 1
    assert _state_of(state, "a") == ("ready", 1, 0)


def test_a_server_that_went_down_is_not_the_jobs_fault_for_a_while(state):
    _add(state, "a")
    for n in range(1, queue.MOST_INTERRUPTIONS):
        assert queue.lease(state, "predict") is not None
        assert queue.recover(state) == 1
        assert _state_of(state, "a") == ("ready", 0, n)
    queue.lease(state, "predict")
    queue.recover(state)
    assert _state_of(state, "a")[0] == "failed"


def test_a_wall_clock_that_is_set_back_does_not_turn_time_back(state, monkeypatch):
    before = state.clock.now()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert State(state.folder).clock.now() >= before


def test_after_a_reboot_time_goes_on_after_what_was_written(state, monkeypatch):
    _add(state, "a")
    queue.lease(state, "predict")
    (until,) = state.connection().execute("SELECT lease_until FROM jobs").fetchone()
    monkeypatch.setattr("vesalius.serving.clock._boot_id", lambda: "another-boot")
    monkeypatch.setattr("vesalius.serving.clock.since_boot", lambda: 5.0)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert Clock(state.connection()).now() >= until
    # and a second process of that boot has the same clock
    assert Clock(state.connection()).now() == Clock(state.connection()).now()


@settings(max_examples=25, deadline=None)
@given(
    acts=st.lists(st.sampled_from(["lease", "finish", "fail", "recover", "expire"]), max_size=25)
)
def test_a_job_is_finished_at_most_once_and_never_lost(tmp_path_factory, acts):
    state = State(tmp_path_factory.mktemp("queue") / "state")
    _add(state, "a")
    held, finished = [], 0
    for act in acts:
        _due(state)
        if act == "lease" and (job := queue.lease(state, "predict")):
            held.append(job)
        elif act == "expire":
            with state.transaction() as connection:
                connection.execute("UPDATE jobs SET lease_until = 0")
        elif act == "recover":
            queue.recover(state)
        elif held:
            try:
                if act == "finish":
                    with state.transaction() as connection:
                        queue.finish(connection, held[-1], now=1.0)
                    finished += 1
                elif act == "fail":
                    queue.fail(state, held[-1], "")
            except LeaseLost:
                pass
    assert finished <= 1
    name = _state_of(state, "a")[0]
    assert (name == "done") == (finished == 1)
    assert name in queue.STATES
    state.close()
