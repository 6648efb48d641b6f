# SPDX-License-Identifier: Apache-2.0
"""Random search at full fidelity: the baseline that any other tuner has to beat.

Bergstra, Bengio: Random Search for Hyper-Parameter Optimization, JMLR 2012.
"""

from __future__ import annotations

from dataclasses import dataclass

from vesalius.tuning.protocol import Proposal
from vesalius.tuning.space import Space
from vesalius.tuning.told import Told
from vesalius.tuning.trial import Trial


@dataclass(slots=True)
class RandomSearch:
    """Every point of the space as likely as the others, at the top rung."""

    space: Space
    top: int
    told: Told

    def ask(self) -> Proposal | None:
        """See `Tuner.ask`."""
        rng = self.told.rng()
        point = self.told.fresh(lambda: self.space.draw(rng), lambda _: self.top)
        return None if point is None else Proposal(point, self.top, "random")

    def tell(self, trial: Trial) -> None:
        """See `Tuner.tell`."""
        self.told.add(trial)
