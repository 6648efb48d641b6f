# SPDX-License-Identifier: Apache-2.0
"""Counts of truth against prediction, and the correlation between the two."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vesalius.metrics.probabilities import answered, checked
from vesalius.types import Array, Json


def confusion(
    truth: Array, probabilities: Array, classes: Sequence[str], *, failed: Array | None = None
) -> Json:
    """Return `{"classes", "matrix" (row: truth, column: predicted), "failed" (per truth)}`."""
    truth, probabilities, failed = checked(truth, probabilities, classes, failed)
    count = len(classes)
    predicted = answered(probabilities, failed)
    cells = np.bincount((truth * count + predicted)[~failed], minlength=count * count)
    return {
        "classes": list(classes),
        "matrix": cells.reshape(count, count).tolist(),
        "failed": np.bincount(truth[failed], minlength=count).tolist(),
    }


def matthews(actual: Array, predicted: Array, hits: Array) -> Array:
    """Return the correlation R_K of Gorodkin (2004) for each draw, `(draws,)`; of two classes MCC.

    From the weight of each class, `(draws, classes)`: in truth, in prediction, and of its hits.
    0 where a single class is predicted; NaN where a single class is true.
    """
    total = actual.sum(1)
    shared = hits.sum(1) * total - (actual * predicted).sum(1)
    true_spread = total**2 - (actual**2).sum(1)
    predicted_spread = total**2 - (predicted**2).sum(1)
    norm = np.sqrt(true_spread * predicted_spread)
    found = np.divide(shared, norm, out=np.zeros_like(shared), where=norm > 0)
    return np.where(true_spread > 0, found, np.nan)
