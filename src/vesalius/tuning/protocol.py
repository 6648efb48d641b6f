# SPDX-License-Identifier: Apache-2.0
"""What a search is made of: a tuner says what to try, an executor tries it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, Self

from vesalius.tuning.trial import Trial
from vesalius.types import Json

# done: has a result; refused: a deliberate error, which will not change (memory aside); memory: it
# took more than it may, or than there was; crashed: an unexpected error, or the process died of
# itself; killed: someone ended the process; cancelled: `Executor.cancel` did
Ending = Literal["done", "refused", "memory", "crashed", "killed", "cancelled"]


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a tuner wants to be tried.

    Attributes:
        parameters: a point of the space.
        rung: fidelity, from 0 (cheapest) on.
        why: a few words for the table and the journal.
    """

    parameters: Json
    rung: int
    why: str


class Tuner(Protocol):
    """Says what to try next.

    It knows the trials that it was told of and nothing else, so that a search goes on where it
    stopped by telling them all again. Its draws depend on its seed and on the number of trials
    told, not on how often it was asked.
    """

    def ask(self) -> Proposal | None:
        """Return what to try next; None where nothing is to be tried until a trial ends."""

    def tell(self, trial: Trial) -> None:
        """Take note of a trial, when it begins and again when it ends."""


@dataclass(frozen=True, slots=True)
class Job:
    """A trial on its way.

    Attributes:
        number: of the trial.
        folder: of its own, for its job, log and result; there already or not.
        payload: what the function of the executor is called with.
    """

    number: int
    folder: Path
    payload: Json


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended.

    Attributes:
        number: of the trial.
        ending: see `Ending`.
        result: what the function returned; None unless `done`.
        seconds: of wall time.
        reason: in a few words, for people.
    """

    number: int
    ending: Ending
    result: Any
    seconds: float
    reason: str = ""


class EventLog(Protocol):
    """The journal of a search, which this process alone writes to as long as it is open.

    What a search knows is what its journal says. An event is JSON with a name.
    """

    events: list[Json]  # all of them, in order

    def append(self, event: str, **values: object) -> None:
        """Write one event; when this returns it is on disk, and in `events`.

        Raises:
            OSError: the disk is full. UnavailableError: the server is gone. UsageError: another
                process wrote meanwhile. What stood in the journal before stays whole.
        """

    def close(self) -> None:
        """Let other processes write."""

    def __enter__(self) -> Self:
        """Return the journal."""

    def __exit__(self, *_: object) -> None:
        """Close it."""


class Executor(Protocol):
    """Runs jobs, each in a process of its own: whatever one does, the others and the head go on.

    An executor is made for one function, which takes a payload and returns a result; both are JSON.
    """

    @property
    def free(self) -> int:
        """How many jobs could begin at once now."""

    def submit(self, job: Job) -> None:
        """Begin a job."""

    def poll(self, seconds: float) -> list[Outcome]:
        """Return the jobs that ended, once each; waits for one at most this long."""

    def cancel(self, number: int) -> None:
        """End a job, of which `poll` then says `cancelled`; nothing where it ended already."""

    def close(self) -> None:
        """End everything that still runs."""
