# SPDX-License-Identifier: Apache-2.0
"""Local processes: each way a job can end, and a search that survives all of them."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from vesalius.errors import BudgetError, RunError
from vesalius.tuning.asha import Asha, Ladder
from vesalius.tuning.journal import Journal, read_journal
from vesalius.tuning.keeping import to_drop
from vesalius.tuning.local import LocalProcesses
from vesalius.tuning.loop import Loop, seconds_used, trials_of
from vesalius.tuning.protocol import Job, Outcome
from vesalius.tuning.space import Space
from vesalius.tuning.told import Told
from vesalius.tuning.trial import Objective, Trial

HERE = Path(__file__).parent
SPACE = Space.from_json(
    {"format": "space 1", "parameters": {"x": {"kind": "int", "low": 0, "high": 999}}}
)
GOALS = (Objective("auc", maximize=True),)


@pytest.fixture
def processes() -> LocalProcesses:
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    return LocalProcesses("toys:toy", slots=2, memory=1 << 30, environment={"PYTHONPATH": path})


def wait(processes: LocalProcesses, count: int, seconds: float = 60) -> dict[int, Outcome]:
    found: dict[int, Outcome] = {}
    end = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < end:
        found |= {outcome.number: outcome for outcome in processes.poll(1)}
    return found


def test_each_ending_is_told_apart(processes: LocalProcesses, tmp_path: Path) -> None:
    deeds = {
        "": ("done", ""),
        "crash": ("crashed", "ValueError: a toy that breaks"),
        "refuse": ("refused", "a toy that says no"),
        "exit": ("crashed", "exit code 3"),
        "segfault": ("crashed", "signal 11"),
        "memory": ("memory", "MemoryError"),
        "killed": ("killed", "was killed"),
    }
    for number, deed in enumerate(deeds):
        while not processes.free:
            deeds_found = wait(processes, 1)
            check(deeds_found, deeds)
        processes.submit(Job(number, tmp_path / str(number), {"deed": deed, "bytes": 1 << 31}))
    check(wait(processes, 2), deeds)
    assert processes.free == 2
    assert "a toy that breaks" in (tmp_path / "1" / "log.txt").read_text()


def check(found: dict[int, Outcome], deeds: dict[str, tuple[str, str]]) -> None:
    for number, outcome in found.items():
        ending, words = list(deeds.values())[number]
        assert outcome.ending == ending
        assert words in outcome.reason
        assert (outcome.result is not None) == (ending == "done")


def test_what_is_cancelled_ends_and_says_so(processes: LocalProcesses, tmp_path: Path) -> None:
    processes.submit(Job(0, tmp_path / "0", {"deed": "sleep", "seconds": 600}))
    processes.cancel(0)
    assert wait(processes, 1)[0].ending == "cancelled"
    processes.cancel(0)  # ended: nothing
    processes.submit(Job(1, tmp_path / "1", {"deed": "sleep", "seconds": 600}))
    processes.close()
    assert processes.free == 2


def loop(
    folder: Path, processes: LocalProcesses, payload: Callable[[Trial], dict], journal: Journal
) -> Loop:
    return Loop(
        tuner=Asha(SPACE, GOALS, Ladder(1), Told(0)),
        executor=processes,
        journal=journal,
        objectives=GOALS,
        job=lambda trial: Job(trial.number, folder / str(trial.number), payload(trial)),
        smaller=lambda held: {"x": held["x"] // 2} if held["x"] > 1 else None,
    )


def test_no_fault_of_a_trial_stops_the_search(processes: LocalProcesses, tmp_path: Path) -> None:
    deeds = ["", "crash", "exit", "memory", "killed once", "refuse", ""]

    def payload(trial: Trial) -> dict:
        deed = deeds[trial.number]
        size = 1 << 31 if "smaller" not in trial.facts else 1 << 20
        return {"deed": deed, "bytes": size, "count": str(tmp_path / f"begun-{trial.number}")}

    with Journal(tmp_path / "journal.jsonl") as journal:
        trials = loop(tmp_path, processes, payload, journal).run(seconds=300, most=len(deeds))
    states = ["done", "failed", "failed", "done", "done", "pruned", "done"]
    assert [trial.state for trial in trials] == states
    begun = [len((tmp_path / f"begun-{n}").read_text()) for n in range(len(deeds))]
    assert begun == [1, 1, 1, 2, 2, 1, 1]
    assert trials[3].facts["smaller"] == {"x": trials[3].parameters["x"] // 2}
    assert trials[4].attempts == 2
    events = read_journal(tmp_path / "journal.jsonl")
    assert trials_of(events) == trials
    assert 0 < seconds_used(events) < 300


def test_memory_is_given_less_once_then_given_up(processes: LocalProcesses, tmp_path: Path) -> None:
    def payload(trial: Trial) -> dict:
        return {"deed": "memory" if trial.number == 0 else "", "bytes": 1 << 31}

    with Journal(tmp_path / "journal.jsonl") as journal:
        trials = loop(tmp_path, processes, payload, journal).run(seconds=300, most=2)
    assert [trial.state for trial in trials] == ["pruned", "done"]
    assert trials[0].attempts == 2
    assert "memory" in trials[0].why


def test_the_clock_is_kept_and_what_was_late_is_done_later(
    processes: LocalProcesses, tmp_path: Path
) -> None:
    length = {"seconds": 600.0}

    def payload(trial: Trial) -> dict:
        return {"deed": "sleep", **length}

    start = time.monotonic()
    with Journal(tmp_path / "journal.jsonl") as journal:
        trials = loop(tmp_path, processes, payload, journal).run(seconds=2)
    assert time.monotonic() - start < 2 + 1.5  # the machine may be busy
    assert [trial.state for trial in trials] == ["late", "late"]
    length["seconds"] = 0.0
    with Journal(tmp_path / "journal.jsonl") as journal:
        again = loop(tmp_path, processes, payload, journal).run(seconds=300, most=2)
    assert [trial.state for trial in again] == ["done", "done"]
    assert [trial.parameters for trial in again] == [trial.parameters for trial in trials]


def test_the_clock_is_kept_by_trials_that_keep_their_cores_busy(
    processes: LocalProcesses, tmp_path: Path
) -> None:
    """What is reserved for the end grows while the search learns what the end takes."""
    learned: list[float] = []  # when the first trial was done

    def reserve(trials: Sequence[Trial]) -> float:
        if any(trial.done for trial in trials):
            learned.append(time.monotonic() - start)
        return 26.0 if learned else 1.0

    def payload(trial: Trial) -> dict:
        return {"deed": "burn", "seconds": 600.0 if trial.number else 0.5}

    start = time.monotonic()
    with Journal(tmp_path / "journal.jsonl") as journal:
        held = loop(tmp_path, processes, payload, journal)
        held.reserve = reserve
        trials = held.run(seconds=30)
    took = time.monotonic() - start
    assert [trial.state for trial in trials][:2] == ["done", "late"]
    assert 0 <= took - max(4.0, learned[0]) < 5  # the machine may be busy


def test_where_everything_fails_the_search_says_why(
    processes: LocalProcesses, tmp_path: Path
) -> None:
    with (
        Journal(tmp_path / "journal.jsonl") as journal,
        pytest.raises(RunError, match=r"all came to nothing.*a toy that says no"),
    ):
        loop(tmp_path, processes, lambda _: {"deed": "refuse"}, journal).run(seconds=300)


def test_no_number_is_no_result(processes: LocalProcesses, tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.jsonl") as journal:
        held = loop(tmp_path, processes, lambda t: {"auc": t.number}, journal)
        held.objectives = (*GOALS, Objective("ms"))
        (trial,) = held.run(seconds=300, most=1)
    assert (trial.state, trial.why) == ("failed", "its ms is no number")


def test_a_full_disk_ends_in_a_clear_word(
    processes: LocalProcesses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Journal(tmp_path / "journal.jsonl") as journal:
        begun = loop(tmp_path, processes, lambda _: {}, journal)
        append = journal.append

        def full(event: str, **values: object) -> None:
            if len(journal.events) == 2:
                raise OSError(28, "No space left on device")
            append(event, **values)

        monkeypatch.setattr(journal, "append", full)
        with pytest.raises(BudgetError, match=r"No space left on device.*same command"):
            begun.run(seconds=300, most=5)
    assert processes.free == 2
    assert len(trials_of(read_journal(tmp_path / "journal.jsonl"))) == 2


_HEAD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_local
from vesalius.tuning.journal import Journal
from vesalius.tuning.local import LocalProcesses
folder = Path(sys.argv[1])
processes = LocalProcesses("toys:toy", slots=2)
def payload(trial):
    seconds = 600 if trial.number >= 2 and trial.attempts == 1 else 0
    return {"deed": "sleep", "seconds": seconds, "count": str(folder / f"begun-{trial.number}")}
with Journal(folder / "journal.jsonl") as journal:
    test_local.loop(folder, processes, payload, journal).run(seconds=300, most=4)
"""


