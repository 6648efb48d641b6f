# SPDX-License-Identifier: Apache-2.0
"""The simulator against searches that ran, then what it predicts for up to 1,000 workers.

    python -m benchmarks.simulate [--search SEARCH]

Costs are learned from the journal of a search of toy trials with one worker; another search with
one worker and one with two are predicted from it and run. With `--search` the table of workers is
that of the trials of a real search; without, of the toys.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.record import record
from vesalius.tuning.asha import Asha, Ladder
from vesalius.tuning.journal import FILE, Journal
from vesalius.tuning.local import LocalProcesses
from vesalius.tuning.loop import Loop, seconds_used
from vesalius.tuning.protocol import Job
from vesalius.tuning.simulate import Costs, Prediction, costs_of, simulate
from vesalius.tuning.space import Space
from vesalius.tuning.told import Told
from vesalius.tuning.trial import Objective, Trial
from vesalius.types import Json

GOALS = (Objective("auc", maximize=True),)
SPACE = Space.from_json(
    {"format": "space 1", "parameters": {"x": {"kind": "float", "low": 0, "high": 1}}}
)
RUNGS = 3
WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
SEEDS = 20  # of each prediction


def run(folder: Path, workers: int, trials: int, seconds: float, seed: int) -> list[Trial]:
    """Search for real."""

    def job(trial: Trial) -> Job:
        payload = {"x": trial.parameters["x"], "rung": trial.rung, "seconds": seconds}
        return Job(trial.number, folder / "trials" / str(trial.number), payload)

    with Journal(folder / FILE) as journal:
        found = Loop(
            tuner=Asha(SPACE, GOALS, Ladder(RUNGS), Told(seed)),
            executor=LocalProcesses("benchmarks.toy_trials:sleep", slots=workers, threads=1),
            journal=journal,
            objectives=GOALS,
            job=job,
            smaller=lambda _: None,
        ).run(seconds=3600, most=trials)
    if not all(trial.done for trial in found):
        raise SystemExit("a toy trial failed")
    return found


def timed(folder: Path, workers: int, trials: int, seconds: float, seed: int) -> float:
    """Return the wall seconds of a real search."""
    begun = time.monotonic()
    run(folder, workers, trials, seconds, seed)
    return time.monotonic() - begun


def median(costs: Costs, workers: int, trials: int) -> Prediction:
    """Return the prediction whose wall time is the median of some seeds."""
    found = [simulate(costs, workers=workers, trials=trials, seed=seed) for seed in range(SEEDS)]
    middle = statistics.median_low(one.seconds for one in found)
    return next(one for one in found if one.seconds == middle)


def costs_from(search: Path) -> Costs:
    """Return the costs of the trials of a search's folder."""
    from vesalius.flows.searching.machines import read_events
    from vesalius.flows.searching.result import SearchResult

    result = SearchResult.load(search)
    wall = seconds_used(e for e in read_events(search) if e["event"] == "trial")
    return costs_of(result.trials, len(result.setting["steps"]), wall=wall)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=90, help="of each real search")
    parser.add_argument("--seconds", type=float, default=0.3, help="of a toy on the lowest rung")
    parser.add_argument("--many", type=int, default=20_000, help="trials of the table of workers")
    parser.add_argument("--search", type=Path, help="folder of a search with one worker")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as held:
        folder = Path(held)
        begun = time.monotonic()
        trials = run(folder / "learned", 1, options.trials, options.seconds, 0)
        costs = costs_of(trials, RUNGS, wall=time.monotonic() - begun)
        real = {
            workers: timed(
                folder / f"real-{workers}", workers, options.trials, options.seconds, workers
            )
            for workers in (1, 2)
        }
    predicted = {workers: median(costs, workers, options.trials).seconds for workers in real}
    off = {workers: abs(predicted[workers] / real[workers] - 1) for workers in real}
    table = costs if options.search is None else costs_from(options.search)
    rows: list[Json] = [
        {"workers": workers, "real_seconds": round(real[workers], 1),
         "predicted_seconds": round(predicted[workers], 1)}
        for workers in real
    ]  # fmt: skip
    for workers in WORKERS:
        found = median(table, workers, options.many)
        rows.append(
            {
                "workers": workers,
                "trials": options.many,
                "predicted_hours": round(found.seconds / 3600, 3),
                "paid_worker_hours": round(found.paid / 3600, 2),
                "busy_share": round(found.busy / found.paid, 3),
                "head_share": round(found.head / found.seconds, 3),
            }
        )
    record(
        "simulate",
        {
            "title": "Search: predicted for many workers",
            "what": "Wall time predicted from the journal of a search with one worker, against "
            "searches that ran; then what 20,000 trials would take on more workers.",
            "data": f"{options.trials} toy trials of {options.seconds:g}, {3 * options.seconds:g} "
            f"and {9 * options.seconds:g} s in the middle; "
            f"the table: {'the toys' if options.search is None else 'a real search'}",
            "unit": "seconds",
            "costs": {"rungs": list(table.rungs), "head": table.head, "failing": table.failing},
            "bars": [
                {"bar": f"predicted wall time of {workers} worker(s), off by", "target": "<= 10 %",
                 "measured": f"{100 * share:.1f} %", "met": share <= 0.1}
                for workers, share in off.items()
            ],
            "rows": rows,
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
