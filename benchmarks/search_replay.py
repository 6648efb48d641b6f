# SPDX-License-Identifier: Apache-2.0
"""Searcher against searcher over recorded trials: how soon each reaches what random search finds.

    python -m benchmarks.search_replay [--seeds 100] [TABLE …]

A replay tries nothing: a tuner asks for a point, the recorded point that is nearest to it and was
not tried yet is taken in its place, and the clock goes on by the seconds that it took. All tuners
are replayed alike. The quality to be reached is the median of what random search finds in 60
replayed minutes; a search that does not reach it counts as one that never does.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import record
from vesalius.flows.searching.tuners import first_proposals
from vesalius.tuning.asha import Asha, Ladder
from vesalius.tuning.model_based import ModelBased
from vesalius.tuning.protocol import Proposal, Tuner
from vesalius.tuning.random_search import RandomSearch
from vesalius.tuning.space import Space, key_of
from vesalius.tuning.told import Told
from vesalius.tuning.tpe import Tpe
from vesalius.tuning.trial import Objective, Trial

TABLES = Path(__file__).parent / "tables"
MINUTES = 60.0
GOAL = 1 / 6  # of random search's time


class Table:
    """Recorded trials, by point and rung."""

    def __init__(self, held: dict[str, Any]) -> None:
        self.space = Space.from_json(held["space"])
        self.top = len(held["steps"]) - 1
        self.quality, *costs = held["objectives"]
        self.objectives = (Objective(self.quality, maximize=True), *map(Objective, costs))
        self.trials = {(key_of(t["parameters"]), t["rung"]): t for t in held["trials"]}
        self.points = {key_of(t["parameters"]): t["parameters"] for t in held["trials"]}
        self.keys = list(self.points)
        self.encoded = np.stack([self.space.encode(p) for p in self.points.values()])

    def lowest(self, point: dict[str, Any]) -> int:
        """Return the first rung that was recorded of a point."""
        return self.top if point["model"] == "frozen" else 0

    def take(self, proposal: Proposal, tried: set[tuple[str, int]]) -> tuple[str, int] | None:
        """Return the nearest recorded trial of the rung asked for that was not tried yet."""
        distance = np.linalg.norm(self.encoded - self.space.encode(proposal.parameters), axis=1)
        for place in distance.argsort():
            found = (self.keys[place], proposal.rung)
            if found in self.trials and found not in tried:
                return found
        return None


def replay(table: Table, tuner: Tuner, seconds: float) -> list[tuple[float, float]]:
    """Return `(seconds, best quality so far)` after each replayed trial."""
    clock, best = 0.0, -np.inf
    tried: set[tuple[str, int]] = set()
    path: list[tuple[float, float]] = []
    while clock < seconds and (proposal := tuner.ask()) is not None:
        found = table.take(proposal, tried)
        if found is None:  # all that was recorded at this rung was tried
            break
        tried.add(found)
        held = table.trials[found]
        tuner.tell(Trial(len(path), proposal.parameters, proposal.rung))
        clock += held["seconds"]
        tuner.tell(
            Trial(len(path), table.points[found[0]], found[1], "done", held["values"],
                  held["seconds"])
        )  # fmt: skip
        best = max(best, held["values"][table.quality])
        path.append((clock, best))
    return path


def tuners(table: Table) -> dict[str, Callable[[int], Tuner]]:
    """Return what is replayed."""
    space, top, objectives = table.space, table.top, table.objectives
    ladder = Ladder(top + 1, table.lowest)
    first = first_proposals("classify", space, top)
    return {
        "random": lambda seed: RandomSearch(space, top, Told(seed)),
        "tpe": lambda seed: Tpe(space, objectives, top, Told(seed)),
        "asha": lambda seed: Asha(space, objectives, ladder, Told(seed)),
        "ours": lambda seed: ModelBased(space, objectives, ladder, Told(seed), first),
    }


def reached(path: list[tuple[float, float]], quality: float) -> float:
    """Return the first second at which a quality is reached; infinite where it never is."""
    return next((clock for clock, best in path if best >= quality), float("inf"))


def compare(table: Table, seeds: int) -> dict[str, Any]:
    """Return the quality to be reached and each tuner's median minutes until then."""
    paths = {
        name: [replay(table, make(seed), 60 * MINUTES) for seed in range(seeds)]
        for name, make in tuners(table).items()
    }
    goal = statistics.median_low(path[-1][1] for path in paths["random"])
    rows: dict[str, Any] = {"quality": goal, "trials": len(table.trials)}
    for name, some in paths.items():
        minutes = [reached(path, goal) / 60 for path in some]
        middle = statistics.median_low(minutes)
        rows[name] = {
            "median_minutes": None if middle == float("inf") else round(middle, 2),
            "reached": sum(m < float("inf") for m in minutes) / seeds,
        }
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", type=Path, nargs="*", default=sorted(TABLES.glob("*.json")))
    parser.add_argument("--seeds", type=int, default=100)
    options = parser.parse_args()
    if not options.tables:
        raise SystemExit("no table is recorded; make one with `python -m benchmarks.search_table`")
    bars, rows = [], []
    for path in options.tables:
        found = compare(Table(json.loads(path.read_text())), options.seeds)
        rows += [
            {"set": path.stem, "searcher": name, "quality": round(found["quality"], 4), **held}
            for name, held in found.items()
            if isinstance(held, dict)
        ]
        ours = found["ours"]["median_minutes"]
        share = None if ours is None else ours / MINUTES
        bars.append(
            {
                "bar": f"{path.stem}: minutes to what random search finds in 60",
                "target": f"<= {GOAL * MINUTES:.0f}",
                "measured": ours,
                "met": share is not None and share <= GOAL,
            }
        )
    record(
        "search_replay",
        {
            "title": "Search: replayed",
            "what": "Time until a search has what random search finds in 60 minutes, replayed over "
            "recorded trials.",
            "data": ", ".join(path.stem for path in options.tables),
            "unit": "replayed minutes, median over seeds",
            "peer": "random search, Optuna's TPE, ASHA, behind the same interface",
            "bars": bars,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
