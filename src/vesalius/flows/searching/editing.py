# SPDX-License-Identifier: Apache-2.0
"""Edits that searches of every task make in a plan: the optimizer, the augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vesalius.types import Json

METHODS = ("display", "mad", "zscore", "percentile")
SMALLEST_BATCH = 4


def normalizations(planned: str) -> Json:
    """Return the choice of a normalization, the planned one first."""
    return {"kind": "choice", "values": [planned, *(name for name in METHODS if name != planned)]}


def strength() -> Json:
    """Return how strong the augmentation is: 1 as planned, 0 none."""
    return {"kind": "float", "low": 0.0, "high": 2.0, "default": 1.0}


def edit_optimizer(spec: Json, parameters: Json, names: Sequence[str]) -> None:
    """Put a point's values into an optimizer, in place."""
    for name in names:
        spec[name] = parameters.get(name, spec[name])


def augmented(planned: Json, parameters: Json) -> Json:
    """Return a planned augmentation at the point's strength."""
    by = parameters.get("augmentation", 1.0)
    return {name: _stronger(name, value, by) for name, value in planned.items()}


def _stronger(name: str, value: Any, by: float) -> Any:
    if not isinstance(value, float):
        return value
    return min(180.0, value * by) if name == "rotation" else value * by
