# SPDX-License-Identifier: Apache-2.0
"""Two fits of few numbers: a line of least absolute deviations, and a logistic curve."""

from __future__ import annotations

import numpy as np

from vesalius.types import Array

_PAIRED = 150
_NEWTON = 50
_RIDGE = 1e-2  # keeps the curve finite where scores part hits from misses without fault


def fit_line(x: Array, y: Array) -> tuple[float, float]:
    """Return scale, not negative, and shift of the line of least absolute deviations.

    Such a line runs through two of the points, or is level at the median (Bloomfield & Steiger
    1983); all pairs of at most `_PAIRED` evenly chosen points are tried.
    """
    chosen = np.unique(np.linspace(0, len(x) - 1, min(len(x), _PAIRED)).astype(int))
    a, b = np.triu_indices(len(chosen), 1)
    run, rise = x[chosen[b]] - x[chosen[a]], y[chosen[b]] - y[chosen[a]]
    with np.errstate(divide="ignore", invalid="ignore"):
        scales = rise / run
    fit = np.isfinite(scales) & (scales >= 0)
    lines = [(0.0, float(np.median(y)))]
    lines += list(zip(scales[fit], (y[chosen[a]] - scales * x[chosen[a]])[fit], strict=True))
    table = np.array(lines)
    errors = np.concatenate(
        [
            np.abs(np.outer(part[:, 0], x) + part[:, 1:] - y).mean(axis=1)
            for part in np.array_split(table, 1 + len(table) // 2000)
        ]
    )
    scale, shift = table[int(errors.argmin())]
    return float(scale), float(shift)


def fit_logistic(x: Array, hits: Array) -> tuple[float, float]:
    """Return slope and intercept of the logistic curve of greatest likelihood.

    A small ridge around slope 1 and intercept 0 decides where the data do not.

    Args:
        x: `(n,)` logits of scores.
        hits: `(n,)` Boolean.
    """
    design = np.column_stack([x, np.ones_like(x)])
    start = np.array([1.0, 0.0])
    theta = start.copy()
    for _ in range(_NEWTON):
        p = sigmoid(design @ theta)
        gradient = design.T @ (p - hits) + _RIDGE * (theta - start)
        hessian = design.T @ (design * (p * (1 - p))[:, None]) + _RIDGE * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        theta = theta - step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-9:
            break
    return float(theta[0]), float(theta[1])


def logit(scores: Array) -> Array:
    """Return the logarithm of the odds, of probabilities kept off 0 and 1."""
    p = np.clip(scores, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(p / (1 - p)))


def sigmoid(x: Array) -> Array:
    """Return the probability of a logit."""
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -500, 500))))
