# SPDX-License-Identifier: Apache-2.0
"""The tuner that searches use: a few known points first, then a ladder whose points a model picks.

Asynchronous successive halving decides how far a point is taken, a Gaussian process over points and
rungs which one begins (Klein, Tiao, Lienart, Archambeau, Seeger: Model-based Asynchronous
Hyperparameter and Neural Architecture Search, arXiv:2003.10865). A point is worth the improvement
that is expected of it at full fidelity, by second that its first rung takes (Snoek, Larochelle,
Adams, NeurIPS 2012), times the chance that it keeps the limits (Gardner et al., ICML 2014). Every
fourth point is picked by another trade between the objectives, drawn at random (Knowles: ParEGO,
IEEE Trans. Evol. Comput. 2006), so that the whole front is found and not its one end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from vesalius.tuning.asha import Ladder
from vesalius.tuning.pareto import losses
from vesalius.tuning.protocol import Proposal
from vesalius.tuning.space import Space
from vesalius.tuning.surrogate import Surrogate
from vesalius.tuning.told import Told
from vesalius.tuning.trial import Objective, Trial, rank
from vesalius.types import Array, Json

_FEWEST = 4  # trials before a model is asked
_DRAWN, _NEAR, _BEST = 200, 60, 5  # candidates: drawn at random; near the best; how many of these
_STEP = 0.15  # how near
_OTHER_TRADE = 4  # every so manieth point is picked by another trade
_MOST = 400  # trials that the model is fitted on, the latest


@dataclass(slots=True)
class ModelBased:
    """See the module.

    Attributes:
        space: of the points.
        objectives: the first one is the quality.
        ladder: of the fidelities.
        told: what is known.
        first: points to begin with, in order, each with its rung.
        cost_power: how much a second counts: 1 for improvement by second, 0 for improvement alone.
    """

    space: Space
    objectives: Sequence[Objective]
    ladder: Ladder
    told: Told
    first: Sequence[Proposal] = ()
    cost_power: float = 1.0

    def ask(self) -> Proposal | None:
        """See `Tuner.ask`."""
        for proposal in self.first:
            if not self.told.begun(proposal.parameters, proposal.rung):
                return proposal
        trials = list(self.told.trials.values())
        for climber in self.ladder.climbers(trials, self.objectives):
            if self._promising(climber):
                why = f"trial {climber.number} climbs"
                return Proposal(dict(climber.parameters), climber.rung + 1, why)
        point, why = self._new()
        return None if point is None else Proposal(point, self.ladder.lowest(point), why)

    def tell(self, trial: Trial) -> None:
        """See `Tuner.tell`."""
        self.told.add(trial)

    def _promising(self, climber: Trial) -> bool:
        """Return whether the model leaves a trial a chance of being the best full one."""
        done = self.told.done()[-_MOST:]
        full = [trial for trial in done if trial.rung == self.ladder.top]
        if len(done) < _FEWEST or not full:
            return True
        first = self.objectives[0]
        best = min(first.loss(trial.values[first.name]) for trial in full)
        seen = np.stack([self.space.encode(t.parameters) for t in done])
        values = _tamed(self._as_at_top(done))
        model = Surrogate.fit(seen, self._places([t.rung for t in done]), values)
        mean, sd = model.predict(self.space.encode(climber.parameters)[None], np.ones(1))
        return bool(mean[0] - sd[0] < best)

    def _new(self) -> tuple[Json | None, str]:
        rng = self.told.rng()
        done = self.told.done()[-_MOST:]
        if len(done) < _FEWEST:
            return self.told.fresh(lambda: self.space.draw(rng), self.ladder.lowest), "random"
        candidates = self._candidates(done, rng)
        if not candidates:
            return None, ""
        other = len(self.objectives) > 1 and len(self.told.trials) % _OTHER_TRADE == 0
        worth = self._worth(candidates, done, rng if other else None)
        why = "model, another trade" if other else "model"
        return candidates[int(worth.argmax())], why

    def _candidates(self, done: Sequence[Trial], rng: np.random.Generator) -> list[Json]:
        best = rank(done, self.objectives)[:_BEST]
        points = [self.space.draw(rng) for _ in range(_DRAWN)]
        points += [
            self.space.near(best[n % len(best)].parameters, rng, step=_STEP) for n in range(_NEAR)
        ]
        return [p for p in points if not self.told.begun(p, self.ladder.lowest(p))]

    def _worth(
        self, candidates: Sequence[Json], done: Sequence[Trial], rng: np.random.Generator | None
    ) -> Array:
        """Return the logarithm of what each candidate is worth `(m,)`."""
        seen = np.stack([self.space.encode(t.parameters) for t in done])
        places = self._places([t.rung for t in done])
        new = np.stack([self.space.encode(c) for c in candidates])
        full = np.ones(len(candidates))
        values = self._as_at_top(done)
        if rng is not None:
            values = _traded(np.column_stack([values, losses(done, self.objectives)[:, 1:]]), rng)
        else:
            values = _tamed(values)
        mean, sd = Surrogate.fit(seen, places, values).predict(new, full)
        kept = [not any(o.excess(t.values[o.name]) for o in self.objectives) for t in done]
        best = values[kept].min() if any(kept) else values.max()
        worth = _log_improvement(mean, sd, best)
        for objective in self.objectives[1:]:
            if objective.limit is not None:
                worth += self._log_chance(objective, done, seen, places, new)
        begun = self._places([self.ladder.lowest(c) for c in candidates])
        seconds = np.log(np.maximum([t.seconds for t in done], 1e-3))
        spent, _ = Surrogate.fit(seen, places, seconds).predict(new, begun)
        return np.asarray(worth - self.cost_power * spent)

    def _log_chance(
        self, of: Objective, done: Sequence[Trial], seen: Array, places: Array, new: Array
    ) -> Array:
        """Return the logarithm of the chance that each new point keeps a limit."""
        values = np.array([of.loss(t.values[of.name]) for t in done])
        mean, sd = Surrogate.fit(seen, places, values).predict(new, np.ones(len(new)))
        limit = of.loss(of.limit) if of.limit is not None else np.inf
        return np.asarray(norm.logcdf((limit - mean) / sd))

    def _as_at_top(self, done: Sequence[Trial]) -> Array:
        """Return the quality's losses less what climbing gains, as seen where points climbed."""
        first = self.objectives[0]
        by_rung: list[dict[str, float]] = [{} for _ in range(self.ladder.rungs)]
        for t in done:
            by_rung[t.rung][t.key] = first.loss(t.values[first.name])
        gains = np.zeros(self.ladder.rungs)
        for rung in reversed(range(self.ladder.top)):
            low, high = by_rung[rung], by_rung[rung + 1]
            both = [high[key] - low[key] for key in low.keys() & high.keys()]
            gains[rung] = gains[rung + 1] + (float(np.median(both)) if both else 0.0)
        values: Array = np.array([first.loss(t.values[first.name]) for t in done])
        return np.asarray(values + gains[[t.rung for t in done]])

    def _places(self, rungs: Sequence[int]) -> Array:
        return np.asarray(np.array(rungs, float) / max(1, self.ladder.top))


def _tamed(values: Array) -> Array:
    """Return losses without the far outliers: how bad a bad trial is tells nothing of good ones."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return np.asarray(np.minimum(values, middle + 3 * max(high - low, 1e-12)))


def _traded(table: Array, rng: np.random.Generator) -> Array:
    """Return the augmented Chebyshev loss of each row for a trade drawn at random."""
    low, high = table.min(0), table.max(0)
    even = (table - low) / np.where(high > low, high - low, 1.0)
    weights = rng.dirichlet(np.ones(table.shape[1]))
    return np.asarray((weights * even).max(1) + 0.05 * (weights * even).sum(1))


def _log_improvement(mean: Array, sd: Array, best: float) -> Array:
    """Return the logarithm of the expected improvement, stable far below the best."""
    z = (best - mean) / sd
    direct = np.log(np.maximum(z * norm.cdf(z) + norm.pdf(z), 1e-300))
    tail = norm.logpdf(z) - 2 * np.log(np.maximum(-z, 1.0))  # for z far below 0
    return np.asarray(np.log(sd) + np.where(z < -6, tail, direct))
