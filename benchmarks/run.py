# SPDX-License-Identifier: Apache-2.0
"""Run the benchmarks, each in a process of its own, then write BENCHMARKS.md.

`python -m benchmarks.run [NAME …]` runs the named ones; without names, all of them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# These take runs that other benchmarks trained.
_NEED_RUNS = ("classification_speed", "segmentation_export")


def main() -> None:
    """Run one after the other; a failure is reported at the end and fails the whole."""
    folder = Path(__file__).parent
    known = sorted(
        path.stem
        for path in folder.glob("*.py")
        if "\ndef main(" in path.read_text(encoding="utf-8")
        and path.stem not in ("run", "page", *_NEED_RUNS)
    )
    names = sys.argv[1:] or known
    unknown = set(names) - set(known)
    if unknown:
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    failed = []
    for name in names:
        print(f"== {name}", flush=True)
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False)
        if done.returncode:
            failed.append(name)
    subprocess.run([sys.executable, "-m", "benchmarks.page"], check=True)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
