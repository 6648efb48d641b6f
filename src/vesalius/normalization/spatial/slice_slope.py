# SPDX-License-Identifier: Apache-2.0
"""Slice slope: slices whose level departs from their neighbors' trend, mapped back to it.

A scanner that stores a rescale slope per slice, and a reader that takes one for all, leave slices
x'(s) = g x(s) + o. The level of a slice is the running sum of the median steps between neighbors,
voxel by voxel (both in the mask): of log ratios where values are positive, else of differences in
MADs. The trend is a repeated-median line through the `window` levels on either side (Siegel:
Robust regression using repeated medians, Biometrika 1982): it follows drift, and nearly half of
its slices may be wrong. A slice is mapped back where it departs by more than `tolerance`
and by more than twice the spread of the voxel-wise steps to its nearer neighbor: anatomy that
changes from slice to slice does not move all voxels alike. The map is one gain (or one offset),
or both where the quantiles against the repaired neighbors are then met at least twice as well.
Slices that are not mapped keep every bit.
Declared laws: `a * x` with `a > 0` gives `a` times the result; without a departure, nothing
changes. The defect: dcm2niix issues 363 and 978 (per-slice RescaleSlope of PET and enhanced MR).
"""

from __future__ import annotations

import numpy as np

from vesalius.errors import UsageError
from vesalius.normalization.card import Card, Kind
from vesalius.normalization.method import inside
from vesalius.types import Array, Json, Spacing3

CARD = Card(
    name="slice-slope",
    title="slices with a wrong scale or level, mapped back",
    formula="y(s) = (x(s) - o(s)) / g(s) where the level of slice s departs from the trend",
    source="own; trend after Siegel, Biometrika 1982",
    kind=Kind.SPATIAL,
)
AXES = "ijk"
_SURE = 2.0  # spreads of the voxel-wise steps by which a slice must depart
_SHARES = np.linspace(0.05, 0.95, 19)


def correct(
    values: Array,
    mask: Array,
    *,
    spacing: Spacing3,
    axis: str = "k",
    tolerance: float = 0.1,
    window: int = 7,
    min_voxels: int = 50,
) -> tuple[Array, Json]:
    """Return `values` with repaired slices, float32, and what was done to which slice.

    Args:
        values: one channel, `(i, j, k)`, any real dtype.
        mask: the fitting mask, Boolean, same shape: the object, without air.
        spacing: millimeters along i, j, k; not used, a slope does not depend on it.
        axis: letter of `ijk` along which the slices lie.
        tolerance: of the level: of its logarithm, or in MADs.
        window: slices on either side that make the trend, at least 2.
        min_voxels: that a slice and its neighbor must have in common to be compared.

    Raises:
        UsageError: a parameter is out of its range.
        NormalizationRefused: see `method.inside`.
    """
    del spacing
    if axis not in tuple(AXES) or not tolerance > 0 or window < 2:
        raise UsageError(
            "slice-slope needs an axis of 'ijk', tolerance > 0 and window >= 2, got "
            f"axis='{axis}', tolerance={tolerance}, window={window}"
        )
    found = inside(values, mask)
    place = AXES.index(axis)
    slices = np.moveaxis(np.array(values, np.float64), place, 0)  # a copy
    masks = np.moveaxis(mask, place, 0)
    unit = 0.0 if (found > 0).mean() > 0.9 else _mad(found)  # 0: ratios
    runs = _runs(slices, masks, unit=unit, min_voxels=min_voxels)
    repaired = []
    for run, levels, spreads in runs:
        away = _departures(levels, window)
        wrong = np.abs(away) > np.maximum(tolerance, _SURE * spreads)
        maps = {
            int(run[n]): (1.0, float(away[n] * unit)) if unit else (float(np.exp(away[n])), 0.0)
            for n in np.flatnonzero(wrong)
        }
        maps = {s: _refined(slices, masks, run, maps, s) for s in maps}
        for s, (gain, offset) in maps.items():
            slices[s] = (slices[s] - offset) / gain
            repaired.append({"slice": s, "gain": gain, "offset": offset})
    compared = {int(s) for run, _, _ in runs for s in run}
    made = {
        "method": "slice-slope",
        "axis": axis,
        "levels": "MADs" if unit else "log ratios",
        "tolerance": tolerance,
        "repaired": repaired,
        "not_compared": sorted(set(range(len(slices))) - compared),
    }
    return np.moveaxis(slices, 0, place).astype(np.float32), made


