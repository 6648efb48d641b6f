# SPDX-License-Identifier: Apache-2.0
"""What answering costs: seconds of one case from its files, peak of memory, bytes on disk.

Each model answers in a process of its own that does nothing else, on the processor, with one
thread. The same case is given to each of them in turn, so that other work on the machine slows all
alike.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vesalius.errors import RunError, VesaliusError
from vesalius.flows.planning.memory import PeakMemory
from vesalius.types import Json, Progress

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from vesalius.cohorts import Cohort
    from vesalius.tasks.cases import Case

CALLS = 200  # answers of each model that are timed, at most
_SECONDS = 60.0  # after which no further case is given
_FIRST = 2  # answers that are not timed: the first ones are slower


@dataclass(frozen=True, slots=True)
class Answering:
    """A model that answers: a run's, or an engine's.

    Attributes:
        name: of its row.
        path: a run, the folder of an exported segmenter, or the file of an exported classifier.
        files: that answering needs.
    """

    name: str
    path: Path
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Cost:
    """What answering one case costs.

    Attributes:
        p50, p99: seconds from files to the answer, median and 99th percentile.
        processor: seconds of the processor for it, median: what `p50` is on an idle machine.
        calls: answers that these come from.
        memory: bytes that a process takes at its peak which answers and does nothing else.
        size: bytes of the files that answering needs.
    """

    p50: float
    p99: float
    processor: float
    calls: int
    memory: int
    size: int

    def to_json(self) -> Json:
        """Return a plain dictionary."""
        return {name: getattr(self, name) for name in self.__slots__}


def run_files(path: Path, task: str) -> tuple[Path, ...]:
    """Return the files of a run that answering needs."""
    from vesalius.flows.searching.task import of_task

    return tuple(sorted({f for pattern in of_task(task).SERVED for f in path.glob(pattern)}))


def size_of(files: Sequence[Path]) -> int:
    """Return the bytes of files."""
    return sum(file.stat().st_size for file in files)


def measure(
    models: Sequence[Answering],
    task: str,
    cohort: Cohort,
    cases: Sequence[Case],
    *,
    seconds: float = _SECONDS,
    progress: Progress | None = None,
) -> list[Cost]:
    """Return what each model costs.

    Args:
        models: that answer in turns.
        task: of all of them.
        cohort: of the cases.
        cases: they are given one by one, again and again.
        seconds: after which no further one is given.
        progress: called as `progress(stage, done, total)`.

    Raises:
        RunError: none of the cases can be answered, or a process ends before it has answered.
    """
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    try:
        for model in models:
            here, there = context.Pipe()
            process = context.Process(
                target=_answer, args=(there, model.path, task, cohort), daemon=True
            )
            process.start()
            there.close()
            pipes.append(here)
            processes.append(process)
        times = _in_turns(models, pipes, cases, seconds, progress)
        peaks = [_told(model, pipe, None) for model, pipe in zip(models, pipes, strict=True)]
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.join()
    return [
        Cost(
            p50=float(np.quantile([wall for wall, _ in own], 0.5)),
            p99=float(np.quantile([wall for wall, _ in own], 0.99)),
            processor=float(np.median([busy for _, busy in own])),
            calls=len(own),
            memory=int(peak[0]),
            size=size_of(model.files),
        )
        for model, own, peak in zip(models, times, peaks, strict=True)
    ]


def _in_turns(
    models: Sequence[Answering],
    pipes: Sequence[Connection],
    cases: Sequence[Case],
    seconds: float,
    progress: Progress | None,
) -> list[list[tuple[float, float]]]:
    """Return the seconds of each model's answers, and those of the processor among them."""
    times: list[list[tuple[float, float]]] = [[] for _ in models]
    begun, given = 0.0, 0
    while given < _FIRST + CALLS and (given <= _FIRST or time.monotonic() - begun < seconds):
        if given == _FIRST:
            begun = time.monotonic()
        case = cases[given % len(cases)]
        took = [_told(model, pipe, case) for model, pipe in zip(models, pipes, strict=True)]
        if given >= _FIRST and all(wall for wall, _ in took):
            for own, value in zip(times, took, strict=True):
                own.append(value)
        given += 1
        if progress is not None:
            progress("measuring costs", given, _FIRST + CALLS)
    if not times[0]:
        raise RunError("none of the validation cases that are to be timed can be answered")
    return times


def _told(model: Answering, pipe: Connection, case: Case | None) -> tuple[float, float]:
    """Return what a process says of a case: seconds, 0 where it has no answer; or its memory."""
    try:
        pipe.send(case)
        value: tuple[float, float] | VesaliusError = pipe.recv()
    except (EOFError, ConnectionError) as error:
        raise RunError(
            f"the process that measures {model.name} ended before it had answered; is memory short?"
        ) from error
    if isinstance(value, VesaliusError):
        raise value
    return value


def _answer(pipe: Connection, path: Path, task: str, cohort: Cohort) -> None:
    """Answer what comes from the pipe, in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asked closes the pipe
    os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}  # before PyTorch is imported
    import torch

    from vesalius.flows.searching.task import of_task

    torch.set_num_threads(1)
    for module in of_task(task).ANSWERING:
        importlib.import_module(module)
    try:
        with PeakMemory() as memory:
            answer = _loaded(path, task, cohort)
            while (case := _next(pipe)) is not None:
                begun, busy = time.perf_counter(), time.process_time()
                answered = answer(case)
                took = (time.perf_counter() - begun, time.process_time() - busy)
                pipe.send(took if answered else (0.0, 0.0))
    except VesaliusError as error:  # for the process that asked
        pipe.send(error)
        return
    with contextlib.suppress(BrokenPipeError):  # nobody waits for it any more
        pipe.send((float(memory.peak), 0.0))


def _next(pipe: Connection) -> Case | None:
    """Return the next case; None where there is none, or nobody who would give one."""
    try:
        case: Case | None = pipe.recv()
    except EOFError:
        return None
    return case


def _loaded(path: Path, task: str, cohort: Cohort) -> Callable[[Case], bool]:
    """Return what answers a case by a run or an export, and says whether it could."""
    from vesalius.flows.searching.task import of_task
    from vesalius.tasks.run import Run

    if path.is_dir():
        return of_task(task).answerer(Run.load(path, exported=True), cohort, "cpu")
    from vesalius.deployment.classifier import ExportedClassifier

    exported = ExportedClassifier(path)
    return lambda case: exported.answer(cohort, case) is not None
