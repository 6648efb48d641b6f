# SPDX-License-Identifier: Apache-2.0
"""The paired difference of two predictors' scores on the same cases.

Both are scored on the same draws of patients (`bootstrap`), so that what makes a draw easy or hard
falls out of the difference (Efron & Tibshirani 1993, ch. 8 and 16).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vesalius.errors import UsageError
from vesalius.metrics.bootstrap import (
    DRAWS,
    FEW_PATIENTS,
    LEVEL,
    Statistics,
    joined,
    patient_draws,
    patient_index,
)
from vesalius.types import Array, Json

LOWER_IS_BETTER = frozenset(
    {
        "brier", "nll", "ece", "grade_mae", "count_mae", "mae", "rmse", "interval_width", "hd95",
        "volume_error",
    }
)  # fmt: skip
IDEALS: Mapping[str, float] = {"calibration_slope": 1.0, "calibration_intercept": 0.0}


@dataclass(frozen=True, slots=True)
class Difference:
    """One score of two predictors, A and B, on the same cases.

    Attributes:
        name, label: of the score.
        a, b: its values; None where undefined.
        difference: b - a.
        low, high: its 95 % interval, clustered by patient; None where it is undefined.
        p_better: the share of draws in which B is better; a tie counts half.
        better: which way is better: `higher`, `lower` or `nearer to X`.
        verdict: `B better` or `A better` where 97.5 % of the draws say so, else `not told apart`.
        n, n_patients: cases and independent patients.
        note: a remark.
    """

    name: str
    label: str
    a: float | None
    b: float | None
    difference: float | None
    low: float | None
    high: float | None
    p_better: float | None
    better: str
    verdict: str
    n: int
    n_patients: int
    note: str = ""

    def to_json(self) -> Json:
        """Return a plain dictionary."""
        return asdict(self)


def paired_differences(
    a: Statistics,
    b: Statistics,
    patients: Sequence[Any] | Array,
    *,
    ideals: Mapping[str, float] = IDEALS,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Difference]:
    """Return B minus A for each score.

    Args:
        a, b: the same scores of the same cases in the same order.
        patients: `(n,)` pseudonyms; the draws are of patients.
        ideals: the best value of scores that are best neither high nor low.
        draws, seed: of the bootstrap.

    Raises `UsageError` when the two hold different scores or numbers of cases.
    """
    if a.names != b.names or a.cases != b.cases:
        raise UsageError(
            f"a and b must hold the same scores of the same cases, got {len(a.names)} scores of "
            f"{a.cases} cases and {len(b.names)} of {b.cases}"
        )
    index, n_patients = patient_index(patients, a.cases)
    both = joined(a, b)
    values = both.values().reshape(2, -1)
    samples = patient_draws(both.of, index, draws=draws, seed=seed).reshape(draws, 2, -1)
    return [
        _difference(name, label, values[:, k], samples[:, :, k], a.cases, n_patients, ideals)
        for k, (name, label) in enumerate(a.names)
    ]


def _difference(
    name: str,
    label: str,
    values: Array,
    samples: Array,
    n: int,
    n_patients: int,
    ideals: Mapping[str, float],
) -> Difference:
    """Return one score's difference from its values `(2,)` and draws `(draws, 2)`."""
    better = "lower" if name in LOWER_IS_BETTER else "higher"
    if name in ideals:
        better = f"nearer to {ideals[name]:g}"
    first, second = (float(v) if np.isfinite(v) else None for v in values)
    if first is None or second is None:
        lacking = " and ".join(side for side, v in (("A", first), ("B", second)) if v is None)
        return Difference(
            name, label, first, second, None, None, None, None, better, "not told apart",
            n, n_patients, f"undefined for {lacking}",
        )  # fmt: skip
    defined = samples[np.isfinite(samples).all(1)]
    gained = _gain(defined, name, ideals)
    low: float | None = None
    high: float | None = None
    chance: float | None = None
    verdict = "not told apart"
    notes = []
    if len(defined) < len(samples):
        notes.append(f"draws in which it is undefined: {len(samples) - len(defined)}")
    if n_patients < 2:
        notes.append("one patient: no interval")
    elif len(defined):
        if n_patients < FEW_PATIENTS:
            notes.append(f"only {n_patients} patients: the interval is rough")
        tail = 50 * (1 - LEVEL)
        low, high = np.percentile(defined[:, 1] - defined[:, 0], [tail, 100 - tail]).tolist()
        chance = float((gained > 0).mean() + (gained == 0).mean() / 2)
        worst, best = np.percentile(gained, [tail, 100 - tail])
        verdict = "B better" if worst > 0 else "A better" if best < 0 else verdict
    return Difference(
        name, label, first, second, second - first, low, high, chance, better, verdict,
        n, n_patients, "; ".join(notes),
    )  # fmt: skip


def _gain(samples: Array, name: str, ideals: Mapping[str, float]) -> Array:
    """Return how much better B is in each draw, `(draws,)`; 1e-12 and less is a tie."""
    if name in ideals:
        samples = -np.abs(samples - ideals[name])
    elif name in LOWER_IS_BETTER:
        samples = -samples
    gained = samples[:, 1] - samples[:, 0]
    return np.where(np.abs(gained) > 1e-12, gained, 0.0)