def _runs(
    slices: Array, masks: Array, *, unit: float, min_voxels: int
) -> list[tuple[Array, Array, Array]]:
    """Return runs of comparable slices: indices, levels, spread of the steps to the nearer one.

    Slices that hold too little, or one value only, are passed over; a run of fewer than three has
    no trend and is left out.
    """
    runs: list[tuple[list[int], list[float], list[float]]] = []
    for s in range(len(slices)):
        own = slices[s][masks[s]]
        if own.size < min_voxels or own.min() == own.max():
            continue
        step = _step(slices, masks, runs[-1][0][-1], s, unit, min_voxels) if runs else None
        if step is None:
            runs.append(([s], [0.0], []))
        else:
            run, levels, spreads = runs[-1]
            run.append(s)
            levels.append(levels[-1] + step[0])
            spreads.append(step[1])
    return [
        (np.array(run), np.array(levels), np.minimum([np.inf, *spreads], [*spreads, np.inf]))
        for run, levels, spreads in runs
        if len(run) >= 3
    ]


def _step(
    slices: Array, masks: Array, one: int, two: int, unit: float, min_voxels: int
) -> tuple[float, float] | None:
    """Return median and spread (in standard deviations) of the steps from slice to slice."""
    both = masks[one] & masks[two]
    x, y = slices[one][both], slices[two][both]
    if unit:
        steps = (y - x) / unit
    else:
        positive = (x > 0) & (y > 0)
        steps = np.log(y[positive] / x[positive])
    return (float(np.median(steps)), 1.4826 * _mad(steps)) if steps.size >= min_voxels else None


def _departures(levels: Array, window: int) -> Array:
    """Return how far each level lies off the line through the others near it.

    Toward an end of the run a line through the `window` on either side has few to lean on, one
    through the `2 window` nearest reaches far: the lesser departure counts, 0 where they disagree.
    """
    out = np.empty(len(levels))
    for n in range(len(levels)):
        last = len(levels) - 1
        shifted = max(0, min(n - window, last - 2 * window))
        around = _off_the_line(levels, n, max(0, n - window), min(last, n + window))
        nearest = _off_the_line(levels, n, shifted, min(last, shifted + 2 * window))
        out[n] = min(around, nearest, key=abs) if around * nearest > 0 else 0.0
    return out


def _off_the_line(levels: Array, n: int, first: int, last: int) -> float:
    """Return level `n` less the repeated-median line through the others from first to last."""
    near = np.delete(np.arange(first, last + 1), n - first)
    away = near[:, None] - near
    slopes = (levels[near][:, None] - levels[near]) / np.where(away == 0, 1, away)
    others = slopes[away != 0].reshape(len(near), len(near) - 1)
    slope = np.median(np.median(others, axis=1))
    return float(levels[n] - np.median(levels[near] - slope * (near - n)))


def _refined(
    slices: Array, masks: Array, run: Array, maps: dict[int, tuple[float, float]], s: int
) -> tuple[float, float]:
    """Return gain and offset of slice `s`: both where they meet its neighbors' quantiles better."""
    place = int(np.flatnonzero(run == s)[0])
    near = [int(run[n]) for n in (place - 1, place + 1) if 0 <= n < len(run)]
    both = np.logical_and.reduce([masks[s], *(masks[n] for n in near)])
    if both.sum() < 2 * len(_SHARES):
        return maps[s]
    repaired = [(slices[n] - maps.get(n, (1.0, 0.0))[1]) / maps.get(n, (1.0, 0.0))[0] for n in near]
    x = np.quantile(np.concatenate([r[both] for r in repaired]), _SHARES)
    y = np.quantile(slices[s][both], _SHARES)
    gain = float(y.std() / x.std()) if x.std() > 0 else 0.0
    offset = float(y.mean() - gain * x.mean())
    simple = np.abs(y - maps[s][0] * x - maps[s][1]).mean()
    if gain > 0 and np.abs(y - gain * x - offset).mean() <= 0.5 * simple:
        return gain, offset
    return maps[s]


def _mad(values: Array) -> float:
    return float(np.median(np.abs(values - np.median(values))))
