# SPDX-License-Identifier: Apache-2.0
"""Scores of one set of cases under several seeds: their mean, its interval, and each."""

from __future__ import annotations

from typing import Any

import numpy as np

from vesalius.metrics import classification_statistics
from vesalius.types import Array

DRAWS = 2000


def over_seeds(
    truth: Array, tables: dict[int, Array], classes: list[str], names: tuple[str, ...]
) -> dict[str, dict[str, Any]]:
    """Return of each score the mean over seeds, its 95 % interval and the value of each seed.

    The interval draws cases anew, the same ones for every seed, and takes the mean over seeds of
    each draw: a case's luck is shared by the seeds, so they do not count as more cases.

    Args:
        truth: `(n,)` class indices.
        tables: seed -> `(n, classes)` probabilities.
        classes: their names.
        names: of the scores, those of all classes together.
    """
    rng = np.random.default_rng(0)
    draws = rng.multinomial(len(truth), np.full(len(truth), 1 / len(truth)), DRAWS).astype(float)
    whole = np.ones((1, len(truth)))
    held = {seed: classification_statistics(truth, t, classes) for seed, t in tables.items()}
    found = {}
    for name in names:
        column = next(iter(held.values())).names.index((name, ""))
        own = {seed: float(s.of(whole)[0, column]) for seed, s in held.items()}
        means = np.mean([s.of(draws)[:, column] for s in held.values()], axis=0)
        low, high = np.nanpercentile(means, (2.5, 97.5))
        found[name] = {
            "value": float(np.mean(list(own.values()))), "low": float(low), "high": float(high),
            "seeds": own,
        }  # fmt: skip
    return found


def words(found: dict[str, Any]) -> str:
    """Return the interval and the seeds' values of one score, as a bar's spread says it."""
    each = ", ".join(f"{value:.3f}" for value in found["seeds"].values())
    return f"{found['low']:.3f} to {found['high']:.3f}; seeds {each}"
