# SPDX-License-Identifier: Apache-2.0
"""The loop of a search: ask, begin, wait, write down; faults are normal and stop nothing.

Every step is in the journal before anything follows from it, so that a search which was killed goes
on with the same call: what had ended is taken over, what was running is begun again.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from vesalius.errors import BudgetError, RunError
from vesalius.tuning.process import finished_before
from vesalius.tuning.protocol import EventLog, Executor, Job, Outcome, Tuner
from vesalius.tuning.trial import Objective, Trial
from vesalius.types import Json

_WAIT = 0.5  # seconds between looks at the clock
ATTEMPTS = 3  # of a trial whose process is killed
_HOPELESS = 6  # trials that all came to nothing, after which a search ends


def trials_of(events: Iterable[Json]) -> list[Trial]:
    """Return the trials of a journal, by number."""
    held: dict[int, Trial] = {}
    for event in events:
        if event["event"] == "trial":
            trial = Trial.from_json(event["trial"])
            held[trial.number] = trial
    return [held[number] for number in sorted(held)]


def seconds_used(events: Iterable[Json]) -> float:
    """Return the wall seconds that a journal's searches took before, all together."""
    return max((event["clock"] for event in events if "clock" in event), default=0.0)


@dataclass(slots=True, kw_only=True)
class Loop:
    """A search under way.

    Attributes:
        tuner: that was told nothing yet.
        executor: free.
        journal: open to be written.
        objectives: whose values each result must hold.
        job: a trial -> its job; of a trial with `facts["smaller"]` with these parameters.
        smaller: parameters -> parameters that take less memory, None where there are none.
        like: parameters -> a text that is equal where trials take about as long.
        changed: called with all trials and the number of the one that changed.
        reserve: called with all trials whenever one ended; seconds of the time given that are
            to be left over.
        trials: known so far.
    """

    tuner: Tuner
    executor: Executor
    journal: EventLog
    objectives: Sequence[Objective]
    job: Callable[[Trial], Job]
    smaller: Callable[[Json], Json | None]
    like: Callable[[Json], str] = lambda _: ""
    changed: Callable[[Sequence[Trial], int], None] = lambda _, __: None
    reserve: Callable[[Sequence[Trial]], float] = lambda _: 0.0
    trials: list[Trial] = field(default_factory=list)
    _submitted: set[int] = field(default_factory=set)
    _before: float = 0.0  # seconds of earlier sessions
    _begun: float = 0.0

    def run(
        self, *, seconds: float, most: int | None = None, started: float | None = None
    ) -> list[Trial]:
        """Search until the time is over, or nothing is left to try; return all trials.

        Args:
            seconds: of wall time from now, what is reserved included; what runs at their end is
                ended.
            most: trials, those of earlier sessions included.
            started: `time.monotonic()` from when on time counts as used; default now.

        Raises:
            RunError: the first trials all came to nothing. BudgetError: the disk is full.
        """
        end = time.monotonic() + seconds
        self._begun = time.monotonic() if started is None else started
        self._before = seconds_used(self.journal.events)
        try:
            self._take_over(go_on=seconds > 0)
            kept = self.reserve(self.trials)
            while True:
                left = end - kept - time.monotonic()
                if left > 0:
                    self._begin_more(left, most)
                else:
                    self._cancel_all()
                if not self._running():
                    return self.trials
                for outcome in self.executor.poll(min(_WAIT, max(0.02, left))):
                    self._end(outcome, left=end - kept - time.monotonic())
                    kept = self.reserve(self.trials)
                self._refuse_hopeless()
        finally:
            self.executor.close()

    def _running(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.state == "running"]

    def _take_over(self, *, go_on: bool) -> None:
        """Learn the trials of the journal; begin again what was running, or came too late.

        Where the search is not to go on, what had come too late stays so.
        """
        self.trials = trials_of(self.journal.events)
        for trial in self.trials:
            self.tuner.tell(trial)
        for trial in [t for t in self.trials if t.state in ("running", "late")]:
            before = finished_before(self.job(trial).folder) if trial.state == "running" else None
            if before is not None:
                self._end(replace(before, number=trial.number), left=math.inf)
            elif go_on or trial.state == "running":
                self._write(replace(trial, state="running", attempts=trial.attempts + 1))

    def _begin_more(self, left: float, most: int | None) -> None:
        """Begin what fits into the seconds left, what was begun before first."""
        waiting = [t for t in self._running() if t.number not in self._submitted]
        while self.executor.free:
            if waiting:
                self._submit(waiting.pop(0))
                continue
            if most is not None and len(self.trials) >= most:
                return
            proposal = self.tuner.ask()
            if proposal is None or self._expected(proposal.parameters, proposal.rung) > left:
                return
            number = len(self.trials)
            trial = Trial(number, proposal.parameters, proposal.rung, why=proposal.why)
            self._write(trial)
            self._submit(trial)

    def _submit(self, trial: Trial) -> None:
        self._submitted.add(trial.number)
        self.executor.submit(self.job(trial))

    def _cancel_all(self) -> None:
        for trial in self._running():
            if trial.number in self._submitted:
                self.executor.cancel(trial.number)
            else:
                self._write(replace(trial, state="late", why="the time was over"))

    def _end(self, outcome: Outcome, *, left: float) -> None:
        """Write down how an attempt ended, and begin another one where that makes sense."""
        self._submitted.discard(outcome.number)
        trial = self.trials[outcome.number]
        trial = replace(trial, seconds=trial.seconds + outcome.seconds)
        if outcome.ending == "done":
            self._write(_finished(trial, outcome.result, self.objectives))
        elif outcome.ending == "memory" and "smaller" not in trial.facts:
            smaller = self.smaller(dict(trial.parameters))
            if smaller is None:
                self._write(replace(trial, state="pruned", why=f"memory: {outcome.reason}"))
                return
            facts = {**trial.facts, "smaller": smaller}
            self._write(replace(trial, facts=facts, attempts=trial.attempts + 1))
        elif outcome.ending == "killed" and trial.attempts < ATTEMPTS and left > 0:
            self._write(replace(trial, attempts=trial.attempts + 1))
        elif outcome.ending == "cancelled":
            self._write(replace(trial, state="late", why=outcome.reason))
        else:
            pruned = outcome.ending in ("memory", "refused")
            why = f"memory: {outcome.reason}" if outcome.ending == "memory" else outcome.reason
            self._write(replace(trial, state="pruned" if pruned else "failed", why=why))

    def _write(self, trial: Trial) -> None:
        """Put a trial's new state into the journal, then everywhere else."""
        clock = self._before + time.monotonic() - self._begun
        try:
            self.journal.append("trial", trial=trial.to_json(), clock=round(clock, 3))
        except OSError as error:
            raise BudgetError(
                f"the search cannot be written down ({error.strerror or error}); free some disk "
                "space, then the same command goes on where this stopped"
            ) from error
        if trial.number == len(self.trials):
            self.trials.append(trial)
        else:
            self.trials[trial.number] = trial
        self.tuner.tell(trial)
        self.changed(self.trials, trial.number)

    def _expected(self, parameters: Json, rung: int) -> float:
        """Return the seconds that a trial will take, about; 0 where nothing is known."""
        like = self.like(parameters)
        of = [t for t in self.trials if t.done and self.like(dict(t.parameters)) == like]
        same = [t.seconds for t in of if t.rung == rung]
        if same:
            return statistics.median(same)
        return max((t.seconds for t in of if t.rung < rung), default=0.0)

    def _refuse_hopeless(self) -> None:
        ended = [t for t in self.trials if t.state in ("pruned", "failed")]
        if len(ended) >= _HOPELESS and not any(t.done for t in self.trials):
            raise RunError(
                f"the first {len(ended)} trials all came to nothing; the last one says: "
                f"{ended[-1].why}"
            )


def _finished(trial: Trial, result: Any, objectives: Sequence[Objective]) -> Trial:
    """Return the trial with what its job returned."""
    values = {name: float(value) for name, value in result["values"].items()}
    for objective in objectives:
        if not math.isfinite(values.get(objective.name, math.nan)):
            return replace(trial, state="failed", why=f"its {objective.name} is no number")
    return replace(
        trial,
        state="done",
        values=values,
        plan=result.get("plan", ""),
        curve=tuple((x, y) for x, y in result.get("curve", ())),
        facts={**trial.facts, **result.get("facts", {})},
    )
