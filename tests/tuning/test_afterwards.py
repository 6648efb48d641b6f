# SPDX-License-Identifier: Apache-2.0
"""After a search: what being the best of many is worth, and which parameters mattered."""

from __future__ import annotations

import numpy as np

from vesalius.tuning.importance import importance
from vesalius.tuning.optimism import corrected
from vesalius.tuning.space import Space
from vesalius.tuning.trial import Objective, Trial


def _accuracy(right: np.ndarray):
    """Return the scores of trials `(trials, groups)` as a function of weights."""
    return lambda weights: (right @ weights.T) / weights.sum(1)


def test_the_best_of_many_coins_is_a_coin() -> None:
    raws, values, covered = [], [], 0
    for seed in range(20):
        right = np.random.default_rng(seed).integers(0, 2, (50, 60)).astype(float)
        found = corrected(_accuracy(right), 60, seed=seed)
        assert found is not None
        raws.append(found.raw)
        values.append(found.value)
        covered += found.low <= 0.5 <= found.high
    assert np.mean(raws) > 0.6  # flattered
    assert abs(np.mean(values) - 0.5) < 0.03
    assert covered >= 18


def test_a_trial_that_is_truly_better_keeps_its_score() -> None:
    rng = np.random.default_rng(0)
    right = (rng.uniform(size=(10, 200)) < np.array([0.9] + [0.5] * 9)[:, None]).astype(float)
    found = corrected(_accuracy(right), 200)
    assert found is not None
    assert abs(found.value - right[0].mean()) < 0.01
    assert found.trials == 10


def test_nothing_defined_is_nothing_said() -> None:
    assert corrected(lambda weights: np.full((3, len(weights)), np.nan), 10) is None


def test_what_moves_the_quality_is_important() -> None:
    space = Space.from_json(
        {
            "format": "space 1",
            "parameters": {
                "model": {"kind": "choice", "values": ["a", "b"]},
                "much": {"kind": "float", "low": 0, "high": 1},
                "little": {"kind": "float", "low": 0, "high": 1},
                "only_b": {"kind": "float", "low": 0, "high": 1, "when": {"model": ["b"]}},
            },
        }
    )
    rng = np.random.default_rng(0)
    trials = []
    for number in range(80):
        point = space.draw(rng)
        quality = np.sin(2 * point["much"]) + 0.05 * point["little"]
        trials.append(Trial(number, point, 0, "done", {"auc": float(quality)}))
    found = importance(space, trials, Objective("auc", maximize=True))
    assert next(iter(found)) == "much"
    assert found["much"] > 0.7
    assert found["little"] < 0.1
    assert found["only_b"] < 0.1
    assert importance(space, trials[:5], Objective("auc", maximize=True)) == {}
