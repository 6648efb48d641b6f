# SPDX-License-Identifier: Apache-2.0
"""What a finished run costs whoever uses it: seconds an answer, peak of memory, bytes on disk."""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vesalius.errors import RunError
from vesalius.flows.planning.memory import PeakMemory, held_memory
from vesalius.flows.searching.task import of_task
from vesalius.types import Json

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort
    from vesalius.tasks.cases import Case
    from vesalius.tasks.run import Run

CASES = 12  # that are timed, one by one, each twice
_SECONDS = 10.0  # after which no further case is timed


def measure(run: Run, cohort: Cohort, cases: Sequence[Case], *, device: str, idle: int) -> Json:
    """Return `latency` (seconds), `memory` (bytes) and `size` (bytes) of a run.

    Latency is the median over cases of the time from files to an answer, in a process that has
    answered before; of two times for a case the shorter one counts, since other trials may be
    running. Memory is what a process takes at its peak that answers and has done nothing before:
    `idle`, and what loading and answering added to what this one held.

    Args:
        run: finished.
        cohort: of the cases.
        cases: some of them are answered.
        device: `auto`, where the run answers by itself, or `cpu`.
        idle: bytes that this process held when it had imported what answering needs, and had done
            nothing else.
    """
    task = of_task(run.task)
    _return_memory()
    held = held_memory()
    with PeakMemory() as memory:
        answer = task.answerer(run, cohort, device)
        times: list[float] = []
        begun = time.monotonic()
        for case in cases[:CASES]:
            both = []
            for _ in range(2 if times else 3):  # the first call of all is slower
                start = time.perf_counter()
                answered = answer(case)
                both.append(time.perf_counter() - start)
            if answered:
                times.append(min(both[-2:]))
            if time.monotonic() - begun > _SECONDS:
                break
    if not times:
        raise RunError("none of the validation cases that are to be timed can be answered")
    files = {path for pattern in task.SERVED for path in run.path.glob(pattern)}
    return {
        "latency": float(np.median(times)),
        "memory": float(idle + max(0, memory.peak - held)),
        "size": float(sum(path.stat().st_size for path in files)),
    }


def _return_memory() -> None:
    """Give back to the system what training no longer needs, so that its reuse is not free."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
