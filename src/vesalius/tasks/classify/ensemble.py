# SPDX-License-Identifier: Apache-2.0
"""Which members answer together, and with what weight: greedy selection, with replacement.

Caruana, Niculescu-Mizil, Crew, Ksikes: Ensemble Selection from Libraries of Models, ICML 2004.
The member that lowers the loss of the mixture most is added, again and again; this is repeated
on draws of the patients ("bagged selection", the paper's cure for small validation sets), and the
weights are the means.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vesalius.metrics.bootstrap import patient_index
from vesalius.tasks.targets import Target
from vesalius.types import Array

ROUNDS, DRAWS = 12, 24
LEAST = 0.05  # a smaller weight is not worth a member's computing time
_SMALLEST = 1e-4


def select(
    tables: Sequence[Array],
    truths: Sequence[str],
    patients: Sequence[Any],
    target: Target,
    *,
    seed: int = 0,
) -> Array:
    """Return one weight per member, summing to 1; many are 0.

    Args:
        tables: for each member its answers `(n, ...)`, as `Target.probabilities` gives them, on
            rows that it was not trained on.
        truths: of the rows.
        patients: of the rows; draws are by patient.
        target: of the truths.
        seed: of the draws.
    """
    stack = np.stack([np.asarray(table, np.float64) for table in tables])  # (m, n, c)
    codes = target.encode(truths)
    index, count = patient_index(patients, len(truths))
    rng = np.random.default_rng(seed)
    total = np.zeros(len(stack))
    for draw in range(DRAWS):
        times = np.bincount(rng.integers(0, count, count), minlength=count)[index]
        weights = times.astype(float) if draw else np.ones(len(index))
        total += _greedy(stack, codes, weights, target)
    total /= total.sum()
    total[total < LEAST] = 0
    return np.asarray(total / total.sum())


def mix(tables: Sequence[Array], weights: Array) -> Array:
    """Return the weighted mean of the members' answers."""
    return np.asarray(np.einsum("m,mnc->nc", weights, np.stack(tables)))


def losses(table: Array, codes: Array, target: Target) -> Array:
    """Return the loss of each row `(n,)`: nats, or squared standard deviations of a regression."""
    if target.kind == "regression":
        found = ((table[..., 0] - target.unit_mean) / target.unit_sd - codes) ** 2
    elif target.kind == "multilabel":
        p = np.clip(table, _SMALLEST, 1 - _SMALLEST)
        each = -(codes * np.log(p) + (1 - codes) * np.log(1 - p))
        found = np.nanmean(each, axis=-1)
    else:
        own = np.take_along_axis(table, np.broadcast_to(codes, table.shape[:-1])[..., None], -1)
        found = -np.log(np.maximum(own[..., 0], _SMALLEST))
    return np.asarray(found)


def _greedy(stack: Array, codes: Array, weights: Array, target: Target) -> Array:
    chosen = np.zeros(len(stack))
    total = np.zeros(stack.shape[1:])
    for size in range(1, ROUNDS + 1):
        tried = losses((total + stack) / size, codes, target) @ weights
        best = int(tried.argmin())
        chosen[best] += 1
        total += stack[best]
    return chosen / ROUNDS
