# SPDX-License-Identifier: Apache-2.0
"""What a tuner was told, and the questions that every tuner asks of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from vesalius.tuning.space import key_of
from vesalius.tuning.trial import Trial
from vesalius.types import Json

_TRIES = 64  # draws before a space counts as used up


@dataclass(slots=True)
class Told:
    """The trials that a tuner knows, by number."""

    seed: int
    trials: dict[int, Trial] = field(default_factory=dict)
    _begun: set[tuple[str, int]] = field(default_factory=set)

    def add(self, trial: Trial) -> None:
        """Take note of a trial, or of its end."""
        self.trials[trial.number] = trial
        self._begun.add((trial.key, trial.rung))

    def begun(self, parameters: Json, rung: int) -> bool:
        """Return whether a point was tried at a rung, or is being tried."""
        return (key_of(parameters), rung) in self._begun

    def done(self) -> list[Trial]:
        """Return the trials that have values, in order."""
        return [trial for trial in self.trials.values() if trial.done]

    def rng(self) -> np.random.Generator:
        """Return the generator of the next draw; it depends on the seed and the trials' count."""
        return np.random.default_rng([self.seed, len(self.trials)])

    def fresh(self, draw: Callable[[], Json], lowest: Callable[[Json], int]) -> Json | None:
        """Return a point that was not tried at its lowest rung, None where none is found."""
        for _ in range(_TRIES):
            point = draw()
            if not self.begun(point, lowest(point)):
                return point
        return None


def at_rung(trials: Sequence[Trial], rung: int) -> list[Trial]:
    """Return the trials of one fidelity."""
    return [trial for trial in trials if trial.rung == rung]
