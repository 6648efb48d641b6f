# SPDX-License-Identifier: Apache-2.0
"""Asynchronous successive halving: cheap trials are many, and the best of each rung climb.

Li, Jamieson, Rostamizadeh, Gonina, Hardt, Recht, Talwalkar: A System for Massively Parallel
Hyperparameter Tuning, MLSys 2020. A point is a bandit's arm, a rung the effort that is spent on it:
whenever something may begin, the best third of a rung may climb; where none may, a new arm begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from vesalius.tuning.protocol import Proposal
from vesalius.tuning.space import Space
from vesalius.tuning.told import Told, at_rung
from vesalius.tuning.trial import Objective, Trial, excess, rank
from vesalius.types import Json

REDUCTION = 3  # one of so many climbs; the paper's 4 leaves short searches without a finished trial


@dataclass(frozen=True, slots=True)
class Ladder:
    """The rungs of a search.

    Attributes:
        rungs: how many, from cheapest to full.
        lowest: the first rung at which a point makes sense: one that takes no steps has the last
            one alone.
        reduction: one of so many climbs.
    """

    rungs: int
    lowest: Callable[[Json], int] = lambda _: 0
    reduction: int = REDUCTION

    @property
    def top(self) -> int:
        """The rung of full fidelity."""
        return self.rungs - 1

    def climbers(self, trials: Sequence[Trial], objectives: Sequence[Objective]) -> Iterator[Trial]:
        """Yield the trials that may be repeated one rung higher, from the highest rung down.

        Trials beyond the limits stay where they are: a limit concerns what does not change with the
        fidelity.
        """
        for rung in reversed(range(self.top)):
            above = {trial.key for trial in trials if trial.rung > rung}
            ranked = rank(at_rung(trials, rung), objectives)
            for trial in ranked[: len(ranked) // self.reduction]:
                if trial.key not in above and not excess(trial, objectives):
                    yield trial


@dataclass(slots=True)
class Asha:
    """Random points on a ladder."""

    space: Space
    objectives: Sequence[Objective]
    ladder: Ladder
    told: Told

    def ask(self) -> Proposal | None:
        """See `Tuner.ask`."""
        trials = list(self.told.trials.values())
        climber = next(self.ladder.climbers(trials, self.objectives), None)
        if climber is not None:
            why = f"trial {climber.number} climbs"
            return Proposal(dict(climber.parameters), climber.rung + 1, why)
        rng = self.told.rng()
        point = self.told.fresh(lambda: self.space.draw(rng), self.ladder.lowest)
        if point is None:
            return None
        return Proposal(point, self.ladder.lowest(point), "random")

    def tell(self, trial: Trial) -> None:
        """See `Tuner.tell`."""
        self.told.add(trial)
