# SPDX-License-Identifier: Apache-2.0
"""Whether probabilities mean what they say: binned confidence, recalibration slope and intercept.

Slope and intercept are those of Cox (1958) as Van Calster et al. (2019) advise them: the slope of
a logistic regression on the logarithms of the probabilities, its intercepts free; the intercept of
one whose slope is held at 1. Ideal are 1 and 0; a slope below 1 says that the probabilities are
too extreme.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vesalius.metrics.probabilities import SMALLEST, answered
from vesalius.types import Array, Json

BINS = 15  # of the expected calibration error (Guo et al. 2017)
_PRIOR = 0.1**2  # precision of the normal prior on each coefficient: keeps empty classes finite
_MOST_ITERATIONS = 200


def calibration(
    truth: Array, probabilities: Array, *, failed: Array | None = None, bins: int = BINS
) -> list[Json]:
    """Return the filled bins of the top class's confidence: `{"confidence", "accuracy", "n"}`."""
    failed = np.zeros(len(truth), bool) if failed is None else np.asarray(failed, bool)
    confidence, correct = _confidence(np.asarray(truth), np.asarray(probabilities), failed)
    number = _bin(confidence, bins)
    return [
        {
            "confidence": float(confidence[number == b].mean()),
            "accuracy": float(correct[number == b].mean()),
            "n": int((number == b).sum()),
        }
        for b in np.unique(number)
    ]


def confidence_gaps(truth: Array, probabilities: Array, failed: Array) -> Array:
    """Return each case's confidence minus correctness in the column of its bin, `(n, BINS)`.

    The expected calibration error is the sum over bins of the magnitude of the column's mean.
    """
    confidence, correct = _confidence(truth, probabilities, failed)
    gaps: Array = np.eye(BINS)[_bin(confidence, BINS)] * (confidence - correct)[:, None]
    return gaps


def slope(truth: Array, probabilities: Array) -> tuple[float, Array]:
    """Return the recalibration slope, shared by all classes, and each case's influence `(n,)`.

    The model is softmax(slope · log p + one intercept per class): with two classes a logistic
    regression on the logit. It is undefined (NaN, no influence) where the slope is without limit:
    cases of a single class, equal predictions, or every case's own class on top.

    The slope of cases that weigh w is to first order slope + n · Σ w·influence / Σ w (the
    infinitesimal jackknife, Jaeckel 1972). Its bootstrap needs no new fit, and its intervals hold
    1 more often than refits, which separated draws pull upwards.
    """
    n, count = probabilities.shape
    logs = np.log(np.clip(probabilities, SMALLEST, 1))  # (n, C)
    relative = logs - logs[:, :1]
    own = np.eye(count)[truth]
    separated = (
        _separated(relative[:, 1], truth)
        if count == 2
        else ((np.argmax(probabilities, axis=1) == truth).all())
    )
    if (np.ptp(relative, axis=0) < 1e-9).all() or separated or len(np.unique(truth)) < 2:
        return float("nan"), np.zeros(n)
    prior = np.zeros(count)
    prior[0] = 1.0

    def evaluate(at: Array) -> tuple[float, Array, Array]:
        exponents = at[0] * relative + np.append(0, at[1:])
        exponents -= exponents.max(1, keepdims=True)
        chances = np.exp(exponents)
        totals = chances.sum(1, keepdims=True)
        chances /= totals
        likelihood = float((own * (exponents - np.log(totals))).sum())
        mean = (chances * relative).sum(1)
        gradient = np.column_stack([((own - chances) * relative).sum(1), (own - chances)[:, 1:]])
        information = np.empty((count, count))
        information[0, 0] = ((chances * relative**2).sum(1) - mean**2).sum()
        across = (chances * (relative - mean[:, None])).sum(0)
        information[0, 1:] = information[1:, 0] = across[1:]
        information[1:, 1:] = (np.diag(chances.sum(0)) - chances.T @ chances)[1:, 1:]
        return likelihood, gradient, information

    fitted, influence = _fit(prior, evaluate)
    return float(fitted[0]), influence[:, 0]


def intercept(positive: Array, probability: Array) -> tuple[float, Array]:
    """Return the recalibration intercept (logit) of one class against the rest, and influences.

    The model is logistic(logit p + intercept); positive where the class occurs more often than
    predicted. NaN where all cases, or none, are of the class. Influences as for `slope`.
    """
    positive = np.asarray(positive, bool)
    if positive.all() or not positive.any():
        return float("nan"), np.zeros(len(positive))
    held = np.clip(probability, SMALLEST, 1 - SMALLEST)
    offset = np.log(held) - np.log1p(-held)

    def evaluate(at: Array) -> tuple[float, Array, Array]:
        logits = offset + at[0]
        chances = 1 / (1 + np.exp(-logits))
        likelihood = float((positive * logits - np.logaddexp(0, logits)).sum())
        information = (chances * (1 - chances)).sum()
        return likelihood, (positive - chances)[:, None], information[None, None]

    fitted, influence = _fit(np.zeros(1), evaluate)
    return float(fitted[0]), influence[:, 0]


def _fit(
    prior: Array, evaluate: Callable[[Array], tuple[float, Array, Array]]
) -> tuple[Array, Array]:
    """Return the coefficients that fit best, near `prior` in doubt, and the influences `(n, P)`.

    `evaluate` gives the log-likelihood (concave), its gradient per case and its information.
    Newton's method; a step that does not ascend is halved.
    """
    ridge = np.full(len(prior), _PRIOR)
    at, last, best = prior, prior, -np.inf
    for _ in range(_MOST_ITERATIONS):
        likelihood, gradient, information = evaluate(at)
        reached = likelihood - 0.5 * float((ridge * (at - prior) ** 2).sum())
        if reached < best - 1e-9 * abs(best):
            at = (at + last) / 2
            continue
        curvature = information + np.diag(ridge)
        step = np.linalg.solve(curvature, gradient.sum(0) - ridge * (at - prior))
        last, best, at = at, reached, at + step
        if np.abs(step).max() < 1e-7:  # quadratic convergence: what is left is below rounding
            break
    else:
        raise RuntimeError(f"Newton's method did not settle in {_MOST_ITERATIONS} iterations")
    centered = gradient - gradient.mean(0)
    return at, np.linalg.solve(curvature, centered.T).T


def _separated(values: Array, positive: Array) -> bool:
    """Return whether one threshold parts the two classes, in either direction."""
    ones, zeros = values[positive == 1], values[positive == 0]
    return (
        len(ones) > 0
        and len(zeros) > 0
        and bool(ones.min() >= zeros.max() or ones.max() <= zeros.min())
    )


def _confidence(truth: Array, probabilities: Array, failed: Array) -> tuple[Array, Array]:
    confidence = np.where(failed, 1.0, probabilities.max(1))
    return confidence, (answered(probabilities, failed) == truth).astype(float)


def _bin(confidence: Array, bins: int) -> Array:
    number: Array = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return number
