# SPDX-License-Identifier: Apache-2.0
"""Checks slice by slice along k: lost, copied, noisy or differently scaled slices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from vesalius.cohorts.assess import noise_sigma
from vesalius.cohorts.quality.findings import finding
from vesalius.results import Finding
from vesalius.types import Array
from vesalius.volume import Volume

FEWEST = 5  # slices
SCALE_JUMP = 1.2  # factor against both neighbors
SCALE_STEP = 1.5  # factor against the slice before, lasting
NOISE_JUMP = 3.0

_SIDE = 64  # pixels looked at along each axis
_NAMED = 5  # findings of one kind that are listed one by one


def check_slices(volume: Volume) -> list[Finding]:
    """Return what is wrong with single slices of a 3D image; `finding.slice` is the index k.

    - constant-slice: one value only, with image slices on both sides (blank slices at the ends
      are padding).
    - duplicate-slices: all pixels equal those of the slice before (not for constant ones).
    - uneven-slope: four fifths of the tissue are brighter than at the same place in both
      neighbors, or darker than in both, by a factor of 1.2 or more; or all change for good by
      1.5 or more, not near the ends (where coils and organs end).
    - noisy-slice: noise (`assess.noise_sigma`) is 3 times that of its neighbors, or more.

    At most five findings of a kind name a slice each; the last counts the rest.
    """
    depth = volume.shape[2]
    if depth < FEWEST or volume.data.dtype.kind == "b":
        return []
    data = volume.data[0]
    step = [max(1, n // _SIDE) for n in data.shape[:2]]
    small = np.ascontiguousarray(data[:: step[0], :: step[1]].transpose(2, 0, 1))
    flat = small.reshape(depth, -1)
    blank = flat.min(axis=1) == flat.max(axis=1)
    for n in np.flatnonzero(blank):
        blank[n] = data[..., n].min() == data[..., n].max()
    shown = np.flatnonzero(~blank)
    if len(shown) < FEWEST:
        return []
    found = list(_constant(blank, shown))
    found += _copies(data, flat, blank)
    inner = slice(int(shown[0]), int(shown[-1]) + 1)
    found += [
        replace(one, slice=(one.slice or 0) + inner.start)
        for one in _scales(small[inner], blank[inner])
    ]
    found += _noise(data, blank, inner)
    return found


def _constant(blank: Array, shown: Array) -> Iterator[Finding]:
    inside = [int(n) for n in np.flatnonzero(blank) if shown[0] < n < shown[-1]]
    yield from _listed(
        "constant-slice", inside, lambda n: ("the slice has one value only", {"slice": n})
    )


def _copies(data: Array, flat: Array, blank: Array) -> Iterator[Finding]:
    same = (flat[1:] == flat[:-1]).all(axis=1) & ~blank[1:] & ~blank[:-1]
    copies = [
        int(n) + 1 for n in np.flatnonzero(same) if np.array_equal(data[..., n], data[..., n + 1])
    ]
    yield from _listed(
        "duplicate-slices",
        copies,
        lambda n: ("all pixels equal those of the slice before", {"same_as": n - 1}),
    )


def _scales(small: Array, blank: Array) -> Iterator[Finding]:
    steps = _brightness_steps(small, blank)
    before, after = steps[:-1], steps[1:]  # of the slices 1 … k - 2
    single = np.where(before * after < 0, np.minimum(np.abs(before), np.abs(after)), 0)
    odd = np.flatnonzero(single > np.log(SCALE_JUMP)) + 1
    factor = {int(n): float(np.exp(steps[n - 1])) for n in odd}
    explained = {*odd.tolist(), *(odd - 1).tolist()}
    margin = max(2, len(steps) // 10)
    for n in np.flatnonzero(np.abs(steps) > np.log(SCALE_STEP)).tolist():
        if n not in explained and margin <= n < len(steps) - margin:
            factor[n + 1] = float(np.exp(steps[n]))
    yield from _listed(
        "uneven-slope",
        sorted(factor),
        lambda n: (
            f"four fifths of the tissue are {factor[n]:.2f} times as bright as in the slice before",
            {"factor": factor[n]},
        ),
    )


def _brightness_steps(small: Array, blank: Array) -> Array:
    """Return the logarithm of how each slice's brightness differs from the one before, `(k - 1,)`.

    Of the ratios of values (above the darkest 1 %) at the pixels that are tissue in both slices,
    the one that four fifths reach or exceed in the same direction; 0 where they do not agree:
    another scale moves all tissue, another anatomy only a part.
    """
    values = small.reshape(len(small), -1).astype(np.float32)
    shown = values[~blank]
    values -= np.percentile(shown[:: max(1, len(shown) // 16)], 1)
    tissue = values > 0.5 * values[~blank].mean()
    steps = np.zeros(len(values) - 1)
    for n in range(len(steps)):
        both = tissue[n] & tissue[n + 1]
        before, after = values[n][both], values[n + 1][both]
        if len(before) < 64:
            continue
        brighter = np.count_nonzero(after > before) / len(before)
        if brighter >= 0.8:
            steps[n] = np.log(max(1.0, np.percentile(after / before, 20)))
        elif brighter <= 0.2:
            steps[n] = np.log(min(1.0, np.percentile(after / before, 80)))
    return steps


def _noise(data: Array, blank: Array, inner: slice) -> Iterator[Finding]:
    if min(data.shape[:2]) < 64:
        return
    sigma = np.array(
        [
            np.nan if blank[n] else noise_sigma(data[..., n], above=float(data[::4, ::4, n].mean()))
            for n in range(inner.start, inner.stop)
        ]
    )
    with np.errstate(divide="ignore"):
        jumps = _against_neighbors(np.log(sigma))
    odd = np.flatnonzero(np.isfinite(jumps) & (jumps > np.log(NOISE_JUMP)))
    yield from _listed(
        "noisy-slice",
        [int(n) + inner.start for n in odd],
        lambda n: (
            f"noise is {np.exp(jumps[n - inner.start]):.1f} times that of the slices around",
            {"factor": float(np.exp(jumps[n - inner.start]))},
        ),
    )


def _listed(
    name: str, places: list[int], say: Callable[[int], tuple[str, dict[str, float]]]
) -> Iterator[Finding]:
    """Yield one finding a slice, the first `_NAMED` of them; the last one counts all."""
    for count, place in enumerate(places[:_NAMED], start=1):
        message, evidence = say(place)
        if count == _NAMED and len(places) > _NAMED:
            message += f" (and {len(places) - _NAMED} more slices of {name})"
            evidence = {**evidence, "slices": len(places)}
        yield finding(name, message, evidence, at_slice=place)


def _against_neighbors(levels: Array) -> Array:
    """Return each value minus the median of its two neighbors on either side."""
    padded = np.pad(levels, 2, constant_values=np.nan)
    around = np.stack([padded[n : n + len(levels)] for n in (0, 1, 3, 4)])
    known = np.isfinite(around).sum(axis=0) >= 2
    middle = np.full(len(levels), np.nan)
    if known.any():
        middle[known] = np.nanmedian(around[:, known], axis=0)
    difference: Array = levels - middle
    return difference
