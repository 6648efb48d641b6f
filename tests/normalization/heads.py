# SPDX-License-Identifier: Apache-2.0
"""Heads that the tests of the ladder look at: three tissues in smooth patches, air around them."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from vesalius.volume import Volume

MEANS = (300.0, 650.0, 1000.0)  # of fluid, gray and white matter


def tissues(seed: int = 0, shape=(36, 40, 18), share=(0.2, 0.55)) -> np.ndarray:
    """Return 0 for air, 1, 2, 3 for fluid, gray and white matter."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    inside = sum(axis**2 for axis in axes) < 0.75
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), 4 if shape[2] > 1 else (4, 4, 0))
    return np.where(inside, 1 + np.digitize(smooth, np.quantile(smooth[inside], share)), 0)


def head(seed: int = 0, shape=(36, 40, 18), share=(0.2, 0.55)) -> np.ndarray:
    """Return the intensities of `tissues`, `(i, j, k)`, with noise."""
    rng = np.random.default_rng(1000 + seed)
    values = np.array([0.0, *MEANS])[tissues(seed, shape, share)]
    noise = rng.normal(0, 35, shape)
    return np.where(values > 0, values + noise, np.abs(noise) / 8)


def planted(values: np.ndarray, inside: np.ndarray, share: float, times: float, seed: int = 0):
    """Return values with a share of those inside replaced by outliers: `times` the largest mean."""
    out = values.copy()
    places = np.flatnonzero(inside)
    rng = np.random.default_rng(2000 + seed)
    chosen = rng.choice(places, round(share * len(places)), replace=False)
    out.reshape(-1)[chosen] = times * MEANS[-1]
    return out


def mr(values: np.ndarray, **more) -> Volume:
    """Return an MR image of one channel."""
    return Volume(values[None], np.eye(4), modality="MR", **more)
