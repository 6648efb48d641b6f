# SPDX-License-Identifier: Apache-2.0
"""The one score that a search climbs by, out of a run's metrics."""

from __future__ import annotations

from vesalius.errors import RunError
from vesalius.types import Json


def score_of(metrics: Json, split: str, name: str) -> Json:
    """Return a score of all classes or structures from `metrics.json`.

    Raises:
        RunError: it was not scored.
    """
    for score in metrics["splits"][split]["scores"]:
        if score["name"] == name and not score["label"]:
            held: Json = score
            return held
    raise RunError(f"'{name}' is not among the scores of '{split}'")
