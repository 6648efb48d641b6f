# SPDX-License-Identifier: Apache-2.0
"""What a search would take on so many workers: a discrete-event simulation from measured costs.

Workers, the head and the ladder of asynchronous halving are played as they are: a worker whose
trial ends waits for the head, which serves one after the other; the best third of a rung climbs
whenever something may begin. What trials cost, and how often they fail or are lost, comes from the
journal of a search that ran.
"""

from __future__ import annotations

import bisect
import heapq
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vesalius.errors import DataError, UsageError
from vesalius.tuning.asha import REDUCTION
from vesalius.tuning.loop import ATTEMPTS
from vesalius.tuning.trial import Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What was measured, or is assumed.

    Attributes:
        rungs: median seconds of a trial, from the cheapest rung to full.
        spread: how much single trials take of that median; drawn from.
        failing: share of trials that come to nothing of themselves.
        lost: how often a worker is lost with its trial, per second of work.
        recovery: seconds until a lost worker takes a trial again.
        checkpoint: seconds between two states that a trial goes on from.
        head: seconds of the head for one trial, told and begun.
    """

    rungs: tuple[float, ...]
    spread: tuple[float, ...] = (1.0,)
    failing: float = 0.0
    lost: float = 0.0
    recovery: float = 60.0
    checkpoint: float = 60.0
    head: float = 0.0


@dataclass(slots=True)
class Prediction:
    """What a search would have taken.

    Attributes:
        workers: that it had.
        seconds: of wall time.
        busy: worker seconds that trials took, what was lost included.
        wasted: of these, what was lost or came to nothing.
        head: seconds that the head was at work.
        finished: trials that are done, by rung.
        failed: trials that came to nothing.
        lost: attempts that a lost worker took with it.
    """

    workers: int
    seconds: float = 0.0
    busy: float = 0.0
    wasted: float = 0.0
    head: float = 0.0
    finished: list[int] = field(default_factory=list)
    failed: int = 0
    lost: int = 0

    @property
    def paid(self) -> float:
        """Worker seconds from beginning to end, idle ones included."""
        return self.workers * self.seconds


def costs_of(trials: Sequence[Trial], rungs: int, *, wall: float, workers: int = 1) -> Costs:
    """Return the costs that a search has shown.

    Args:
        trials: of its journal.
        rungs: of its ladder.
        wall: seconds that its loop took, from the first trial's beginning to the last one's end.
        workers: that it had.

    Raises:
        DataError: no trial is done, or none at the lowest rung.
    """
    done = [trial for trial in trials if trial.done]
    ended = [trial for trial in trials if trial.state in ("done", "failed", "pruned")]
    by_rung = [[t.seconds for t in done if t.rung == rung] for rung in range(rungs)]
    if not by_rung or not by_rung[0]:
        raise DataError("the journal has no finished trial at the lowest rung to learn costs from")
    medians: list[float] = []
    for seconds in by_rung:  # a rung that none has reached yet costs its steps' share
        medians.append(statistics.median(seconds) if seconds else medians[-1] * REDUCTION)
    spread = tuple(trial.seconds / medians[trial.rung] for trial in done)
    repeated = sum(trial.attempts - 1 for trial in ended)
    busy = sum(trial.seconds for trial in ended)
    idle = max(0.0, workers * wall - busy)
    return Costs(
        rungs=tuple(medians),
        spread=spread,
        failing=1 - len(done) / len(ended),
        lost=repeated / busy,
        head=idle / workers / len(ended),
    )


def simulate(
    costs: Costs,
    *,
    workers: int,
    trials: int | None = None,
    seconds: float | None = None,
    reduction: int = REDUCTION,
    seed: int = 0,
) -> Prediction:
    """Play a search.

    Args:
        costs: of its trials.
        workers: trials at once.
        trials: after which no more begin.
        seconds: after which no more begin, and what runs is ended.
        reduction: one of so many climbs.
        seed: of what is drawn.

    Raises:
        UsageError: without a worker, or without an end.
    """
    if workers < 1:
        raise UsageError(f"a search needs a worker, got {workers}")
    if trials is None and seconds is None:
        raise UsageError("a simulated search needs an end: trials or seconds")
    rng = np.random.default_rng(seed)
    end = math.inf if seconds is None else seconds
    ladder = _Rungs(len(costs.rungs), reduction)
    found = Prediction(workers, finished=[0] * len(costs.rungs))
    waiting = [(0.0, worker, -1, 0, False) for worker in range(workers)]
    begun, free = 0, 0.0  # when the head is free
    arms: list[tuple[float, float]] = []  # loss, share of the median that its trials take
    while waiting:
        now, worker, arm, rung, done = heapq.heappop(waiting)
        found.seconds = max(found.seconds, min(now, end))
        if now > end:
            continue
        if arm >= 0 and done:
            found.finished[rung] += 1
            ladder.add(rung, arms[arm][0], arm)
        if trials is not None and begun >= trials:
            continue
        free = max(now, free) + costs.head
        found.head += costs.head
        climber = ladder.climb()
        if climber is None:
            arm, rung = len(arms), 0
            arms.append((float(rng.random()), float(rng.choice(costs.spread))))
        else:
            arm, rung = climber
        begun += 1
        took, done = _attempts(costs, costs.rungs[rung] * arms[arm][1], rng, found)
        found.busy += min(took, max(0.0, end - free))
        heapq.heappush(waiting, (free + took, worker, arm, rung, done))
    return found


def _attempts(
    costs: Costs, work: float, rng: np.random.Generator, found: Prediction
) -> tuple[float, bool]:
    """Return the seconds that a trial takes, with all its attempts, and whether it is done."""
    fails = rng.random() < costs.failing
    if fails:
        work *= rng.random()
    took, kept = 0.0, 0.0
    for _ in range(ATTEMPTS):
        lasts = rng.exponential(1 / costs.lost) if costs.lost else math.inf
        if lasts >= work - kept:
            took += work - kept
            found.failed += fails
            found.wasted += took if fails else took - work
            return took, not fails
        reached = kept + lasts
        kept = min(reached, costs.checkpoint * (reached // costs.checkpoint))
        took += lasts + costs.recovery
        found.lost += 1
    found.failed += 1
    found.wasted += took
    return took, False


class _Rungs:
    """The ladder's state: who climbed, and who may."""

    def __init__(self, count: int, reduction: int) -> None:
        self._reduction = reduction
        self._ranked: list[list[float]] = [[] for _ in range(count)]
        self._staying: list[list[tuple[float, int]]] = [[] for _ in range(count)]

    def add(self, rung: int, loss: float, arm: int) -> None:
        """Take note of a trial that is done."""
        bisect.insort(self._ranked[rung], loss)
        heapq.heappush(self._staying[rung], (loss, arm))

    def climb(self) -> tuple[int, int] | None:
        """Return who climbs now and to which rung, from the highest rung down; None where none."""
        for rung in reversed(range(len(self._ranked) - 1)):
            staying, ranked = self._staying[rung], self._ranked[rung]
            if not staying:
                continue
            if bisect.bisect_left(ranked, staying[0][0]) < len(ranked) // self._reduction:
                return heapq.heappop(staying)[1], rung + 1
        return None
