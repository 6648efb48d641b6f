# SPDX-License-Identifier: Apache-2.0
"""Which slices of a volume are shown: as many as its depth asks for and the budget allows.

They lie evenly across the coarsest axis (axial where voxels are cubes), within the slices that hold
something, the outer tenth of these left out.
"""

from __future__ import annotations

import numpy as np

from vesalius.types import Array, Json

LEAST, MOST = 8, 32
_EVERY = 4  # slices of a volume for each one that is shown
_DISK = 4e9  # bytes of prepared slices of all volumes
_TIME = 0.3  # of the minutes goes to embedding slices
_PIXELS_A_SECOND = 25 * 224**2  # that an encoder sees on two cores, measured
_EDGE = 0.1  # of what holds something, left out at either end
_EMPTY = 0.05  # of the largest standard deviation of a slice: below it a slice holds nothing


def depth_axis(spacing: Array, *, calibrated: bool) -> int:
    """Return the axis that slices lie across: the coarsest if one stands out, else the third."""
    coarse = calibrated and spacing.max() > 1.5 * spacing.min()
    return int(spacing.argmax()) if coarse else 2


def slices_to_show(found: Json, *, size: int, channels: int, budget: Json) -> int:
    """Return how many slices of each volume are shown, between `LEAST` and `MOST`.

    Args:
        found: fingerprint: `volumes`, their `median_depth`.
        size: pixels of a prepared slice's side.
        channels: of a prepared slice.
        budget: `{"minutes": m}`, or `{"steps": n}`, which does not bound them.
    """
    wanted = -(-found["median_depth"] // _EVERY)
    volumes = max(1, found["volumes"])
    afford = _DISK / (2 * channels * size**2 * volumes)
    if "minutes" in budget:
        seconds = 60 * float(budget["minutes"]) * _TIME
        afford = min(afford, seconds * _PIXELS_A_SECOND / size**2 / volumes)
    return int(np.clip(min(wanted, afford), LEAST, MOST))


def places_of_slices(data: Array, axis: int, count: int) -> Array:
    """Return the indices of at most `count` slices along a spatial axis of `(C, i, j, k)`."""
    rows = np.moveaxis(data, axis + 1, 0)[:, :, ::2, ::2]  # enough to tell what is empty
    spread = np.array([row.std() for row in rows])
    held = np.flatnonzero(spread >= _EMPTY * spread.max())
    first, length = held[0], held[-1] + 1 - held[0]
    steps = _EDGE + (1 - 2 * _EDGE) * (np.arange(count) + 0.5) / count
    return np.unique(first + (steps * length).astype(int).clip(0, length - 1))
