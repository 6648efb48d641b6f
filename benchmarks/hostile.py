# SPDX-License-Identifier: Apache-2.0
"""Scan hostile files of at most 1 MB, one a scan: peak memory of the process tree and the finding.

Idle is the peak of the same command on a folder with one harmless file of the same size class.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.hostile_files import FILES, MIB, good
from benchmarks.record import record

LIMIT_MB = 300


def scan_peak(folder: Path, out: Path) -> tuple[float, float, int, str]:
    """Run `vesalius scan` and return (peak MB over the process tree, seconds, code, stderr)."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "vesalius.cli.main", "scan", str(folder), "--out", str(out)]
    with tempfile.TemporaryFile("w+") as errors:
        process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        peak = 0.0
        while process.poll() is None:
            total = 0
            try:
                tree = [process, *process.children(recursive=True)]
            except psutil.NoSuchProcess:
                break
            for member in tree:
                try:
                    total += member.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            peak = max(peak, total / 1e6)
            time.sleep(0.005)
        code = process.wait()
        errors.seek(0)
        return peak, time.perf_counter() - start, code, errors.read()


def main() -> None:
    """Scan each file on its own and write the table."""
    from vesalius.cohorts import Cohort

    rows = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "idle").mkdir()
        good(root / "idle" / "good.dcm")
        idle = max(scan_peak(root / "idle", root / f"idle-{n}")[0] for n in range(2))
        for number, (title, (file, make)) in enumerate(FILES.items()):
            folder, out = root / f"data-{number}", root / f"cohort-{number}"
            folder.mkdir()
            make(folder / file)
            size = (folder / file).stat().st_size
            if size > 1.1 * MIB:
                raise ValueError(f"{title}: {size} bytes is no 1 MB file")
            peak, seconds, code, errors = scan_peak(folder, out)
            found = sorted(set(Cohort.open(out).findings()["name"])) if code == 0 else []
            rows.append(
                {
                    "file": title,
                    "bytes": size,
                    "above idle (MB)": round(peak - idle, 1),
                    "seconds": round(seconds, 2),
                    "exit": code,
                    "findings": found,
                    "met": code == 0 and bool(found) and peak - idle <= LIMIT_MB,
                }
            )
            print(rows[-1], errors[-300:] if code else "", flush=True)
    worst = max(row["above idle (MB)"] for row in rows)
    silent = [row["file"] for row in rows if not row["findings"]]
    record(
        "hostile",
        {
            "title": "Hostile files",
            "what": __doc__.split("\n\n")[0],
            "unit": "MB (10^6 bytes), sum of resident memory over all processes, 5 ms samples",
            "baseline": f"idle tree {idle:.0f} MB",
            "bars": [
                {"bar": "worst peak above idle", "target": f"<= {LIMIT_MB} MB", "measured": worst,
                 "met": worst <= LIMIT_MB},
                {"bar": "files without a finding", "target": "0", "measured": len(silent),
                 "met": not silent},
            ],
            "rows": rows,
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
