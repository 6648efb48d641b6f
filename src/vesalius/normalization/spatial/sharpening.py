# SPDX-License-Identifier: Apache-2.0
"""Histogram sharpening: what a value was, most likely, before a Gaussian blurred the histogram.

Log values are modeled as v = u + b, b Gaussian of full width `fwhm` at half maximum. With V the
histogram of v and F the transform of that Gaussian, the density of u follows by Wiener
deconvolution, U = V conj(F) / (|F|^2 + noise), negative parts set to 0; then

    E[u | v] = F * (u U) / F * U        (* is convolution)

Sled et al., IEEE TMI 1998. Each value is shared between its two nearest bins,
and the map is interpolated between bin centers.
"""

from __future__ import annotations

import numpy as np

from vesalius.types import Array

_FINEST = 64  # bins in one fwhm, beyond which they would resolve nothing


def sharpen(values: Array, *, bins: int, fwhm: float, noise: float) -> Array:
    """Return the expected unblurred value of each of `values` (flat, float64, not constant)."""
    low, high = float(values.min()), float(values.max())
    width = max((high - low) / (bins - 1), fwhm / _FINEST)
    place = (values - low) / width
    left = np.minimum(place.astype(int), bins - 2)
    share = place - left
    counts = np.bincount(left, 1 - share, bins) + np.bincount(left + 1, share, bins)

    size = 1 << int(np.ceil(np.log2(max(2 * bins, bins + 8 * fwhm / width))))
    start = (size - bins) // 2
    padded = np.zeros(size)
    padded[start : start + bins] = counts
    distance = np.minimum(np.arange(size), size - np.arange(size)) * width
    gaussian = np.exp(-4 * np.log(2) * (distance / fwhm) ** 2)
    blur = np.fft.rfft(gaussian / gaussian.sum())

    spectrum = np.fft.rfft(padded) * np.conj(blur) / (np.abs(blur) ** 2 + noise)
    density = np.maximum(np.fft.irfft(spectrum, size), 0)
    centers = low + (np.arange(size) - start) * width
    mass = np.fft.irfft(np.fft.rfft(density) * blur, size)
    moment = np.fft.irfft(np.fft.rfft(density * (centers - low)) * blur, size)
    known = mass > 1e-10 * mass.max()  # elsewhere there is no value to map
    expected = np.where(known, low + moment / np.where(known, mass, 1), centers)
    out: Array = np.interp(values, centers[start : start + bins], expected[start : start + bins])
    return out
