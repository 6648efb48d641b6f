# SPDX-License-Identifier: Apache-2.0
"""Choice among calibration methods by cross-validated loss, the simpler one where in doubt.

Breiman et al.: Classification and regression trees, 1984 (the one-standard-error rule).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vesalius.metrics.bootstrap import patient_index
from vesalius.types import Array

FOLDS = 5
MARGIN = 2.0  # with some dozens of rows one standard error lets luck choose
ONE_PATIENT = "rows of one patient only: probabilities are left as they are"


def choose_method(
    tried: Sequence[str], losses: Callable[[str, Array, Array], Array], folds: Array
) -> tuple[str, dict[str, float]]:
    """Return the method and each method's mean cross-validated loss.

    From simple to rich: the second replaces the first where it is better at all, a richer one only
    where its gain exceeds `MARGIN` times its standard error.
    """
    found: dict[str, Array] = {}
    if folds.max() > 0:
        for name in tried:
            found[name] = np.empty(len(folds))
            for fold in range(folds.max() + 1):
                held = np.flatnonzero(folds == fold)
                found[name][held] = losses(name, np.flatnonzero(folds != fold), held)
    chosen = tried[0]
    for name in tried[1:] if found else ():
        gain = found[chosen] - found[name]
        margin = 0.0 if name == tried[1] else MARGIN * float(gain.std(ddof=1)) / len(gain) ** 0.5
        if gain.mean() > margin:
            chosen = name
    return chosen, {name: float(loss.mean()) for name, loss in found.items()}


def patient_folds(strata: Array, patients: Sequence[Any] | Array | None) -> Array:
    """Return each row's fold: patients whole, the strata spread evenly."""
    rows = len(strata)
    index, count = patient_index([None] * rows if patients is None else patients, rows)
    first = np.unique(index, return_index=True)[1]
    shuffled = np.random.default_rng(0).permutation(count)
    order = shuffled[np.argsort(strata[first[shuffled]], kind="stable")]
    fold = np.empty(count, np.int64)
    fold[order] = np.arange(count) % min(FOLDS, count)
    return np.asarray(fold[index])
