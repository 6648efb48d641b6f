# SPDX-License-Identifier: Apache-2.0
"""Median and MAD, clipped, then z-score: the default for images without a physical scale.

Leys et al.: Detecting outliers, J. Exp. Soc. Psychol. 2013 (MAD times 1.4826 estimates the
standard deviation; 3.5 after Iglewicz & Hoaglin 1993). Declared law: `a * x + b` with `a > 0`
gives the same result as `x`.
"""

from __future__ import annotations

import numpy as np

from vesalius.types import Array

TO_SIGMA = 1.4826
CLIP = 3.5
_SAMPLE = 1_000_000  # voxels that percentiles and medians look at


def foreground(values: Array) -> Array:
    """Return which values lie above the dark tenth of the robust range, as Booleans.

    Air and padding fall out; where less than one value in a hundred would remain, all count.
    """
    low, high = np.percentile(_sample(values), (0.5, 99.5))
    mask = values > low + 0.1 * (high - low)
    return mask if mask.mean() >= 0.01 else np.ones(values.shape, bool)


def normalize(values: Array, *, clip: float = CLIP) -> Array:
    """Return `values` (any shape, finite, not constant) around 0 with unit spread, float32.

    Center and scale come from the foreground: median and MAD, clip at `clip` MADs, then mean and
    standard deviation of what was clipped. Where more than half of the foreground is one value,
    its standard deviation replaces the MAD; where all of it is, the whole image speaks.
    """
    values = values.astype(np.float64)
    mask = foreground(values)
    center, scale = _center_and_scale(values[mask])
    if scale == 0:
        mask = np.ones(values.shape, bool)
        center, scale = _center_and_scale(values.ravel())
    z = np.clip((values - center) / scale, -clip, clip)
    spread = z[mask].std()
    out: Array = ((z - z[mask].mean()) / (spread or 1.0)).astype(np.float32)
    return out


def _center_and_scale(values: Array) -> tuple[float, float]:
    """Return the median and the MAD in units of a standard deviation (else that deviation)."""
    some = _sample(values)
    center = float(np.median(some))
    scale = float(np.median(np.abs(some - center))) * TO_SIGMA
    ptp = float(np.ptp(values))
    if scale <= 1e-9 * ptp:
        scale = float(values.std())
    return center, scale if ptp > 0 else 0.0


def _sample(values: Array) -> Array:
    """Return at most about a million values, evenly from the whole."""
    flat = values.reshape(-1)
    return flat[:: max(1, -(-flat.size // _SAMPLE))]
