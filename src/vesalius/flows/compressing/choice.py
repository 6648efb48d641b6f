# SPDX-License-Identifier: Apache-2.0
"""Which network becomes the student: the most able one that is small and fast enough, measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vesalius.errors import CohortError, DataError, RunError, UsageError
from vesalius.types import Json

if TYPE_CHECKING:
    from vesalius.tasks.cases import Case

FASTER, SMALLER = 5.0, 5.0  # times that a student is faster and smaller than its teacher
_SPARE = 1.15  # … measured before it is trained; what is measured afterwards varies
_ROUNDS = 3  # of which the fastest counts

Answer = Callable[[Any], object]


@dataclass(frozen=True, slots=True)
class Limits:
    """What the user allows: seconds for one case from its files, and bytes on disk; None: any."""

    seconds: float | None = None
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A network that may become the student, with random weights.

    Attributes:
        name: of the network, for people.
        decisions: of its plan.
        bytes: that its run will take on disk.
        answer: answers a prepared input, as its run will.
    """

    name: str
    decisions: Json
    bytes: int
    answer: Answer


@dataclass(frozen=True, slots=True)
class Chosen:
    """The student, and lines for the audit."""

    candidate: Candidate
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Teacher:
    """What the student is measured against: how it answers inputs, and what it takes on disk.

    Attributes:
        answer: answers a prepared input.
        bytes: on disk.
        inputs: some prepared inputs.
        reading: seconds from files to one of these, the same for both.
    """

    answer: Answer
    bytes: int
    inputs: Sequence[Any]
    reading: float


def timed_inputs(
    val: Sequence[Case], read: Callable[[Case], Any], count: int
) -> tuple[list[Any], float]:
    """Return the first inputs of validation cases in random order, and the seconds of reading one.

    Args:
        val: the cases.
        read: makes an input of a case's files; a `DataError` passes a case over.
        count: inputs at most, of twice as many cases that are tried.

    Raises:
        CohortError: no case can be read.
    """
    chosen = np.random.default_rng(0).permutation(len(val))[: 2 * count]
    inputs: list[Any] = []
    times = []
    with one_thread():
        for place in chosen:
            spent = []
            try:
                for _ in range(2):  # the shorter one counts, since other work may be running
                    begun = time.perf_counter()
                    made = read(val[place])
                    spent.append(time.perf_counter() - begun)
            except DataError:  # counted where the run was scored
                continue
            times.append(min(spent))
            inputs.append(made)
            if len(inputs) == count:
                break
    if not inputs:
        raise CohortError("no validation case of the run can be read; run `vesalius check`")
    return inputs, float(np.median(times))


def choose(teacher: Teacher, candidates: Iterator[Candidate], limits: Limits) -> Chosen:
    """Return the first candidate that is fast and small enough, of those from the most able on.

    One that is five times smaller, and five times faster from a case's files to the answer, is
    looked for first; then one that is so after reading, which may take longer than any network.
    Where there is none either, limits alone decide; without limits the fastest one that is five
    times smaller is taken, and the audit says so. Times are those of one thread.

    Raises:
        UsageError: no network keeps the limits. RunError: none is smaller by 5.
    """
    kept: list[tuple[Candidate, float]] = []  # that keep the limits, with their gain after reading
    times: list[float] = []  # of those that are small enough
    sizes: list[int] = []
    for candidate in candidates:
        sizes.append(candidate.bytes)
        fifth = candidate.bytes * SMALLER <= teacher.bytes
        if not (fifth if limits == Limits() else candidate.bytes <= (limits.bytes or np.inf)):
            continue  # without being timed
        slow, fast = seconds_of(teacher, candidate)
        times.append(teacher.reading + fast)
        if limits.seconds is None or _SPARE * times[-1] <= limits.seconds:
            kept.append((candidate, slow / fast))
            whole = (teacher.reading + slow) / times[-1]
            if fifth and whole >= _SPARE * FASTER:
                return Chosen(candidate, (_said(candidate, whole, teacher, len(sizes)),))
    for candidate, gain in kept:
        if gain >= _SPARE * FASTER and candidate.bytes * SMALLER <= teacher.bytes:
            line = (
                f"reading and preparing a case takes {1e3 * teacher.reading:.1f} ms, so that no "
                f"network makes the whole {FASTER:g} times as fast: compared is what comes after"
            )
            return Chosen(candidate, (line, _said(candidate, gain, teacher, len(sizes))))
    if limits != Limits():
        if not kept:
            raise UsageError(_impossible(times, sizes, limits, teacher.reading))
        candidate, gain = kept[0]
        return Chosen(candidate, (_said(candidate, gain, teacher, len(sizes)),))
    if not kept:
        raise RunError(
            f"the run is small already: it takes {teacher.bytes / 1e6:.1f} MB, and no network of "
            f"ours is {SMALLER:g} times smaller; set --max-latency or --max-size to what you need, "
            "or export the run"
        )
    candidate, gain = max(kept, key=lambda one: one[1])
    line = f"no network is {FASTER:g} times as fast as this teacher: the fastest one is taken"
    return Chosen(candidate, (line, _said(candidate, gain, teacher, len(sizes))))


def seconds_of(teacher: Teacher, candidate: Candidate) -> tuple[float, float]:
    """Return the median seconds of the processor for an answer of both, in turns, with one thread.

    Other work on the machine changes these little; on an idle one they are what passes.
    """
    slow, fast = [], []
    with one_thread():
        for answer in (teacher.answer, candidate.answer):  # the first call is slower
            answer(teacher.inputs[0])
        for given in teacher.inputs:
            times: tuple[list[float], list[float]] = ([], [])
            for _ in range(_ROUNDS):
                for own, answer in zip(times, (teacher.answer, candidate.answer), strict=True):
                    begun = time.process_time()
                    answer(given)
                    own.append(time.process_time() - begun)
            slow.append(min(times[0]))
            fast.append(min(times[1]))
    return float(np.median(slow)), float(np.median(fast))


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch compute with one thread within `with`."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _said(candidate: Candidate, ratio: float, teacher: Teacher, tried: int) -> str:
    return (
        f"student: {candidate.name}, the most able network that is small and fast enough, "
        f"{tried} tried; before training about {ratio:.1f} times as fast as the teacher, and "
        f"{teacher.bytes / candidate.bytes:.1f} times as small"
    )


def _impossible(
    times: Sequence[float], sizes: Sequence[int], limits: Limits, reading: float
) -> str:
    """Return what to say where no network keeps the limits."""
    asked, least = [], []
    if limits.seconds is not None:
        asked.append(f"{1e3 * limits.seconds:g} ms")
    if limits.seconds is not None and times:
        least.append(
            f"{1e3 * min(times):.1f} ms, of which {1e3 * reading:.1f} ms read and prepare the case"
        )
    if limits.bytes is not None:
        asked.append(f"{limits.bytes / 1e6:g} MB")
        least.append(f"{min(sizes) / 1e6:.1f} MB")
    return (
        f"no network keeps {' and '.join(asked)}: the fastest and smallest ones take "
        f"{' and '.join(least)} on this machine with one thread; allow more"
    )
