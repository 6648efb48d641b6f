# SPDX-License-Identifier: Apache-2.0
"""Time that a segmenter's training spends on its data: drawing patches from disk, augmenting them.

    python -m benchmarks.data_time [--steps 60] [--work runs/data-time]

`train` is run as a user runs it, with its own plan, and the two functions that make a batch are
timed inside it. Both run in the loop's own thread, between two steps of the network.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import record
from vesalius.flows.scan import scan
from vesalius.flows.train import train
from vesalius.tasks.segment import fit

SETS = (("hippocampus", "unet"), ("sunnybrook", "unet"), ("sunnybrook", "light-unet"),
        ("wbc", "unet"))  # fmt: skip
PARTS = ("draw", "augment")
SKIPPED = 5  # first steps, while files come into memory and libraries choose their kernels
BAR = 0.1


class Enough(Exception):
    """All steps are done; the scores are not wanted."""


def one(name: str, model: str, steps: int, work: Path) -> dict[str, Any]:
    """Train on one set for some steps and return where its time went."""
    if not (work / name).exists():
        scan(Path(os.environ["VESALIUS_DATA"]) / name, out=work / name)
    run = work / f"{name}-{model}"
    shutil.rmtree(run, ignore_errors=True)
    ends: list[float] = []

    def progress(stage: str, done: int, total: int | None) -> None:
        if stage == "training":
            ends.append(time.perf_counter())
            if done == total:
                raise Enough

    with timed(PARTS) as spent, suppress(Enough):
        train("segment", work / name, model=model, steps=steps, out=run, progress=progress)
    # Validations and saved states lie between some steps: they are not the median's.
    step = float(np.median(np.diff(ends)[SKIPPED:]))
    data = {part: float(np.mean(spent[part][SKIPPED:])) for part in PARTS}
    return {
        "set": name,
        "network": model,
        "step, ms": round(1000 * step, 1),
        **{f"{part}, ms": round(1000 * seconds, 1) for part, seconds in data.items()},
        "share of data": round(sum(data.values()) / step, 4),
    }


@contextmanager
def timed(parts: tuple[str, ...]) -> Iterator[dict[str, list[float]]]:
    """Note how long each call of some functions of `fit` takes."""
    spent: dict[str, list[float]] = {part: [] for part in parts}
    plain = {part: getattr(fit, part) for part in parts}

    def watched(part: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            begin = time.perf_counter()
            try:
                return plain[part](*arguments, **options)
            finally:
                spent[part].append(time.perf_counter() - begin)

        return call

    for part in parts:
        setattr(fit, part, watched(part))
    try:
        yield spent
    finally:
        for part in parts:
            setattr(fit, part, plain[part])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--work", type=Path, default=Path("runs/data-time"))
    parser.add_argument("--only", choices=[name for name, _ in SETS])
    asked = parser.parse_args()
    rows = []
    for name, model in SETS:
        if asked.only in (None, name):
            rows.append(one(name, model, asked.steps, asked.work))
            print(rows[-1], flush=True)
    if asked.only:
        return
    worst = max(rows, key=lambda row: row["share of data"])
    record(
        "data_time",
        {
            "title": "Segmentation: time that training spends on its data",
            "what": "Patches drawn from prepared files and augmented, within `train` with its own "
            "plan; share of the time from step to step.",
            "data": "hippocampus (3D), sunnybrook (2D), wbc (2D, color)",
            "unit": "milliseconds, share of 1",
            "peer": "none",
            "noise": f"{asked.steps} steps; mean of data, median of steps; "
            f"{len(os.sched_getaffinity(0))} cores",
            "bars": [
                {"bar": f"share of data, the largest ({worst['set']}, {worst['network']})",
                 "target": f"<= {BAR:g}", "measured": worst["share of data"],
                 "met": worst["share of data"] <= BAR},
            ],
            "rows": rows,
        },
        data=Path(os.environ["VESALIUS_DATA"]) / "hippocampus",
    )  # fmt: skip


if __name__ == "__main__":
    main()
