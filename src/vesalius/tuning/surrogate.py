# SPDX-License-Identifier: Apache-2.0
"""A Gaussian process over points and rungs: what a trial would give that was not made.

Rasmussen, Williams: Gaussian Processes for Machine Learning, MIT Press 2006, algorithm 2.1 and
equation 4.17 (Matern 5/2). Length and noise are chosen among a few by the marginal likelihood:
with the tens of trials that a search affords there is not more to be learned of them.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.spatial.distance import cdist

from vesalius.types import Array

_LENGTHS = (0.3, 0.6, 1.2, 2.4)  # of a point's numbers, where 1 is a whole way
_NOISES = (0.01, 0.1, 0.4)  # share of the variance that is chance
_RUNG_LENGTH = 1.5  # of a rung's place, where 1 is the whole ladder


@dataclass(frozen=True, slots=True)
class Surrogate:
    """A fitted process; see `fit`."""

    points: Array  # (n, d + 1), the last column the rung's place
    length: float
    noise: float
    factor: Array  # (n, n), lower
    weights: Array  # (n,)
    mean: float
    sd: float

    @classmethod
    def fit(cls, points: Array, places: Array, values: Array) -> Self:
        """Return the process given what was seen.

        Args:
            points: `(n, d)` as `Space.encode` gives them, n at least 1.
            places: `(n,)` of the rungs, from 0 (cheapest) to 1 (full).
            values: `(n,)`.
        """
        inputs = np.column_stack([points, places])
        mean, sd = float(values.mean()), float(values.std()) or 1.0
        y = (values - mean) / sd
        best = None
        for length, noise in itertools.product(_LENGTHS, _NOISES):
            covariance = (1 - noise) * _kernel(inputs, inputs, length)
            covariance[np.diag_indices_from(covariance)] += noise + 1e-9
            factor = np.tril(cho_factor(covariance, lower=True)[0])
            weights = cho_solve((factor, True), y)
            evidence = -0.5 * float(y @ weights) - float(np.log(np.diag(factor)).sum())
            if best is None or evidence > best[0]:
                best = (evidence, length, noise, factor, weights)
        assert best is not None  # noqa: S101 - the grid is not empty
        _, length, noise, factor, weights = best
        return cls(inputs, length, noise, factor, weights, mean, sd)

    def predict(self, points: Array, places: Array) -> tuple[Array, Array]:
        """Return mean and standard deviation `(m,)` of what is true, chance left out."""
        new = np.column_stack([points, places])
        cross = (1 - self.noise) * _kernel(new, self.points, self.length)
        mean = self.mean + self.sd * (cross @ self.weights)
        inner = solve_triangular(self.factor, cross.T, lower=True)
        variance = np.maximum((1 - self.noise) - (inner**2).sum(0), 1e-10)
        return mean, self.sd * np.sqrt(variance)


def _kernel(a: Array, b: Array, length: float) -> Array:
    return _matern(cdist(a[:, :-1], b[:, :-1]) / length) * _matern(
        cdist(a[:, -1:], b[:, -1:]) / _RUNG_LENGTH
    )


def _matern(distance: Array) -> Array:
    scaled = 5**0.5 * distance
    return np.asarray((1 + scaled + scaled**2 / 3) * np.exp(-scaled))
