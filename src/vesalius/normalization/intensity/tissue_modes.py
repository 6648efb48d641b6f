# SPDX-License-Identifier: Apache-2.0
"""The mode of a brain's histogram that stands for one tissue, by a Gaussian kernel density.

The density is f(x) = 1 / (n h) sum_i phi((x - x_i) / h), binned on a fine grid and convolved
(Silverman: Density Estimation, 1986, section 3.5). The bandwidth h is a length in the image's own
unit: one 80th of the range without tails, as in Reinhold et al.: Evaluating the impact of
intensity normalization on MR image synthesis, SPIE 2019. Handed to a function that expects a
multiple of the data's standard deviation, the same number over-smooths until tissues merge.

Which mode: the last in T1 (white matter), the largest in T2 and FLAIR, the first in PD
(Shinohara et al.: Statistical normalization techniques for MRI, NeuroImage: Clinical 2014).
"""

from __future__ import annotations

import numpy as np

from vesalius.errors import NormalizationRefused, UsageError
from vesalius.types import Array

MODE_OF: dict[str, str] = {"t1": "last", "t2": "largest", "flair": "largest", "pd": "first"}
_TAIL = {"last": 96.0, "largest": 99.5, "first": 99.0}  # percentile above which no mode counts
_LOW = 0.5  # percentile at which the range starts
_PARTS = 80  # bandwidths in the range
_BINS = 16  # bins a bandwidth
_MARGIN = 5  # bandwidths of data beyond the range that still shape the density
_HEIGHT = 0.1  # of the highest density: less is rare, not a tissue
_SIGMAS = 3.0  # standard errors by which a mode stands out from its surroundings
_SAMPLE = 50_000  # values that the gap between gray levels is found from


def check_contrast(contrast: str) -> None:
    """Raise `UsageError` unless `contrast` is one of `MODE_OF`."""
    if contrast not in MODE_OF:
        raise UsageError(f"contrast must be one of {', '.join(MODE_OF)}, got '{contrast}'")


def tissue_mode(values: Array, contrast: str) -> float:
    """Return the mode of the tissue that `contrast` stands out by, in the image's unit.

    Args:
        values: flat, float64, finite, not constant.
        contrast: a name of `MODE_OF`.

    Raises:
        NormalizationRefused: `no-mode`, the density has no maximum below the tail.
    """
    from scipy.signal import find_peaks

    which = MODE_OF[contrast]
    low, high = np.percentile(values, (_LOW, _TAIL[which]))
    width = bandwidth(values, float(low), float(high))
    grid, density = kernel_density(values, float(low), float(high), width)
    peaks, found = find_peaks(density, height=_HEIGHT * density.max(), prominence=0)
    # variance of a Gaussian kernel density: f / (2 sqrt(pi) n h)
    noise = np.sqrt(density[peaks] / (2 * np.sqrt(np.pi) * values.size * width))
    peaks = peaks[(found["prominences"] > _SIGMAS * noise) & (grid[peaks] <= high)]
    if peaks.size == 0:
        raise NormalizationRefused(
            "no-mode",
            f"the histogram of the values in the mask has no maximum up to {high:g} (percentile "
            f"{_TAIL[which]:g}); check the mask and contrast '{contrast}', or take another method",
        )
    match which:
        case "last":
            peak = peaks[-1]
        case "first":
            peak = peaks[0]
        case _:
            peak = peaks[np.argmax(density[peaks])]
    return _vertex(grid, density, int(peak))


def kernel_density(values: Array, low: float, high: float, width: float) -> tuple[Array, Array]:
    """Return an even grid `(n,)` somewhat beyond [low, high] and the density there `(n,)`.

    `width` is the kernel's standard deviation, in the image's unit.
    """
    from scipy.ndimage import gaussian_filter1d

    start, stop = low - _MARGIN * width, high + _MARGIN * width
    counts, edges = np.histogram(values, round((stop - start) / width) * _BINS, (start, stop))
    step = edges[1] - edges[0]
    smooth = gaussian_filter1d(counts.astype(np.float64), width / step, mode="constant")
    return (edges[:-1] + edges[1:]) / 2, smooth / (values.size * step)


def bandwidth(values: Array, low: float, high: float) -> float:
    """Return the kernel's standard deviation: an 80th of the range, at least a gray level's gap.

    Raises:
        NormalizationRefused: `no-mode`, all but the tails is one value.
    """
    if not high > low:
        raise NormalizationRefused(
            "no-mode", f"nearly all values in the mask are {low:g}: there are no tissues to tell"
        )
    levels = np.unique(values[:: -(-values.size // _SAMPLE)])
    levels = levels[(levels >= low) & (levels <= high)]
    gap = float(np.median(np.diff(levels))) if levels.size > 1 else high - low
    return max((high - low) / _PARTS, gap)


def positive_level(level: float, name: str) -> float:
    """Return `level`, by which a method divides.

    Raises:
        NormalizationRefused: `no-mode`, it is not above 0.
    """
    if not level > 0:
        raise NormalizationRefused(
            "no-mode",
            f"{name} lies at {level:g}; the method divides by it and needs it above 0: undo the "
            "image's offset, or choose a method that subtracts (zscore, mad, whitestripe)",
        )
    return level


def _vertex(grid: Array, density: Array, peak: int) -> float:
    """Return where the parabola through the peak and its two neighbors is highest."""
    before, at, after = density[peak - 1 : peak + 2]
    shift = 0.5 * (before - after) / (before - 2 * at + after)
    return float(grid[peak] + shift * (grid[1] - grid[0]))
