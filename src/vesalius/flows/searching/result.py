# SPDX-License-Identifier: Apache-2.0
"""SearchResult: a search as it stands, or ended; for people, for machines, for its report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from vesalius.errors import RunError
from vesalius.files import read_json
from vesalius.tuning.loop import seconds_used, trials_of
from vesalius.tuning.pareto import front
from vesalius.tuning.trial import Objective, Trial, excess, rank
from vesalius.types import Json, PathLike

CONFIRMED = "confirmed.json"


@dataclass(frozen=True, slots=True)
class SearchResult:
    """A search.

    Attributes:
        path: its folder.
        setting: what `search.json` holds: `asked`, `quality`, `steps` by rung, `audit`, ….
        trials: all of them, by number.
        seconds: of wall time so far.
        confirmed: of an ended search: `winner` (trial number), `corrected` (its score on validation
            cases without the flattery of having been chosen) and `held_out` (its score on cases
            that no trial saw), each None where it cannot be had.
        report: path of the HTML page, once it is written.
    """

    path: Path
    setting: Json
    trials: tuple[Trial, ...]
    seconds: float
    confirmed: Json | None = None
    report: Path | None = None

    @classmethod
    def load(cls, path: PathLike) -> Self:
        """Read a search's folder, whether it runs, rests or has ended.

        Raises:
            RunError: it is none, or its journal is damaged.
            UnavailableError: its journal is in a database that does not answer.
        """
        from vesalius.flows.searching.machines import read_events
        from vesalius.flows.searching.request import read_search

        folder = Path(path)
        setting = read_search(folder)
        events = read_events(folder)
        done = folder / CONFIRMED
        page = folder / "report.html"
        return cls(
            folder,
            setting,
            tuple(trials_of(events)),
            seconds_used(events),
            read_json(done) if done.exists() else None,
            page if page.exists() else None,
        )

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What is measured of each trial, the quality first."""
        return objectives_of(self.setting)

    @property
    def ranked(self) -> list[Trial]:
        """The trials that are done, best first."""
        return rank(self.trials, self.objectives)

    @property
    def front(self) -> list[Trial]:
        """The trials that nothing beats in quality, latency, memory and size together."""
        return front(self.trials, self.objectives)

    @property
    def within(self) -> bool:
        """Whether the best trial keeps the limits."""
        best = self.ranked
        return bool(best) and not excess(best[0], self.objectives)

    def run_of(self, trial: Trial) -> Path:
        """Return the folder of a trial's run."""
        if not trial.plan:
            raise RunError(f"trial {trial.number} has no run: {trial.why}")
        return self.path / "runs" / trial.plan

    def to_json(self) -> Json:
        """Return all of it, for machines."""
        names = [trial.number for trial in self.front]
        best = self.ranked
        return {
            "path": str(self.path),
            "task": self.setting["asked"]["task"],
            "seconds": round(self.seconds, 1),
            "objectives": [o.name for o in self.objectives],
            "best": self.row(best[0]) if best else None,
            "front": names,
            "within_limits": self.within,
            "confirmed": self.confirmed,
            "trials": [self.row(trial) for trial in self.trials],
        }

    def row(self, trial: Trial) -> Json:
        """Return one trial for machines."""
        held = trial.to_json()
        held["run"] = f"runs/{trial.plan}" if trial.plan else ""
        held["steps"] = self.setting["steps"][trial.rung]
        held["weights"] = bool(trial.plan) and (self.run_of(trial) / "model.safetensors").exists()
        return held

    def lines(self) -> Iterator[str]:
        """Yield what an ended search found, for people."""
        states = [trial.state for trial in self.trials]
        counts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
        yield f"trials: {len(states)} ({', '.join(counts)}) in {self.seconds / 60:.1f} minutes"
        if not (ranked := self.ranked):
            return
        best, quality = ranked[0], self.objectives[0].name
        yield f"best:   trial {best.number}, {shown(best, self.objectives)}"
        yield f"        {described(best)}"
        if self.confirmed is None:
            return
        found, held = self.confirmed["corrected"], self.confirmed["held_out"]
        if found is not None and found["trials"] > 1:
            yield (
                f"        {quality} on validation {found['raw']:.3f}; as the best of "
                f"{found['trials']} it is worth {found['value']:.3f} "
                f"[{found['low']:.3f}, {found['high']:.3f}]"
            )
        if held is not None:
            from vesalius.results import Estimate

            yield f"        on cases that no trial saw: {Estimate(**held)}"
        yield f"run:    {self.run_of(best)}"


def objectives_of(setting: Json) -> tuple[Objective, ...]:
    """Return the objectives of a search, the quality first."""
    asked = setting["asked"]
    return (
        Objective(setting["quality"], maximize=True),
        Objective("latency", limit=asked["max_latency"], unit="s"),
        Objective("memory", limit=asked["max_memory"], unit="bytes"),
        Objective("size", limit=asked["max_size"], unit="bytes"),
    )


def shown(trial: Trial, objectives: Sequence[Objective]) -> str:
    """Return a trial's values in a line."""
    return ", ".join(f"{o.name} {value_shown(o, trial.values[o.name])}" for o in objectives)


def value_shown(objective: Objective, value: float) -> str:
    """Return one value with its unit, for people."""
    if objective.unit == "s":
        return f"{1000 * value:,.1f} ms"
    if objective.unit == "bytes":
        return f"{value / 1e6:,.1f} MB"
    return f"{value:.4f}"


def described(trial: Trial) -> str:
    """Return a trial's parameters in a line."""

    def text(value: object) -> str:
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    held = trial.facts.get("smaller", trial.parameters)
    return ", ".join(f"{name} {text(value)}" for name, value in held.items())
