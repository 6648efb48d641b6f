# SPDX-License-Identifier: Apache-2.0
"""A fixed intensity window for images with a physical scale (CT in Hounsfield units).

Clip to the window, subtract the mean, divide by the standard deviation of the training voxels, as
in Isensee et al.: nnU-Net, Nature Methods 2021. Declared laws: order-preserving; the same value
means the same in every image.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from vesalius.errors import DataError
from vesalius.types import Array


@dataclass(frozen=True, slots=True)
class Window:
    """Limits, mean and standard deviation in the image's unit."""

    low: float
    high: float
    mean: float
    std: float

    @classmethod
    def fit(cls, samples: Iterable[Array]) -> Window:
        """Fit to the values of training images: percentiles 0.5 and 99.5, then mean and spread."""
        parts = [np.asarray(part, np.float64).ravel() for part in samples]
        values = np.concatenate(parts) if parts else np.empty(0)
        values = values[np.isfinite(values)]
        if values.size == 0 or np.ptp(values) == 0:
            raise DataError(
                "no window can be fitted: the training images have no varying values; "
                "look at them with `vesalius check`"
            )
        low, high = (float(edge) for edge in np.percentile(values, (0.5, 99.5)))
        if low == high:
            low, high = float(values.min()), float(values.max())
        inside = np.clip(values, low, high)
        return cls(low, high, float(inside.mean()), float(inside.std()))

    def apply(self, values: Array) -> Array:
        """Return the values in standard deviations of the training voxels, float32."""
        inside = np.clip(values.astype(np.float32), self.low, self.high)
        return ((inside - self.mean) / self.std).astype(np.float32)