def test_after_kill_9_of_the_head_the_same_call_goes_on(tmp_path: Path) -> None:
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-c", _HEAD, tmp_path, HERE]
    environment = {**os.environ, "PYTHONPATH": path}
    head = subprocess.Popen(command, env=environment)
    end = time.monotonic() + 200
    while not all((tmp_path / f"begun-{n}").exists() for n in (2, 3)):
        assert time.monotonic() < end
        assert head.poll() is None
        time.sleep(0.1)
    head.send_signal(signal.SIGKILL)
    head.wait()
    before = trials_of(read_journal(tmp_path / "journal.jsonl"))
    assert [trial.state for trial in before] == ["done", "done", "running", "running"]
    subprocess.run(command, env=environment, check=True, timeout=200)
    after = trials_of(read_journal(tmp_path / "journal.jsonl"))
    assert [trial.state for trial in after] == ["done"] * 4
    assert after[:2] == before[:2]  # nothing that had ended was done again
    assert [len((tmp_path / f"begun-{n}").read_text()) for n in range(4)] == [1, 1, 2, 2]


def test_a_trial_that_ended_while_the_head_was_dead_is_not_lost(
    processes: LocalProcesses, tmp_path: Path
) -> None:
    processes.submit(Job(0, tmp_path / "0", {"auc": 0.7}))
    wait(processes, 1)
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.append("trial", trial=Trial(0, {"x": 1}, 0).to_json(), clock=5.0)
        begun = loop(tmp_path, processes, lambda _: {"deed": "crash"}, journal)
        (trial,) = begun.run(seconds=300, most=1)
    assert trial.values == {"auc": 0.7}


