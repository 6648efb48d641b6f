# SPDX-License-Identifier: Apache-2.0
"""One trial of a search: what was tried, how far, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from vesalius.errors import UsageError
from vesalius.tuning.space import key_of
from vesalius.types import Json

# running: begun, nothing known; done: has values; pruned: given up for a reason that will not
# change (memory, an impossible plan); failed: crashed; late: the time was over before its end
State = Literal["running", "done", "pruned", "failed", "late"]


@dataclass(frozen=True, slots=True)
class Objective:
    """What is measured of each trial and wished to be small, or large.

    Attributes:
        name: in a trial's values.
        maximize: whether more is better.
        limit: the worst value that is accepted, or None.
        unit: for people.
    """

    name: str
    maximize: bool = False
    limit: float | None = None
    unit: str = ""

    def loss(self, value: float) -> float:
        """Return the value so that less is better."""
        return -value if self.maximize else value

    def excess(self, value: float) -> float:
        """Return by what share a value exceeds the limit; 0 within it."""
        if self.limit is None:
            return 0.0
        over = self.loss(value) - self.loss(self.limit)
        return max(0.0, over / (abs(self.limit) or 1.0))


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial.

    Attributes:
        number: from 0, in the order of asking.
        parameters: a point of the space.
        rung: fidelity, from 0 (cheapest) on.
        state: see `State`.
        values: objective -> value; of a trial that is done, all of them.
        seconds: that it ran, all attempts together.
        plan: hash of what was done, as far as known.
        why: it was asked for, or ended as it did.
        curve: `(step, quality)` while it trained.
        attempts: how often it was begun.
        facts: anything else that its run reported.
    """

    number: int
    parameters: Mapping[str, Any]
    rung: int
    state: State = "running"
    values: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    plan: str = ""
    why: str = ""
    curve: tuple[tuple[float, float], ...] = ()
    attempts: int = 1
    facts: Json = field(default_factory=dict)

    @property
    def key(self) -> str:
        """What names the point of the space."""
        return key_of(self.parameters)

    @property
    def done(self) -> bool:
        """Whether it has values."""
        return self.state == "done"

    def to_json(self) -> Json:
        """Return a plain dictionary."""
        return asdict(self)

    @classmethod
    def from_json(cls, held: Json) -> Self:
        """Return what `to_json` wrote."""
        return cls(**{**held, "curve": tuple((x, y) for x, y in held.get("curve", ()))})


def excess(trial: Trial, objectives: Sequence[Objective]) -> float:
    """Return by how much a trial exceeds the limits, all together; 0 where it keeps them."""
    return sum(o.excess(trial.values[o.name]) for o in objectives)


def rank(trials: Sequence[Trial], objectives: Sequence[Objective]) -> list[Trial]:
    """Return the trials that are done, best first: those within the limits, by the first objective.

    Of trials beyond the limits, the one that exceeds them least comes first.

    Raises:
        UsageError: no objective.
    """
    if not objectives:
        raise UsageError("a search needs an objective")
    first = objectives[0]
    done = [trial for trial in trials if trial.done]
    return sorted(
        done,
        key=lambda t: (excess(t, objectives), first.loss(t.values[first.name]), t.number),
    )
