# SPDX-License-Identifier: Apache-2.0
"""Dice of label maps pooled over any images, its intervals, and the best constant mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vesalius.types import Array

DRAWS = 2000
_THRESHOLDS = np.arange(0.05, 1.0, 0.05)

Counts = tuple[int, int]  # voxels that both masks hold, voxels of the one plus of the other


def counts(found: Array, truth: Array) -> Counts:
    """Return what the Dice of two Boolean masks is made from."""
    return int((found & truth).sum()), int(found.sum()) + int(truth.sum())


def pooled_dice(pairs: Sequence[Counts]) -> float:
    """Return the Dice of all voxels together; of nothing with nothing, 1."""
    shared, total = np.sum(pairs, axis=0)
    return float(2 * shared / total) if total else 1.0


def by_group(pairs: Mapping[str, Counts], groups: Mapping[str, int]) -> dict[int, list[Counts]]:
    """Return the pairs of each group of images."""
    found: dict[int, list[Counts]] = {}
    for key, pair in pairs.items():
        found.setdefault(groups[key], []).append(pair)
    return found


def mean_interval(values: Sequence[float] | Array, groups: Sequence[int]) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean, whole groups drawn."""
    names, index = np.unique(groups, return_inverse=True)
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(len(names), [1 / len(names)] * len(names), size=DRAWS)
    weights = drawn[:, index]
    low, high = np.percentile(weights @ np.asarray(values) / weights.sum(1), (2.5, 97.5))
    return float(low), float(high)


def centered(mask: Array, shape: Sequence[int]) -> Array:
    """Return a Boolean mask `(i, j)` cut or filled up with False to `shape` about its center."""
    out = mask
    for axis, size in enumerate(shape):
        lack = size - out.shape[axis]
        if lack > 0:
            margin = [(0, 0)] * out.ndim
            margin[axis] = (lack // 2, lack - lack // 2)
            out = np.pad(out, margin)
        start = max(0, -lack) // 2
        out = np.take(out, np.arange(start, start + size), axis)
    return out


def best_constant(masks: Sequence[Array]) -> Array:
    """Return the mean of training masks, cut at the threshold whose pooled Dice with them is best.

    Args:
        masks: Boolean `(i, j)`, not all of them empty, laid center on center.
    """
    shape = np.max([mask.shape for mask in masks], axis=0)
    held = np.sum([centered(mask, shape) for mask in masks], axis=0)
    cuts = [held >= threshold * len(masks) for threshold in _THRESHOLDS]
    fits = [2 * held[cut].sum() / (len(masks) * cut.sum() + held.sum()) for cut in cuts]
    return cuts[int(np.argmax(fits))]