def test_the_front_and_the_best_keep_their_weights_within_the_disk() -> None:
    goals = (*GOALS, Objective("ms"))
    values = [(0.9, 9), (0.8, 5), (0.85, 9), (0.7, 9), (0.6, 1)]
    trials = [Trial(n, {"x": n}, 0, "done", {"auc": a, "ms": m}) for n, (a, m) in enumerate(values)]
    sizes = dict.fromkeys(range(5), 10)
    assert to_drop(trials, goals, sizes, disk=None, best=1) == [3]
    assert to_drop(trials, goals, sizes, disk=30, best=1) == [3, 2]
    assert sorted(to_drop(trials, goals, sizes, disk=5, best=1)) == [1, 2, 3, 4]
    assert math.isclose(sum(sizes.values()), 50)  # as it was


def test_a_search_whose_time_is_over_changes_nothing(
    processes: LocalProcesses, tmp_path: Path
) -> None:
    with Journal(tmp_path / "journal.jsonl") as journal:
        for number, state in enumerate(("done", "late")):
            values = {"auc": 0.5} if state == "done" else {}
            trial = Trial(number, {"x": number}, 0, state, values)
            journal.append("trial", trial=trial.to_json(), clock=5.0)
        before = list(journal.events)
        trials = loop(tmp_path, processes, lambda _: {}, journal).run(seconds=0)
        assert journal.events == before
    assert [trial.state for trial in trials] == ["done", "late"]
