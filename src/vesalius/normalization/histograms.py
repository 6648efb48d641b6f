# SPDX-License-Identifier: Apache-2.0
"""Histograms that certificates keep: of a result on one fixed axis, of any image for a page."""

from __future__ import annotations

import numpy as np

from vesalius.types import Array, Json

BINS, REACH = 192, 6.0  # of results: standard deviations from -6 to 6, the ends hold what is beyond
_SHOWN = 64


def shares(values: Array) -> list[float]:
    """Return the histogram of normalized values (flat), shares that add up to 1."""
    return _shares(values, REACH)


def of_unit(values: Array) -> tuple[float, ...]:
    """Return the histogram of values in a physical unit, on a logarithmic axis of both signs."""
    folded = np.sign(values) * np.log1p(np.abs(values.astype(np.float64)))
    return tuple(_shares(folded / 4.0, REACH))


def record(values: Array) -> Json:
    """Return edges and shares of flat values from their 0.1st to their 99.9th percentile."""
    values = values.astype(np.float64)  # no overflow of 16 bits, no Boolean arithmetic
    low, high = (float(edge) for edge in np.percentile(values, (0.1, 99.9)))
    if low == high:
        low, high = float(values.min()), float(values.max()) + 1e-9
    found, edges = np.histogram(np.clip(values, low, high), _SHOWN, (low, high))
    total = max(1, int(found.sum()))
    return {
        "low": float(edges[0]),
        "high": float(edges[-1]),
        "shares": [round(float(n) / total, 6) for n in found],
    }


def _shares(values: Array, reach: float) -> list[float]:
    inside = np.clip(values, -reach, reach - 1e-6)
    counts, _ = np.histogram(inside, BINS, (-reach, reach))
    return [float(n) / values.size for n in counts]
