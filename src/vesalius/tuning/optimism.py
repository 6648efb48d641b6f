# SPDX-License-Identifier: Apache-2.0
"""What the best of many trials is worth, when the cases that chose it also scored it.

Tsamardinos, Greasidou, Borboudakis: Bootstrapping the out-of-sample predictions for efficient and
accurate cross-validation, Machine Learning 2018. Cases are drawn again and again; in each draw the
trial that is best on the cases drawn is scored on those that were not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from vesalius.types import Array, Json

DRAWS = 500
_LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Corrected:
    """A score without the flattery of having been chosen by it.

    Attributes:
        raw: of the best trial, on the cases that chose it.
        value: corrected.
        low, high: 95 % interval of the corrected score.
        trials: that were chosen from.
        groups: of cases that are drawn as a whole.
    """

    raw: float
    value: float
    low: float
    high: float
    trials: int
    groups: int

    def to_json(self) -> Json:
        """Return a plain dictionary."""
        return asdict(self)


def corrected(
    scores: Callable[[Array], Array], groups: int, *, draws: int = DRAWS, seed: int = 0
) -> Corrected | None:
    """Return the corrected score of the best trial, None where no draw defines it.

    Args:
        scores: weights `(draws, groups)` -> scores `(trials, draws)`, more is better, NaN where
            undefined.
        groups: how many groups of cases there are.
        draws: how often cases are drawn.
        seed: of the draws.
    """
    rng = np.random.default_rng([seed, groups])
    drawn = rng.multinomial(groups, np.full(groups, 1 / groups), size=draws).astype(float)
    drawn = drawn[(drawn == 0).any(1)]  # of the others nothing is left to score on
    inside = scores(drawn)  # (trials, draws)
    outside = scores((drawn == 0).astype(float))
    defined = np.isfinite(inside).any(0)
    if not defined.any():
        return None
    best = np.nan_to_num(inside[:, defined], nan=-np.inf).argmax(0)
    held = outside[:, defined][best, np.arange(defined.sum())]
    held = held[np.isfinite(held)]
    raw = scores(np.ones((1, groups)))[:, 0]
    if not len(held) or not np.isfinite(raw).any():
        return None
    low, high = np.quantile(held, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Corrected(
        float(np.nanmax(raw)), float(held.mean()), float(low), float(high), len(raw), groups
    )
