# SPDX-License-Identifier: Apache-2.0
"""Decision curve: what acting on the probabilities gains over acting on all, or none.

Net benefit at a threshold t is the share of true positives minus t/(1 - t) times that of false
positives (Vickers & Elkin 2006): t is the chance of disease at which a user would just act.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vesalius.metrics.bootstrap import DRAWS, LEVEL, patient_draws, patient_index
from vesalius.types import Array, Json

THRESHOLDS = tuple(percent / 100 for percent in (*range(1, 20), *range(20, 100, 5), 99))


def decision_curve(
    positive: Array,
    values: Array,
    patients: Sequence[Any] | Array,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Json:
    """Return net benefit per case over thresholds, of the model and of both trivial policies.

    Args:
        positive: `(n,)`, True for cases of the class.
        values: `(n,)` probabilities; a case is treated at `value >= threshold`. Failed cases are
            given by `rank_values`: the wrong deed at every threshold.
        patients: `(n,)`; the intervals draw patients.
        draws, seed: of the bootstrap.

    Returns:
        `{"threshold", "model", "low", "high", "treat_all", "treat_none"}`, lists of one length
        (`low` and `high`: the 95 % interval, None with a single patient); `treat_none` is 0.
    """
    thresholds = np.array(THRESHOLDS)
    positive = np.asarray(positive, bool)
    index, n_patients = patient_index(patients, len(positive))
    gains = np.where(positive[:, None], 1.0, -thresholds / (1 - thresholds))  # (n, thresholds)
    treated = gains * (np.asarray(values)[:, None] >= thresholds)

    def benefit(weights: Array) -> Array:
        means: Array = weights @ treated / weights.sum(1, keepdims=True)
        return means

    tail = 50 * (1 - LEVEL)
    low: list[float] | None = None
    high: list[float] | None = None
    if n_patients > 1:
        samples = patient_draws(benefit, index, draws=draws, seed=seed)
        low, high = (bound.tolist() for bound in np.percentile(samples, [tail, 100 - tail], axis=0))
    return {
        "threshold": thresholds.tolist(),
        "model": treated.mean(0).tolist(),
        "low": low,
        "high": high,
        "treat_all": gains.mean(0).tolist(),
        "treat_none": 0.0,
    }
