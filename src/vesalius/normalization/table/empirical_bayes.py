# SPDX-License-Identifier: Apache-2.0
"""Empirical Bayes: a site's estimates for one feature lean on those for all features.

With n rows, m and t2 the mean and variance of gamma over features, `gamma* = (n t2 gamma +
delta* m) / (n t2 + delta*)`; with m and s2 those of delta, an inverse gamma prior of
`a = (2 s2 + m^2) / s2`, `b = (m s2 + m^3) / s2` gives `delta* = (sum (z - gamma*)^2 / 2 + b) /
(n / 2 + a - 1)`; both repeated until still. Written so that s2 = 0 divides nothing: where features
do not differ in delta all share it, and a single feature is not shrunk.

Johnson et al.: Adjusting batch effects in microarray expression data, Biostatistics 2007.
"""

from __future__ import annotations

import numpy as np

from vesalius.errors import DataError
from vesalius.types import Array

_ROUNDS = 10_000


def shrink(
    gamma: Array, delta: Array, rows: int, mean_only: bool, tolerance: float
) -> tuple[Array, Array]:
    """Return one site's shift and variance `(f,)` shrunk over features, in standardized units.

    Args:
        gamma: `(f,)` mean of z in the site.
        delta: `(f,)` variance of z in the site.
        rows: of the site.
        mean_only: shrink shifts alone, as sva does: weight of one row, unit variance.
        tolerance: change of (gamma, delta), over 1 plus their size, that ends the rounds.

    Raises:
        DataError: they do not settle.
    """
    several = len(gamma) > 1
    center, t2 = gamma.mean(), gamma.var(ddof=1) if several else 0.0
    if mean_only:
        return (t2 * gamma + center) / (t2 + 1.0), delta
    mean, s2 = delta.mean(), delta.var(ddof=1) if several else 0.0
    own = (rows - 1) * delta  # squares about the site's own mean
    g, d = gamma, delta
    for _ in range(_ROUNDS):
        g_next = (rows * t2 * gamma + d * center) / (rows * t2 + d)
        squares = own + rows * (gamma - g_next) ** 2
        d_next = (s2 * (squares / 2 + mean) + mean**3) / (s2 * (rows / 2 + 1) + mean**2)
        change = max(
            float((np.abs(g_next - g) / (1 + np.abs(g))).max()),
            float((np.abs(d_next - d) / (1 + np.abs(d))).max()),
        )
        g, d = g_next, d_next
        if change < tolerance:
            return g, d
    raise DataError(
        f"empirical Bayes did not settle within {_ROUNDS} rounds; pass prior='none' or a "
        f"tolerance above {tolerance:g}"
    )
