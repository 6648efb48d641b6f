# SPDX-License-Identifier: Apache-2.0
"""Three-tissue phantoms with a bias field and planted outliers, for the outlier benchmark."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from vesalius.types import Array


@dataclass(frozen=True, slots=True)
class Mixture:
    """Shares and intensities of dark, gray and white tissue."""

    name: str
    shares: tuple[float, float, float]
    levels: tuple[float, float, float]


# The constants of `mad` were chosen on TUNED, the benchmark reports REPORTED.
TUNED = (
    Mixture("tuned 1", (0.15, 0.40, 0.45), (300, 700, 1000)),
    Mixture("tuned 2", (0.30, 0.30, 0.40), (250, 600, 1000)),
    Mixture("tuned 3", (0.10, 0.60, 0.30), (400, 750, 1000)),
)
REPORTED = (
    Mixture("adult T1", (0.12, 0.45, 0.43), (350, 720, 1000)),
    Mixture("atrophy", (0.28, 0.37, 0.35), (280, 650, 960)),
    Mixture("white-rich", (0.18, 0.28, 0.54), (320, 690, 1050)),
)


@dataclass(frozen=True, slots=True, eq=False)
class Phantom:
    """Values `(i, j, k)`, tissue 0 to 2 and the foreground."""

    values: Array
    tissue: Array
    mask: Array


def phantom(mixture: Mixture, seed: int, *, side: int = 96, bias: float = 0.35) -> Phantom:
    """Return a ball of blobs of three tissues under a smooth field of 1 ± `bias`, 4 % noise."""
    rng = np.random.default_rng([seed, 7])
    texture = ndimage.gaussian_filter(rng.normal(size=(side,) * 3), side / 16)
    place = np.mgrid[tuple(slice(-1, 1, side * 1j) for _ in range(3))]
    mask = (place**2).sum(axis=0) < 0.9
    edges = np.quantile(texture[mask], np.cumsum(mixture.shares)[:-1])
    tissue = np.digitize(texture, edges)
    field = np.zeros(tissue.shape)
    for _ in range(3):
        direction = rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        wave = np.tensordot(direction, place, 1) * rng.uniform(0.5, 1.5)
        field += rng.normal() * np.sin(wave + rng.uniform(0, 6))
    field *= bias / np.abs(field[mask]).max()
    values = np.array(mixture.levels, float)[tissue] * (1 + field)
    values += rng.normal(0, 0.04 * max(mixture.levels), values.shape)
    return Phantom(np.clip(values, 1, None), tissue, mask)


def contaminated(one: Phantom, fraction: float, factor: float, seed: int) -> Array:
    """Return the values with a random `fraction` of the foreground multiplied by `factor`."""
    chosen = one.mask & (np.random.default_rng([seed, 8]).random(one.values.shape) < fraction)
    out = one.values.copy()
    out[chosen] *= factor
    return out
