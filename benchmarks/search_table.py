# SPDX-License-Identifier: Apache-2.0
"""Record finished trials with their learning curves, so that searches can be replayed in seconds.

    python -m benchmarks.search_table COHORT --out benchmarks/tables/NAME.json --points 100

draws points of the space that the cohort's data allow, tries each at every rung, and writes the
table; killed, the same command goes on. The work lies in a folder beside the table until then.

A table holds `space`, `steps` of each rung, `objectives` (the first one is the quality), `trials`
(`parameters`, `rung`, `values`, `seconds`, `curve`), and the command that made it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import command, machine, versions
from vesalius.flows.searching.machines import Machines
from vesalius.flows.searching.request import Asked
from vesalius.flows.searching.session import Session
from vesalius.flows.searching.trial import FUNCTION
from vesalius.tuning.journal import FILE, Journal
from vesalius.tuning.protocol import Proposal
from vesalius.tuning.space import Space
from vesalius.tuning.trial import Trial

FORMAT = "trials 1"


class Everything:
    """A tuner that wants each of some points at every rung that makes sense, the dear ones last."""

    def __init__(self, space: Space, points: int, rungs: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        models = space.parameters[0].values
        drawn = [space.defaults(model=model) for model in models]
        drawn += [space.draw(rng) for _ in range(points)]
        top = rungs - 1
        self.wanted = [
            Proposal(point, rung, "recorded")
            for point in drawn[:points]
            for rung in ([top] if point["model"] == "frozen" else range(rungs))
        ]
        self.known: set[tuple[str, int]] = set()

    def ask(self) -> Proposal | None:
        """Return the next one that was not begun."""
        for proposal in self.wanted:
            if (Trial(0, proposal.parameters, 0).key, proposal.rung) not in self.known:
                return proposal
        return None

    def tell(self, trial: Trial) -> None:
        """Take note of one that began."""
        self.known.add((trial.key, trial.rung))


def table_of(space: Space, setting: dict[str, Any], trials: list[Trial]) -> dict[str, Any]:
    """Return the table of the trials that are done."""
    return {
        "format": FORMAT,
        "space": space.to_json(),
        "steps": setting["steps"],
        "objectives": [setting["quality"], "latency", "memory", "size"],
        "trials": [
            {
                "parameters": dict(trial.parameters),
                "rung": trial.rung,
                "values": {name: _short(value) for name, value in trial.values.items()},
                "seconds": round(trial.facts["seconds"], 2),
                "curve": [[x, _short(y)] for x, y in trial.curve],
            }
            for trial in trials
            if trial.done
        ],
    }


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def record_table() -> None:
    """Record as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--points", type=int, default=100)
    parser.add_argument("--steps", type=int, default=270)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    asked = Asked(
        task="classify", cohort=str(options.cohort.absolute()), steps=options.steps,
        seed=options.seed,
    )  # fmt: skip
    folder = options.out.with_suffix(".search")
    machines = Machines(workers=options.workers)
    session = Session(asked, folder, machines, say=None, command=command())
    setting = session.setting(60 * options.hours)
    space = Space.load(folder / "space.json")
    with Journal(folder / FILE) as journal:
        loop = session.loop(setting, journal, machines.executor(FUNCTION, shared=True))
        loop.tuner = Everything(space, options.points, len(setting["steps"]), options.seed)
        trials = loop.run(seconds=3600 * options.hours)
    table = table_of(space, setting, trials)
    table |= {"command": command(), "machine": machine(), "versions": versions()}
    options.out.write_text(json.dumps(table, separators=(",", ":"), allow_nan=False) + "\n")
    print(f"{len(table['trials'])} trials in {options.out}")


if __name__ == "__main__":
    record_table()
