# SPDX-License-Identifier: Apache-2.0
"""Where a dark background ends: the minimum-error cut, taken again until a background is found.

J(t) = P1 log s1^2 + P2 log s2^2 - 2 (P1 log P1 + P2 log P2), the least over all cuts t; P and s are
share and standard deviation of each class. Unlike Otsu's criterion it lets a narrow background lie
beside broad tissue. J. Kittler, J. Illingworth: Minimum error thresholding, Pattern Recognition
19:41 (1986). It is taken over the sorted values, without bins. The cut may part dark tissue from
bright (muscle from fat): the dark class is a background where the bright one lies at least 12 of
its standard deviations away, which magnitude noise beside tissue does and two tissues do not;
else the dark class is cut again. Where that finds none, padding is background: the least value
alone, if it fills at least a twentieth of the image.

Declared law: affine-equivariant: `a * x + b` with a > 0 is cut between the same values.
"""

from __future__ import annotations

import numpy as np

from vesalius.types import Array

GAP = 12.0  # standard deviations of the background between its mean and that of the rest
FEWEST = 0.01  # share of the values that a background's noise holds
PADDING = 0.05  # share of the values that padding holds
_CUTS = 6
_RANKS = 1 << 16  # sorted values that are looked at, evenly from all
_FLOOR = 0.01  # of the robust range: least standard deviation that a class is given credit for
_BETWEEN = (3 - 5**0.5) / 2  # where in the gap: irrational, so that no other value lies on the cut


def background_threshold(values: Array) -> float | None:
    """Return the value at or below which the background lies; None where there is none.

    Args:
        values: finite, any shape, not empty. Those beyond the central 90 % by more than its width
            count as lying there: outliers form no class.
    """
    ordered = np.sort(values, axis=None)
    ordered = ordered[:: -(-len(ordered) // _RANKS)]
    found = _noise(ordered)
    padding = int(np.searchsorted(ordered, ordered[0], side="right"))
    if found is None and PADDING * len(ordered) <= padding < len(ordered):
        return _between(ordered, padding)
    return found


def _noise(ordered: Array) -> float | None:
    """Return where the background's noise ends; None where there is none."""
    width = _limits(ordered)[2]
    dark = len(ordered)
    for _ in range(_CUTS):
        part = ordered[:dark]
        if part[0] == part[-1]:
            return None
        low, high, own = _limits(part)
        dark, gap = _minimum_error(part.clip(low - own, high + own) if own else part, width or own)
        if dark < FEWEST * len(ordered):
            return None
        if gap >= GAP:
            return _between(ordered, dark)
    return None


def _between(ordered: Array, dark: int) -> float:
    """Return a value between the last of the first `dark` values and the next one."""
    below, above = ordered[dark - 1], ordered[dark]
    return float(below + _BETWEEN * (above - below))


def _limits(ordered: Array) -> tuple[float, float, float]:
    """Return the ends of the central 90 % and the distance between them."""
    last = len(ordered) - 1
    low, high = ordered[round(0.05 * last)], ordered[round(0.95 * last)]
    return float(low), float(high), float(high - low)


def _minimum_error(x: Array, width: float) -> tuple[int, float]:
    """Return how many of the sorted values are dark, and the gap in their standard deviations."""
    n, extent = len(x), x[-1] - x[0]
    z = (x - x[0]) / extent
    floor = (_FLOOR * (width / extent or 1.0)) ** 2
    dark = np.flatnonzero(x[1:] > x[:-1]) + 1
    p = dark / n
    first, second = np.cumsum(z), np.cumsum(z * z)
    mean1 = first[dark - 1] / dark
    mean2 = (first[-1] - first[dark - 1]) / (n - dark)
    var1 = np.maximum(second[dark - 1] / dark - mean1**2, floor)
    var2 = np.maximum((second[-1] - second[dark - 1]) / (n - dark) - mean2**2, floor)
    error = p * np.log(var1 / p**2) + (1 - p) * np.log(var2 / (1 - p) ** 2)
    best = int(error.argmin())
    return int(dark[best]), float((mean2[best] - mean1[best]) / np.sqrt(var1[best]))
