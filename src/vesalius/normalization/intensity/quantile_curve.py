# SPDX-License-Identifier: Apache-2.0
"""From an image's quantiles to a curve that brings them where another distribution has them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vesalius.errors import NormalizationRefused
from vesalius.normalization.transfer import PiecewiseLinear
from vesalius.types import Array


def occurring_quantiles(values: Array, shares: Sequence[float] | Array) -> Array:
    """Return, for each share in [0, 1], the smallest value that this share of all reaches, `(k,)`.

    No interpolation: each answer is one of `values` (flat), so a rising curve moves the quantiles
    exactly as it moves the values.
    """
    found: Array = np.quantile(values, shares, method="inverted_cdf")
    return found


def matching_curve(knots: Array, targets: Sequence[float], *, beyond: str) -> PiecewiseLinear:
    """Return the curve from `knots` (not falling) to `targets`; equal knots share their mean.

    Raises:
        NormalizationRefused: `constant`, all knots are equal.
    """
    x, where = np.unique(knots, return_inverse=True)
    if x.size < 2:
        raise NormalizationRefused(
            "constant",
            f"all {len(knots)} quantiles of the mask are {x[0]:g}; narrow the mask to the object",
        )
    y = np.bincount(where, weights=np.asarray(targets)) / np.bincount(where)
    return PiecewiseLinear(tuple(map(float, x)), tuple(map(float, y)), beyond)
