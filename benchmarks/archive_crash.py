# SPDX-License-Identifier: Apache-2.0
"""kill -9 at random moments of writing to an archive and of making its index; two writers at once.

    python -m benchmarks.archive_crash [--kills 20] [--dry]

A writer says each key once its call has returned; then it, or a process that makes the index of a
large archive, is killed at a random moment. After each kill the archive is opened by a new process'
means: every key that was said must be there with the vector and the words that were written, and
must be found by them. Then two writers write at once, one of them killed and started again, and
nothing that either said may be missing. An entry takes 4 KB, a commit 50 entries.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import record

DIMENSION, BATCH, THUMBNAIL = 256, 50, 3000
_WRITE = """
import sys
from benchmarks.archive_crash import BATCH, entry
from vesalius.store.lance import open_archive
archive = open_archive(sys.argv[1])
print("ready", flush=True)
for start in range(int(sys.argv[2]), int(sys.argv[3]), BATCH):
    archive.upsert(entry(at) for at in range(start, start + BATCH))
    print(start + BATCH, flush=True)
"""
_INDEX = """
import sys
from vesalius.store import lance
lance.INDEXED_FROM = 1
archive = lance.open_archive(sys.argv[1])
print("ready", flush=True)
archive.compact()
print("done", flush=True)
"""


def entry(at: int) -> Any:
    """Return the entry of a number, the same whoever asks."""
    from vesalius.store.protocol import Entry

    rng = np.random.default_rng(at)
    vector = rng.standard_normal(DIMENSION).astype(np.float32)
    vector /= np.linalg.norm(vector)
    words, facts = f"finding{at} of the lung", {"number": at}
    key, case, patient = f"key-{at:08d}", f"case-{at // 2}", f"patient-{at // 4}"
    return Entry(key, case, patient, vector, words, facts, rng.bytes(THUMBNAIL))


def start(code: str, archive: Path, *arguments: int) -> subprocess.Popen[str]:
    """Start a child and return once it has opened the archive."""
    command = [sys.executable, "-c", code, archive, *map(str, arguments)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None  # noqa: S101
    if child.stdout.readline() != "ready\n":
        raise SystemExit("a child did not open the archive")
    return child


def killed_after(child: subprocess.Popen[str], seconds: float) -> tuple[list[str], bool]:
    """Kill a child after some time; return what it had said, and whether it was at work still."""
    time.sleep(seconds)
    at_work = child.poll() is None
    child.send_signal(signal.SIGKILL)
    said, _ = child.communicate()
    if child.returncode not in (0, -signal.SIGKILL):
        raise SystemExit(f"a child failed with {child.returncode}")
    return said.split(), at_work and child.returncode == -signal.SIGKILL


def lost(folder: Path, said: list[range], rng: random.Random) -> int:
    """Return how many of the said numbers are not there as they were written, or not found."""
    from vesalius.store.lance import open_archive

    archive = open_archive(folder)
    held = archive.held()
    numbers = [at for one in said for at in one]
    missing = {at for at in numbers if f"key-{at:08d}" not in held}
    there = [at for at in numbers if at not in missing]
    sample = rng.sample(there, min(len(there), 200))
    wanted = [entry(at) for at in sample]
    for at, a, b in zip(sample, wanted, archive.entries([e.key for e in wanted]), strict=True):
        same = (a.words, a.patient, a.thumbnail) == (b.words, b.patient, b.thumbnail)
        if not same or not np.array_equal(a.vector, b.vector):
            missing.add(at)
    for at, a in list(zip(sample, wanted, strict=True))[:20]:
        (near,) = archive.nearest(a.vector, 1)
        worded = archive.worded(f"finding{at}", 1)
        if near.keys != (a.key,) or [hit.key for hit in worded] != [a.key]:
            missing.add(at)
    return len(missing)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry", action="store_true", help="print instead of recording")
    options = parser.parse_args()
    from vesalius.store.lance import create_archive, open_archive

    rng = random.Random(options.seed)
    work = Path(tempfile.mkdtemp(prefix="vesalius-bench-"))
    folder = work / "archive"
    rows: list[dict[str, Any]] = []
    try:
        create_archive(folder, identity={}, dimension=DIMENSION, columns={"number": "integer"})
        said: list[range] = []
        kills = losses = first = 0
        while kills < options.kills:
            child = start(_WRITE, folder, first, 10**8)
            told, at_work = killed_after(child, rng.uniform(0, 1.5))
            kills += at_work
            said.append(range(first, int(told[-1]) if told else first))
            losses += lost(folder, said, rng)
            first = (said[-1].stop // BATCH + 2) * BATCH  # not what was under way: that is not said
        rows.append({"phase": "writing", "kills": kills, "acknowledged": sum(map(len, said)),
                     "lost": losses})  # fmt: skip
        child = start(_INDEX, folder)
        begun = time.perf_counter()
        child.communicate()
        whole = time.perf_counter() - begun
        kills = losses = finished = 0
        while kills < options.kills:
            child = start(_WRITE, folder, first, first + BATCH)  # something new to index
            child.communicate()
            said.append(range(first, first + BATCH))
            first += BATCH
            told, at_work = killed_after(start(_INDEX, folder), rng.uniform(0, 0.9 * whole))
            kills += at_work
            finished += "done" in told
            losses += lost(folder, said, rng)
        rows.append({"phase": "making the index", "kills": kills, "finished before": finished,
                     "acknowledged": sum(map(len, said)), "lost": losses})  # fmt: skip
        base, each = first + BATCH, 40 * BATCH
        one = start(_WRITE, folder, base, base + each)
        two = start(_WRITE, folder, base + each, base + 2 * each)
        told, at_work = killed_after(two, rng.uniform(0.2, 1.0))
        done = int(told[-1]) if told else base + each
        two = start(_WRITE, folder, done, base + 2 * each)
        for child in (one, two):
            child.communicate()
            if child.returncode:
                raise SystemExit(f"a writer failed with {child.returncode}")
        both = [range(base, base + 2 * each)]
        rows.append({"phase": "two writers, one killed and started again", "kills": int(at_work),
                     "acknowledged": 2 * each, "lost": lost(folder, both, rng)})  # fmt: skip
        entries = open_archive(folder).condition().entries
    finally:
        shutil.rmtree(work)
    result = {
        "title": "Crash: archive",
        "what": "Random kill -9 of a writer and of a process that makes the index.",
        "data": f"generated: vectors of {DIMENSION}, thumbnails of {THUMBNAIL} bytes; "
        f"{entries} entries at the end; a whole index takes {whole:.1f} s",
        "unit": "entries",
        "peer": "what the writer was told before the kill",
        "bars": [
            *({"bar": f"kills: {row['phase']}", "target": f">= {options.kills}",
               "measured": row["kills"], "met": row["kills"] >= options.kills} for row in rows[:2]),
            {"bar": "acknowledged entries lost", "target": "0",
             "measured": sum(row["lost"] for row in rows),
             "met": not any(row["lost"] for row in rows)},
        ],
        "rows": rows,
    }  # fmt: skip
    print(rows) if options.dry else record("archive_crash", result, seed=options.seed)


if __name__ == "__main__":
    main()
