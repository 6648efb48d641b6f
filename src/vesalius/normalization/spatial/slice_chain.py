# SPDX-License-Identifier: Apache-2.0
"""Slice chain: neighboring slices brought to one level, from the center slice outwards.

factor(c) = 1 for the center slice c = n // 2, and factor(s +- 1) = factor(s) * ratio(s, s +- 1),
the ratio (by default the median of voxel-wise ratios) over the voxels that both slices have in
the mask and that are 0 in neither; y(s) = factor(s) * x(s). It takes out any drift along the
axis, anatomy's included: for slices acquired one by one. Zijdenbos, inormalize
(`-znormalize -ynormalize -xnormalize`, in this order); identity where fewer than `min_voxels`
voxels can be compared, as there, and said so in the record.
Declared laws: idempotent; `a * x` with `a > 0` gives `a` times the result; the center slice stays.
"""

from __future__ import annotations

import numpy as np

from vesalius.errors import NormalizationRefused, UsageError
from vesalius.normalization.card import Card, Kind, Law
from vesalius.normalization.intensity.ratios import RATIOS, check_ratio, factor
from vesalius.normalization.method import inside
from vesalius.types import Array, Json, Spacing3

CARD = Card(
    name="slice-chain",
    title="slice-to-slice ratios, chained from the center slice (MINC)",
    formula="y(s+1) = x(s+1) * f(s+1), f(s+1) = f(s) * median(x(s) / x(s+1)), f(center) = 1",
    source="Zijdenbos, inormalize -xnormalize, -ynormalize, -znormalize (MINC tools)",
    kind=Kind.SPATIAL,
    laws=frozenset({Law.IDEMPOTENT}),
)
AXES = "ijk"


def correct(
    values: Array,
    mask: Array,
    *,
    spacing: Spacing3,
    axes: str = "k",
    ratio: str = RATIOS[0],
    constrained: bool = False,
    min_voxels: int = 1000,
) -> tuple[Array, Json]:
    """Return `values` with leveled slices, float32, and the factors of each axis.

    Args:
        values: one channel, `(i, j, k)`, any real dtype.
        mask: the fitting mask, Boolean, same shape.
        spacing: millimeters along i, j, k; not used, factors do not depend on it.
        axes: letters of `ijk`, in the order in which they are leveled.
        ratio: one of `ratios.RATIOS`.
        constrained: keep only ratios in [10^-0.1, 10^0.1].
        min_voxels: that a pair of slices must have in common.

    Raises:
        UsageError: an unknown axis or ratio.
        NormalizationRefused: see `method.inside`; `too-few-voxels` where no pair of slices can be
            compared (a single slice has none); `reference`, see `ratios.factor`.
    """
    del spacing
    check_ratio(ratio, constrained=constrained)
    if not axes or set(axes) - set(AXES) or len(set(axes)) < len(axes):
        raise UsageError(f"axes must be letters of 'ijk', each once, got '{axes}'")
    inside(values, mask)
    out, record = np.asarray(values, np.float64), {}
    for letter in axes:
        out, record[letter] = _level(out, mask, letter, ratio, constrained, min_voxels)
    made = {"method": "slice-chain", "ratio": ratio, "constrained": constrained, "axes": record}
    return out.astype(np.float32), made


def _level(
    values: Array, mask: Array, letter: str, ratio: str, constrained: bool, min_voxels: int
) -> tuple[Array, Json]:
    slices = np.moveaxis(values, AXES.index(letter), 0)
    masks = np.moveaxis(mask, AXES.index(letter), 0)
    count, center = len(slices), len(slices) // 2
    factors, identity = np.ones(count), []
    for step in (1, -1):
        for here in range(center, count - 1 if step > 0 else 0, step):
            there = here + step
            both = masks[here] & masks[there] & (slices[here] != 0) & (slices[there] != 0)
            one, two = slices[here][both], slices[there][both]
            if one.size < max(1, min_voxels):
                identity.append(there)
                by = 1.0
            else:
                by = factor(one, two, ratio, constrained=constrained)
            factors[there] = factors[here] * by
    if len(identity) == count - 1:
        raise NormalizationRefused(
            "too-few-voxels",
            f"no two neighboring slices along {letter} have {min_voxels} voxels of the mask in "
            "common; widen the mask, lower min_voxels, or leave this axis out",
        )
    shape = [1, 1, 1]
    shape[AXES.index(letter)] = count
    record = {"factors": factors.tolist(), "center": center, "not_compared": sorted(identity)}
    return values * factors.reshape(shape), record
