# SPDX-License-Identifier: Apache-2.0
"""One session of a search, from its folder as it is to its result: the first one, or one more."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vesalius.errors import BudgetError, RunError, UsageError
from vesalius.files import write_json
from vesalius.flows.searching.preparation import SPACE, SPLIT, prepare, refuse_other_data
from vesalius.flows.searching.request import FILE, MINUTES, Asked, read_search
from vesalius.flows.searching.result import CONFIRMED, SearchResult, objectives_of, value_shown
from vesalius.flows.searching.task import of_task
from vesalius.flows.searching.trial import FUNCTION
from vesalius.tuning.asha import Asha, Ladder
from vesalius.tuning.journal import FILE as JOURNAL
from vesalius.tuning.journal import Journal
from vesalius.tuning.keeping import to_drop
from vesalius.tuning.local import LocalProcesses
from vesalius.tuning.loop import Loop, seconds_used
from vesalius.tuning.model_based import ModelBased
from vesalius.tuning.protocol import Job, Proposal, Tuner
from vesalius.tuning.random_search import RandomSearch
from vesalius.tuning.space import Space
from vesalius.tuning.told import Told
from vesalius.tuning.tpe import Tpe
from vesalius.tuning.trial import Trial, excess, rank
from vesalius.types import Json

_WEIGHTS = ("model.safetensors", "trust.safetensors")
# Of the minutes for confirmation and report, or as much as preparation took, and the most of them.
_AT_THE_END, _AT_MOST = 0.04, 0.2
_CORRECTED = 100  # of the best trials, that the winner's score is corrected for
_CGROUP = Path("/sys/fs/cgroup/memory.max")


@dataclass(slots=True)
class Session:
    """See the module.

    Attributes:
        asked: of the search.
        folder: of the search.
        workers: trials at once.
        say: called with the search as it stands.
        command: that began it.
    """

    asked: Asked
    folder: Path
    workers: int
    say: Callable[[SearchResult], None] | None
    command: str

    def run(self, *, started: float, minutes: float | None, most: int | None) -> SearchResult:
        """Search until the minutes are over; see `vesalius.search`.

        Args:
            started: `time.monotonic()` when this session's minutes began.
            minutes: of all sessions together; None for what was asked before, or 60.
            most: trials at most.
        """
        if self.workers < 1:
            raise UsageError(f"workers must be at least 1, got {self.workers}")
        if minutes is not None and not 0 < minutes < 1e6:
            raise UsageError(f"minutes must be positive, got {minutes}")
        setting = self.setting(minutes)
        whole = 60 * (minutes or setting["minutes"])
        reserve = max(_AT_THE_END * whole, setting["preparation_seconds"])
        reserve = min(reserve, _AT_MOST * whole)
        with Journal(self.folder / JOURNAL) as journal:
            loop = self.loop(setting, journal)
            before = seconds_used(journal.events)
            left = whole - reserve - before - (time.monotonic() - started)
            if before == 0 and left <= 0:
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
                result = self._finish(result)
                seconds = round(before + time.monotonic() - started, 3)
                journal.append("session", clock=seconds)
                result = replace(result, seconds=seconds)
        if not result.within:
            raise BudgetError(_beyond(result))
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

    def loop(self, setting: Json, journal: Journal) -> Loop:
        """Return the loop of the search, not begun."""
        space = Space.load(self.folder / SPACE, known=of_task(self.asked.task).NAMES)
        objectives = objectives_of(setting)
        of_trials = self.asked.of_trials((self.folder / SPLIT).absolute())
        steps = setting["steps"]

        def job(trial: Trial) -> Job:
            payload = {
                "search": str(self.folder.absolute()),
                "cohort": self.asked.cohort,
                "asked": of_trials,
                "quality": setting["quality"],
                "device": self.asked.device,
                "parameters": trial.facts.get("smaller", dict(trial.parameters)),
                "steps": steps[trial.rung],
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
            tuner=_tuner(self.asked, space, setting),
            executor=LocalProcesses(FUNCTION, slots=self.workers, memory=_memory(self.workers)),
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

        sizes, seen = {}, set()
        for trial in rank(trials, objectives_of(setting)):
            folder = self.folder / "runs" / trial.plan
            if trial.plan in seen or not (folder / _WEIGHTS[0]).exists():
                continue
            seen.add(trial.plan)
            sizes[trial.number] = sum(
                path.stat().st_size for path in folder.rglob("*") if path.is_file()
            )
        disk = self.asked.disk
        if disk is not None:
            disk = max(1, disk - shared_bytes(self.folder / "shared"))
        for number in to_drop(trials, objectives_of(setting), sizes, disk=disk):
            folder = self.folder / "runs" / trials[number].plan
            shutil.rmtree(folder / "networks", ignore_errors=True)
            for name in _WEIGHTS:
                (folder / name).unlink(missing_ok=True)

    def _finish(self, result: SearchResult) -> SearchResult:
        """Confirm the winner, write its report and that of the search."""
        from vesalius.cohorts import Cohort
        from vesalius.flows.searching.held_out import confirm, correct
        from vesalius.reporting import write_card, write_report
        from vesalius.reporting.search import write_search
        from vesalius.tasks.run import Run
        from vesalius.tuning.importance import importance

        setting, ranked = result.setting, result.ranked
        winner, quality = ranked[0], setting["quality"]
        run = Run.load(result.run_of(winner))
        opened = Cohort.open(self.asked.cohort)
        chosen = opened.filter(self.asked.where) if self.asked.where else opened
        runs = {trial.plan: trial.number for trial in reversed(ranked[:_CORRECTED])}
        found = correct({n: self.folder / "runs" / plan for plan, n in runs.items()}, quality)
        keys = setting["held_out"]
        confirmed = {
            "winner": winner.number,
            "corrected": None if found is None else found.to_json(),
            "held_out": confirm(run, chosen, keys, quality) if keys else None,
        }
        write_card(run.path)
        write_report(run.path, chosen, split="val")
        write_json(self.folder / CONFIRMED, confirmed)
        result = replace(result, confirmed=confirmed)
        space = Space.load(self.folder / SPACE, known=of_task(self.asked.task).NAMES)
        shares = importance(space, result.trials, result.objectives[0])
        content = {**result.to_json(), "setting": setting, "importance": shares}
        return replace(result, report=write_search(content, self.folder))


def _tuner(asked: Asked, space: Space, setting: Json) -> Tuner:
    """Return the tuner that was asked for."""
    objectives, told = objectives_of(setting), Told(asked.seed)
    top = len(setting["steps"]) - 1
    task = of_task(asked.task)
    ladder = Ladder(top + 1, lambda point: task.lowest(point, top))
    if asked.tuner == "random":
        return RandomSearch(space, top, told)
    if asked.tuner == "tpe":
        return Tpe(space, objectives, top, told)
    if asked.tuner == "asha":
        return Asha(space, objectives, ladder, told)
    known = first_proposals(asked.task, space, top)
    known += [
        Proposal(point, task.lowest(point, top), "good in an earlier search")
        for point in setting["first"]
    ]
    return ModelBased(space, objectives, ladder, told, first=known)


def first_proposals(task: str, space: Space, top: int) -> list[Proposal]:
    """Return what is known to be good: what is cheap, the plan made by itself, other networks."""
    known = of_task(task).first(space.parameters[0].values)
    return [
        Proposal(space.defaults(model=model), top if full else 0, why) for model, full, why in known
    ]


def _memory(workers: int) -> int:
    """Return the bytes that each trial may take: the machine's, or the container's, shared out."""
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):  # no control group, or one without a bound
        whole = min(whole, int(_CGROUP.read_text()))
    return int(0.9 * whole / workers)


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
