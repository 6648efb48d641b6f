# SPDX-License-Identifier: Apache-2.0
"""kill -9 at random moments of searches; the same call must finish each, and lose nothing.

    python -m benchmarks.search_crash [--kills 50]

A search of short trials, two at once, is begun again and again with the same call until it is
complete, and its head (two of three times) or one of its workers is killed at a random moment.
After every kill the journal must be whole, and each trial that had ended must stand in it as
before. What a complete search found must be what its trials say by themselves.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.record import record
from vesalius.tuning.asha import Asha, Ladder
from vesalius.tuning.journal import FILE, Journal, read_journal
from vesalius.tuning.local import LocalProcesses
from vesalius.tuning.loop import Loop, trials_of
from vesalius.tuning.protocol import Job
from vesalius.tuning.space import Space
from vesalius.tuning.told import Told
from vesalius.tuning.trial import Objective, Trial
from vesalius.types import Json

TRIALS = 12
GOALS = (Objective("auc", maximize=True),)
SPACE = Space.from_json(
    {"format": "space 1", "parameters": {"x": {"kind": "float", "low": 0, "high": 1}}}
)


def quality(x: float, rung: int) -> float:
    return 1 - (x - 0.3) ** 2 - 0.1 * (1 - rung)


def toy(payload: Json) -> Json:
    """Be a trial: take a moment, return what its point is worth."""
    time.sleep(payload["seconds"])
    return {"values": {"auc": quality(payload["x"], payload["rung"])}}


def search(folder: Path) -> None:
    """Begin a search, or go on with it."""

    def job(trial: Trial) -> Job:
        payload = {"x": trial.parameters["x"], "rung": trial.rung, "seconds": 0.2}
        return Job(trial.number, folder / "trials" / str(trial.number), payload)

    with Journal(folder / FILE) as journal:
        Loop(
            tuner=Asha(SPACE, GOALS, Ladder(2), Told(0)),
            executor=LocalProcesses("benchmarks.search_crash:toy", slots=2),
            journal=journal,
            objectives=GOALS,
            job=job,
            smaller=lambda _: None,
        ).run(seconds=3600, most=TRIALS)


def start(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "benchmarks.search_crash", "--head", folder])


def children(pid: int) -> list[int]:
    try:
        return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def ended(folder: Path) -> dict[int, Trial]:
    """Return the trials that are done, from a journal that must be whole."""
    if not (folder / FILE).exists():
        return {}
    return {trial.number: trial for trial in trials_of(read_journal(folder / FILE)) if trial.done}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--head", type=Path)
    options = parser.parse_args()
    if options.head is not None:
        search(options.head)
        return
    rng = random.Random(options.seed)
    work = Path(tempfile.mkdtemp(prefix="vesalius-bench-"))
    counts = {"head killed": 0, "worker killed": 0, "searches": 0, "whole": 0, "trials lost": 0}
    try:
        begun = time.monotonic()
        start(work / "undisturbed").wait()
        whole = time.monotonic() - begun
        while counts["head killed"] + counts["worker killed"] < options.kills:
            folder = work / str(counts["searches"])
            before: dict[int, Trial] = {}
            while True:
                head = start(folder)
                enough = counts["head killed"] + counts["worker killed"] >= options.kills
                try:
                    head.wait(None if enough else rng.uniform(0.1, 1.1 * whole))
                except subprocess.TimeoutExpired:
                    workers = children(head.pid)
                    if workers and rng.random() < 1 / 3:
                        os.kill(rng.choice(workers), signal.SIGKILL)
                        counts["worker killed"] += 1
                        head.wait()
                    else:
                        head.kill()
                        counts["head killed"] += 1
                if head.wait() not in (0, -signal.SIGKILL):
                    raise SystemExit(f"a search failed with {head.returncode}")
                after = ended(folder)
                counts["trials lost"] += sum(after.get(n) != t for n, t in before.items())
                before = after
                if head.returncode == 0:
                    break
            counts["searches"] += 1
            right = [t.values["auc"] == quality(t.parameters["x"], t.rung) for t in after.values()]
            counts["whole"] += len(right) == TRIALS and all(right)
            shutil.rmtree(folder)
    finally:
        shutil.rmtree(work)
    kills = counts["head killed"] + counts["worker killed"]
    record(
        "search_crash",
        {
            "title": "Crash: search",
            "what": "Random kill -9 of a search's head or of a worker; the same call goes on.",
            "data": f"{TRIALS} toy trials of 0.2 s in new processes, together {whole:.1f} s",
            "unit": "searches",
            "bars": [
                {"bar": "kills", "target": ">= 50", "measured": kills, "met": kills >= 50},
                {"bar": "ended trials that were lost or changed", "target": "0",
                 "measured": counts["trials lost"], "met": counts["trials lost"] == 0},
                {"bar": "searches that are not whole", "target": "0",
                 "measured": counts["searches"] - counts["whole"],
                 "met": counts["searches"] == counts["whole"]},
            ],
            "rows": [counts],
        },
        seed=options.seed,
    )  # fmt: skip


if __name__ == "__main__":
    main()
