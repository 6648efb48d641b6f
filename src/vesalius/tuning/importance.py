# SPDX-License-Identifier: Apache-2.0
"""How much each parameter moves the quality: the share of the model's variance that it makes alone.

The first-order index of Sobol (1993), taken over the whole space, of the Gaussian process that was
fitted on all trials (as Hutter, Hoos, Leyton-Brown: An Efficient Approach for Assessing
Hyperparameter Importance, ICML 2014, take it of a forest).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vesalius.tuning.space import Space
from vesalius.tuning.surrogate import Surrogate
from vesalius.tuning.trial import Objective, Trial
from vesalius.types import Array, Json

_FEWEST = 8  # trials below which nothing is said
_POINTS, _VALUES = 60, 8


def importance(
    space: Space, trials: Sequence[Trial], objective: Objective, *, seed: int = 0
) -> dict[str, float]:
    """Return parameter -> share of the variance, the largest first; empty where trials are few.

    What depends on another parameter counts where it exists, with the share of points that have it.
    """
    done = [trial for trial in trials if trial.done]
    if len(done) < _FEWEST:
        return {}
    top = max(1, *(trial.rung for trial in done))
    model = Surrogate.fit(
        np.stack([space.encode(trial.parameters) for trial in done]),
        np.array([trial.rung / top for trial in done]),
        np.array([objective.loss(trial.values[objective.name]) for trial in done]),
    )
    rng = np.random.default_rng(seed)
    points = [space.draw(rng) for _ in range(_POINTS)]
    whole = _predicted(model, space, points)
    found: dict[str, float] = {}
    for parameter in space.parameters:
        having = [point for point in points if parameter.name in point]
        if not having or whole.var() == 0:
            continue
        means = []
        values = [parameter.at((n + 0.5) / _VALUES) for n in range(_VALUES)]
        for value in dict.fromkeys(values):
            changed = [_with(space, point, parameter.name, value) for point in having]
            means.append(float(_predicted(model, space, changed).mean()))
        share = float(np.var(means)) / float(whole.var()) * len(having) / len(points)
        found[parameter.name] = min(1.0, share)
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def _with(space: Space, point: Json, name: str, value: object) -> Json:
    """Return the point with one value changed, and with what then exists or does not."""
    changed = {**point, name: value}
    defaults = space.defaults(**changed)
    return {key: changed.get(key, default) for key, default in defaults.items()}


def _predicted(model: Surrogate, space: Space, points: Sequence[Json]) -> Array:
    encoded = np.stack([space.encode(point) for point in points])
    return model.predict(encoded, np.ones(len(points)))[0]
