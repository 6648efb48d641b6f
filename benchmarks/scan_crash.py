# SPDX-License-Identifier: Apache-2.0
"""kill -9 at random moments of a scan; the same command must finish with the same cohort.

    python -m benchmarks.scan_crash [--kills 100]

Each round starts from a copy of nothing, or goes on where the last kill left the folder, and kills
the scan itself (two of three times) or one of its workers at a uniformly random moment. Whenever a
scan survives to its end, the digest of its cohort (rows and findings) is compared with that of an
uninterrupted scan made with the same pseudonym key, and a new folder is begun. Every version that
was acknowledged before a kill must still open with the digest it had.
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

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "cohorts"))
import make

from benchmarks.record import record

_SCAN = """
import sys
from vesalius.cohorts import scan as module
module._CHUNK, module._TOGETHER, module._COMMIT_SECONDS = 8, 2, 0.05
module.scan(sys.argv[1], sys.argv[2], labels=sys.argv[3], pseudonym_key=sys.argv[4], workers=2)
"""


def start(data: Path, out: Path, labels: Path, key: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", _SCAN, data, out, labels, key])


def workers_of(pid: int) -> list[int]:
    found: list[str] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            found += Path(f"/proc/{pid}/task/{task}/children").read_text().split()
    except OSError:
        return []
    return [int(one) for one in found]


def digest_of(out: Path, version: int | None = None) -> str:
    from vesalius.cohorts import Cohort

    return Cohort.open(out, version).digest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    work = Path(tempfile.mkdtemp(prefix="vesalius-bench-"))
    counts = {"scan killed": 0, "worker killed": 0, "finished": 0, "equal": 0, "versions kept": 0}
    try:
        data, labels = work / "data", work / "labels.csv"
        make.mixed(data, series_count=40, pairs=60)
        (work / "key").write_text("ab" * 32)
        begun = time.perf_counter()
        if start(data, work / "whole", labels, work / "key").wait():
            raise SystemExit("the uninterrupted scan failed")
        seconds = time.perf_counter() - begun
        wanted = digest_of(work / "whole")
        out, acknowledged = work / "out", 0
        while counts["scan killed"] + counts["worker killed"] < options.kills:
            child = start(data, out, labels, work / "key")
            time.sleep(rng.uniform(0.05, 1.1 * seconds))
            if child.poll() is None:
                victims = workers_of(child.pid)
                if victims and rng.random() < 1 / 3:
                    os.kill(rng.choice(victims), signal.SIGKILL)
                    counts["worker killed"] += 1
                else:
                    child.kill()
                    counts["scan killed"] += 1
            if child.wait() not in (0, -signal.SIGKILL):
                raise SystemExit(f"a scan failed with {child.returncode}")
            if acknowledged:
                counts["versions kept"] += digest_of(out, acknowledged) == wanted
            if child.returncode == 0:
                counts["finished"] += 1
                counts["equal"] += digest_of(out) == wanted
                if acknowledged or rng.random() < 0.5:
                    shutil.rmtree(out)
                    acknowledged = 0
                else:  # next: kill a scan that changes nothing, or publishes anew
                    from vesalius.cohorts import Cohort

                    acknowledged = Cohort.open(out).version
                    (data / "notes.txt").write_text(str(rng.random()))
        child = start(data, out, labels, work / "key")
        if child.wait():
            raise SystemExit("the last scan failed")
        counts["finished"] += 1
        counts["equal"] += digest_of(out) == wanted
    finally:
        shutil.rmtree(work)
    kills = counts["scan killed"] + counts["worker killed"]
    record(
        "scan_crash",
        {
            "title": "Crash: scan",
            "what": "Random kill -9 of a scan or of one of its workers; the same command goes on.",
            "data": f"generated: 40 DICOM series, 60 pairs; a whole scan takes {seconds:.1f} s",
            "unit": "scans",
            "peer": "an uninterrupted scan with the same pseudonym key",
            "bars": [
                {"bar": "kills", "target": ">= 100", "measured": kills, "met": kills >= 100},
                {"bar": "finished scans whose cohort differs", "target": "0",
                 "measured": counts["finished"] - counts["equal"],
                 "met": counts["equal"] == counts["finished"]},
            ],
            "rows": [counts],
        },
        seed=options.seed,
    )  # fmt: skip


if __name__ == "__main__":
    main()
