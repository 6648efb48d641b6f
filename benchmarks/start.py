# SPDX-License-Identifier: Apache-2.0
"""How long `vesalius --help` and `import vesalius` take beside `import numpy`, in turn."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from benchmarks.record import record

ROUNDS = 21
COMMANDS = {
    "import numpy": [sys.executable, "-c", "import numpy"],
    "import vesalius": [sys.executable, "-c", "import vesalius"],
    "vesalius --help": [sys.executable, "-m", "vesalius.cli.main", "--help"],
    "empty interpreter": [sys.executable, "-c", "pass"],
}
BARS = {"import vesalius": 2.0, "vesalius --help": 3.0}


def main() -> None:
    """Time whole processes in turn and compare pair by pair."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, command in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - start)
    rows = [
        {
            "command": name,
            "median_ms": round(1000 * statistics.median(times), 1),
            "min_ms": round(1000 * min(times), 1),
            "max_ms": round(1000 * max(times), 1),
        }
        for name, times in seconds.items()
    ]
    bars = []
    for name, limit in BARS.items():
        ratios = sorted(a / b for a, b in zip(seconds[name], seconds["import numpy"], strict=True))
        middle = statistics.median(ratios)
        bars.append(
            {
                "bar": f"{name} / import numpy",
                "target": f"<= {limit}",
                "measured": round(middle, 2),
                "spread": f"{ratios[2]:.2f} to {ratios[-3]:.2f} over {ROUNDS} pairs (central 80 %)",
                "met": middle <= limit,
            }
        )
    record(
        "start",
        {
            "title": "Start",
            "what": "Wall time of whole processes, run in turn; warm file cache.",
            "unit": "ratio of wall times, pair by pair",
            "peer": "python -c 'import numpy'",
            "bars": bars,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
