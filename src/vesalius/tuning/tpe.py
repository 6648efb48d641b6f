# SPDX-License-Identifier: Apache-2.0
"""The tree-structured Parzen estimator of Optuna, at full fidelity: a plain model-based baseline.

Bergstra, Bardenet, Bengio, Kegl: Algorithms for Hyper-Parameter Optimization, NeurIPS 2011; Akiba,
Sano, Yanase, Ohta, Koyama: Optuna, KDD 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vesalius.optional import require
from vesalius.tuning.parameter import Parameter
from vesalius.tuning.protocol import Proposal
from vesalius.tuning.space import Space
from vesalius.tuning.told import Told
from vesalius.tuning.trial import Objective, Trial, excess
from vesalius.types import Json

_BEYOND = 1e3  # loss of a trial beyond the limits, and more the more it exceeds them


class Tpe:
    """Optuna's sampler behind the interface of the others."""

    def __init__(self, space: Space, objectives: Sequence[Objective], top: int, told: Told) -> None:
        self.optuna = require("optuna", "the tuner 'tpe'")
        self.optuna.logging.set_verbosity(self.optuna.logging.WARNING)
        self.space, self.objectives, self.top, self.told = space, objectives, top, told
        self.study = self.optuna.create_study()
        self.distributions = {p.name: self._distribution(p) for p in space.parameters}
        for trial in told.done():
            self._learn(trial)

    def ask(self) -> Proposal | None:
        """See `Tuner.ask`."""
        seed = int(self.told.rng().integers(2**31))
        self.study.sampler = self.optuna.samplers.TPESampler(seed=seed)
        point = self.told.fresh(self._suggest, lambda _: self.top)
        if point is not None:
            return Proposal(point, self.top, "Parzen estimator")
        rng = self.told.rng()  # it insists on what was tried: one that has no numbers to vary
        point = self.told.fresh(lambda: self.space.draw(rng), lambda _: self.top)
        return None if point is None else Proposal(point, self.top, "random")

    def tell(self, trial: Trial) -> None:
        """See `Tuner.tell`."""
        if trial.done:
            self._learn(trial)
        self.told.add(trial)

    def _suggest(self) -> Json:
        asked = self.study.ask()
        held: Json = {}
        for parameter in self.space.parameters:
            if parameter.exists(held):
                held[parameter.name] = _suggested(asked, parameter)
        self.study.tell(asked, state=self.optuna.trial.TrialState.FAIL)  # told of when it is done
        return held

    def _learn(self, trial: Trial) -> None:
        first, over = self.objectives[0], excess(trial, self.objectives)
        value = first.loss(trial.values[first.name])
        self.study.add_trial(
            self.optuna.trial.create_trial(
                params=dict(trial.parameters),
                distributions={name: self.distributions[name] for name in trial.parameters},
                value=_BEYOND * (1 + over) if over else value,
            )
        )

    def _distribution(self, parameter: Parameter) -> Any:
        kinds: Any = self.optuna.distributions
        if parameter.kind == "choice":
            return kinds.CategoricalDistribution(parameter.values)
        kind = kinds.IntDistribution if parameter.kind == "int" else kinds.FloatDistribution
        return kind(parameter.low, parameter.high, log=parameter.log)


def _suggested(asked: Any, parameter: Parameter) -> Any:
    """Return the value that Optuna suggests for one parameter."""
    if parameter.kind == "choice":
        return asked.suggest_categorical(parameter.name, parameter.values)
    suggest = asked.suggest_int if parameter.kind == "int" else asked.suggest_float
    return suggest(parameter.name, parameter.low, parameter.high, log=parameter.log)
