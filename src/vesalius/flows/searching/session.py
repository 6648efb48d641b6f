# SPDX-License-Identifier: Apache-2.0
"""One session of a search, from its folder as it is to its result: the first one, or one more."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vesalius.errors import BudgetError, RunError, UsageError
from vesalius.flows.searching.artifacts import Artifacts, InFolder, artifacts_of
from vesalius.flows.searching.ending import finish, seconds_needed
from vesalius.flows.searching.machines import Machines, open_events, storage_of
from vesalius.flows.searching.preparation import SPACE, SPLIT, prepare, refuse_other_data
from vesalius.flows.searching.request import FILE, MINUTES, Asked, read_search
from vesalius.flows.searching.result import CONFIRMED, SearchResult, objectives_of, value_shown
from vesalius.flows.searching.task import of_task
from vesalius.flows.searching.trial import FUNCTION
from vesalius.flows.searching.tuners import tuner_of
from vesalius.tuning.keeping import to_drop
from vesalius.tuning.loop import Loop, seconds_used
from vesalius.tuning.protocol import EventLog, Executor, Job
from vesalius.tuning.space import Space
from vesalius.tuning.trial import Trial, excess, rank
from vesalius.types import Json

_AT_THE_END, _AT_MOST = 0.04, 0.4  # of the minutes for confirmation and report, and the most


@dataclass(slots=True)
class Session:
    """See the module.

    Attributes:
        asked: of the search.
        folder: of the search.
        machines: that it runs on.
        say: called with the search as it stands.
        command: that began it.
    """

    asked: Asked
    folder: Path
    machines: Machines
    say: Callable[[SearchResult], None] | None
    command: str
    _artifacts: Artifacts = field(default_factory=InFolder)
    _light: set[str] = field(default_factory=set)  # plans whose weights are gone

    def run(self, *, started: float, minutes: float | None, most: int | None) -> SearchResult:
        """Search until the minutes are over; see `vesalius.search`.

        Args:
            started: `time.monotonic()` when this session's minutes began.
            minutes: of all sessions together; None for what was asked before, or 60.
            most: trials at most.
        """
        self.machines.check()
        if minutes is not None and not 0 < minutes < 1e6:
            raise UsageError(f"minutes must be positive, got {minutes}")
        shared = (self.machines.artifacts or storage_of(self.folder)["artifacts"]) is None
        executor = self.machines.executor(FUNCTION, shared=shared)
        with contextlib.closing(executor):
            result = self._searched(executor, started, minutes, most)
        if not result.within:
            raise BudgetError(_beyond(result))
        return result

    def _searched(
        self, executor: Executor, started: float, minutes: float | None, most: int | None
    ) -> SearchResult:
        """Return the search as it ends, see `run`."""
        setting = self.setting(minutes)
        whole = 60 * (minutes or setting["minutes"])
        storage = self.machines.keep(self.folder)
        self._artifacts = artifacts_of(storage)
        self._artifacts.begin(self.folder)
        with open_events(self.folder) as journal:
            loop = self.loop(setting, journal, executor)
            before = seconds_used(journal.events)
            loop.reserve = lambda trials: min(
                _AT_MOST * whole, max(_AT_THE_END * whole, seconds_needed(setting, trials))
            )
            left = whole - before - (time.monotonic() - started)
            if before == 0 and left <= loop.reserve(()):
                raise BudgetError(
                    f"preparation alone took {time.monotonic() - started:.0f} s of the "
                    f"{whole:.0f}; give more --minutes"
                )
            known = len(journal.events)
            trials = loop.run(seconds=max(0.0, left), most=most, started=started)
            seconds = before + time.monotonic() - started
            result = SearchResult(self.folder, setting, tuple(trials), seconds)
            if not result.ranked:
                raise RunError(_nothing(trials))
            if len(journal.events) == known and (self.folder / CONFIRMED).exists():
                result = SearchResult.load(self.folder)  # nothing was left to try
            else:
                result = finish(result, self._artifacts)
                seconds = round(before + time.monotonic() - started, 3)
                journal.append("session", clock=seconds)
                result = replace(result, seconds=seconds)
        return result

    def setting(self, minutes: float | None) -> Json:
        """Return what `search.json` holds, written now or before."""
        if not (self.folder / FILE).exists():
            command = self.command or f"vesalius.search({self.asked.task!r}, …)"
            whole = MINUTES if minutes is None else minutes
            return prepare(self.asked, self.folder, minutes=whole, command=command)
        setting = read_search(self.folder)
        changed = self.asked.differing(Asked.from_json(setting["asked"]))
        if changed:
            raise RunError(
                f"'{self.folder}' holds another search (different: {', '.join(changed)}); choose "
                "another --out, or --resume it as it is"
            )
        refuse_other_data(setting)
        return setting

    def loop(self, setting: Json, journal: EventLog, executor: Executor) -> Loop:
        """Return the loop of the search, not begun."""
        space = Space.load(self.folder / SPACE, known=of_task(self.asked.task).NAMES)
        objectives = objectives_of(setting)
        of_trials = self.asked.of_trials((self.folder / SPLIT).absolute())
        steps, storage = setting["steps"], storage_of(self.folder)

        def job(trial: Trial) -> Job:
            payload = {
                "search": str(self.folder.absolute()),
                "cohort": self.asked.cohort,
                "asked": of_trials,
                "quality": setting["quality"],
                "device": self.asked.device,
                "parameters": trial.facts.get("smaller", dict(trial.parameters)),
                "steps": steps[trial.rung],
                "artifacts": storage,
            }
            return Job(trial.number, self.folder / "trials" / f"{trial.number:05}", payload)

        def changed(trials: Sequence[Trial], number: int) -> None:
            if trials[number].done:
                self._trim(trials, setting)
            if self.say is not None:
                self.say(
                    SearchResult(
                        self.folder, setting, tuple(trials), seconds_used(journal.events[-1:])
                    )
                )

        return Loop(
            tuner=tuner_of(self.asked, space, setting),
            executor=executor,
            journal=journal,
            objectives=objectives,
            job=job,
            smaller=of_task(self.asked.task).smaller,
            like=of_task(self.asked.task).like,
            changed=changed,
        )

    def _trim(self, trials: Sequence[Trial], setting: Json) -> None:
        """Remove weights of trials that are neither among the best nor on the front."""
        from vesalius.flows.searching.shared_views import shared_bytes

        sizes: dict[int, int] = {}
        for trial in rank(trials, objectives_of(setting)):
            known = {trials[number].plan for number in sizes}
            if trial.plan not in known and trial.plan not in self._light:
                size = self._artifacts.size(self.folder / "runs" / trial.plan)
                if size:
                    sizes[trial.number] = size
                else:
                    self._light.add(trial.plan)
        disk = self.asked.disk
        if disk is not None:
            disk = max(1, disk - shared_bytes(self.folder / "shared"))
        for number in to_drop(trials, objectives_of(setting), sizes, disk=disk):
            plan = trials[number].plan
            self._artifacts.drop_weights(self.folder / "runs" / plan)
            self._light.add(plan)


def _nothing(trials: Sequence[Trial]) -> str:
    ended = [trial for trial in trials if trial.why and trial.state != "running"]
    last = f"; the last one says: {ended[-1].why}" if ended else ""
    return f"no trial of {len(trials)} came to its end{last}; give more --minutes"


def _beyond(result: SearchResult) -> str:
    best = result.ranked[0]
    over = [
        f"{o.name} {value_shown(o, best.values[o.name])} (at most {value_shown(o, o.limit)})"
        for o in result.objectives
        if o.limit is not None and o.excess(best.values[o.name])
    ]
    assert excess(best, result.objectives)  # noqa: S101 - that is why it is said
    return (
        f"none of {len(result.ranked)} trials keeps the limits; the nearest, trial {best.number}, "
        f"has {', '.join(over)}: allow more, or search longer; all of them: "
        f"`vesalius leaderboard {result.path}`"
    )
