# SPDX-License-Identifier: Apache-2.0
"""What a second worker is worth, what the head costs, and how fast a journal is read.

    python -m benchmarks.two_workers

Toy trials do the same work each on one core. The head's cost is measured with 1,000 trials that
wait in the journal of a search that was cut off; 10,000 recorded trials are read from a file and
from PostgreSQL.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import toy_trials
from benchmarks.postgres_server import binaries, postgres_server
from benchmarks.record import record
from vesalius.tuning.asha import Asha, Ladder
from vesalius.tuning.journal import FILE, Journal, read_journal, text_of
from vesalius.tuning.local import LocalProcesses
from vesalius.tuning.loop import Loop, trials_of
from vesalius.tuning.postgres_journal import PostgresJournal, read_postgres
from vesalius.tuning.protocol import Job
from vesalius.tuning.space import Space
from vesalius.tuning.told import Told
from vesalius.tuning.trial import Objective, Trial
from vesalius.types import Json

GOALS = (Objective("auc", maximize=True),)
SPACE = Space.from_json(
    {"format": "space 1", "parameters": {"x": {"kind": "float", "low": 0, "high": 1}}}
)
QUEUED, RECORDED = 1000, 10_000


def count_for(seconds: float) -> int:
    """Return how far to count for about so many seconds on this machine."""
    probe = 2_000_000
    return int(seconds / toy_trials.count({"count": probe, "x": 0.0})["facts"]["inside"] * probe)


def loop(folder: Path, workers: int, count: int, journal: Journal) -> Loop:
    def job(trial: Trial) -> Job:
        payload = {"count": count, "x": trial.parameters["x"]}
        return Job(trial.number, folder / "trials" / str(trial.number), payload)

    return Loop(
        tuner=Asha(SPACE, GOALS, Ladder(1), Told(0)),
        executor=LocalProcesses("benchmarks.toy_trials:count", slots=workers, threads=1),
        journal=journal,
        objectives=GOALS,
        job=job,
        smaller=lambda _: None,
    )


def rate(folder: Path, workers: int, trials: int, count: int) -> float:
    """Return finished trials a second."""
    begun = time.monotonic()
    with Journal(folder / FILE) as journal:
        found = loop(folder, workers, count, journal).run(seconds=3600, most=trials)
    if [trial.state for trial in found] != ["done"] * trials:
        raise SystemExit("a toy trial failed")
    return trials / (time.monotonic() - begun)


class _Enough(Exception):
    """What was to be measured is."""


def overhead(folder: Path, trials: int, count: int) -> dict[str, float]:
    """Return the head's seconds between two trials while 1,000 wait, and what a trial takes."""
    ended: list[tuple[float, Trial]] = []
    with Journal(folder / FILE) as journal:
        for number in range(QUEUED + trials):
            trial = Trial(number, {"x": number / QUEUED}, 0, "late", why="the time was over")
            journal.append("trial", trial=trial.to_json(), clock=0.0)
        searching = loop(folder, 1, count, journal)

        def changed(known: Sequence[Trial], number: int) -> None:
            if known[number].done:
                ended.append((time.monotonic(), known[number]))
                if len(ended) > trials:
                    raise _Enough

        searching.changed = changed
        with contextlib.suppress(_Enough):
            searching.run(seconds=3600)
    gaps = [
        after - before - trial.seconds for (before, _), (after, trial) in itertools.pairwise(ended)
    ]
    done = [trial for _, trial in ended]
    return {
        "head_seconds_a_trial": statistics.mean(gaps),
        "trial_seconds": statistics.mean(trial.seconds for trial in done),
        "process_seconds": statistics.mean(t.seconds - t.facts["inside"] for t in done),
    }


def recorded() -> list[Json]:
    """Return the events of a search of 10,000 trials with learning curves."""
    point = {f"p{n}": n / 7 for n in range(12)}
    return [
        {
            "event": "trial",
            "clock": number / 2,
            "trial": Trial(
                number // 2, point, 1, "done" if number % 2 else "running",
                {"auc": 0.9, "latency": 0.1}, curve=tuple((n, 0.5) for n in range(10)),
            ).to_json(),
        }
        for number in range(2 * RECORDED)
    ]  # fmt: skip


def load_file(folder: Path) -> float:
    """Return the seconds that reading 10,000 trials from a file takes."""
    path = folder / FILE
    folder.mkdir(parents=True)
    lines = (b"%08x %s\n" % (checksum, text.encode()) for text, checksum in
             map(text_of, recorded()))  # fmt: skip
    path.write_bytes(b"".join(lines))
    begun = time.monotonic()
    if len(trials_of(read_journal(path))) != RECORDED:
        raise SystemExit("trials are missing")
    return time.monotonic() - begun


def load_database() -> float | None:
    """Return the same of PostgreSQL; None where there is no server."""
    programs = binaries()
    if programs is None:
        return None
    import psycopg

    with postgres_server(programs) as server:
        with PostgresJournal(server.url, "recorded") as journal:
            rows = [("recorded", n, *reversed(text_of(e))) for n, e in enumerate(recorded())]
            journal.append("first")
        with psycopg.connect(server.url) as held, held.cursor() as cursor:
            cursor.execute("DELETE FROM vesalius_search_events")
            cursor.executemany(
                "INSERT INTO vesalius_search_events (search, number, checksum, event) "
                "VALUES (%s, %s, %s, %s)",
                rows,
            )
            held.commit()
        begun = time.monotonic()
        if len(trials_of(read_postgres(server.url, "recorded"))) != RECORDED:
            raise SystemExit("trials are missing")
        return time.monotonic() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=40, help="of each rate")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a toy trial")
    options = parser.parse_args()
    count = count_for(options.seconds)
    with tempfile.TemporaryDirectory() as held:
        work_in = Path(held)
        one = rate(work_in / "one", 1, options.trials, count)
        two = rate(work_in / "two", 2, options.trials, count)
        head = overhead(work_in / "queued", options.trials, count)
        file, database = load_file(work_in / "file"), load_database()
    share = head["head_seconds_a_trial"] / head["trial_seconds"]
    rows = [
        {"workers": 1, "trials_per_minute": round(60 * one, 2)},
        {"workers": 2, "trials_per_minute": round(60 * two, 2)},
        {name: round(value, 5) for name, value in head.items()},
        {"load_file_seconds": round(file, 3)},
    ]
    bars = [
        {"bar": "trials of two workers, of one", "target": ">= 1.8x",
         "measured": f"{two / one:.2f}x", "met": two / one >= 1.8},
        {"bar": "head's share of trial time, 1,000 queued", "target": "<= 1 %",
         "measured": f"{100 * share:.2f} %", "met": share <= 0.01},
        {"bar": "10,000 trials load from a file", "target": "<= 2 s",
         "measured": f"{file:.2f} s", "met": file <= 2},
    ]  # fmt: skip
    if database is not None:
        rows.append({"load_database_seconds": round(database, 3)})
        bars.append({"bar": "10,000 trials load from PostgreSQL", "target": "<= 2 s",
                     "measured": f"{database:.2f} s", "met": database <= 2})  # fmt: skip
    record(
        "two_workers",
        {
            "title": "Search: a second worker, the head, the journal",
            "what": "Trials a minute of one and two workers with a core each; the head's time for "
            "a trial while 1,000 wait; reading 10,000 recorded trials.",
            "data": f"{options.trials} toy trials that count for about {options.seconds:g} s on "
            "one core, in new processes",
            "unit": "trials",
            "bars": bars,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
