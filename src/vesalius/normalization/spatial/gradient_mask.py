# SPDX-License-Identifier: Apache-2.0
"""Low-gradient mask: the flat half of a mask, where a voxel is of one tissue.

g = |gradient of the image blurred by a Gaussian of full width `fwhm` at half maximum|, in
millimeters; kept are voxels of the mask whose g is not above the median of all g > 0 in the mask.
Zijdenbos, lgmask (MINC tools), `-fwhm 3` there and here.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from vesalius.errors import UsageError
from vesalius.normalization.method import inside
from vesalius.types import Array, Spacing3

FWHM_MM = 3.0
_SIGMAS = 2 * math.sqrt(2 * math.log(2))  # in one full width at half maximum


def gradient(values: Array, *, spacing: Spacing3, fwhm_mm: float = FWHM_MM) -> Array:
    """Return the length of the blurred image's gradient, `(i, j, k)` float32, per millimeter.

    Axes of one voxel have no gradient.

    Raises:
        UsageError: `values` has not three axes, `fwhm_mm` or a spacing is not positive.
    """
    if np.ndim(values) != 3 or not fwhm_mm > 0 or not all(s > 0 for s in spacing):
        raise UsageError(
            "a gradient needs values (i, j, k), fwhm_mm > 0 and positive spacings, got shape "
            f"{np.shape(values)}, fwhm_mm={fwhm_mm}, spacing={spacing}"
        )
    source = np.asarray(values, np.float32)
    sigma = [
        fwhm_mm / _SIGMAS / s if n > 1 else 0.0 for s, n in zip(spacing, source.shape, strict=True)
    ]
    blurred = ndimage.gaussian_filter(source, sigma, mode="nearest")
    total = np.zeros(source.shape, np.float32)
    for axis, step in enumerate(spacing):
        if source.shape[axis] > 1:  # differences: a kernel thinner than a thick slice has no slope
            total += np.gradient(blurred, step, axis=axis) ** 2
    out: Array = np.sqrt(total)
    return out


def low_gradient(
    values: Array, mask: Array, *, spacing: Spacing3, fwhm_mm: float = FWHM_MM
) -> Array:
    """Return the voxels of `mask` where the image is flat, Boolean.

    Args:
        values: one channel, `(i, j, k)`; values outside the mask count as they are, non-finite
            ones as 0.
        mask: Boolean, same shape.
        spacing: millimeters along i, j, k.
        fwhm_mm: of the blur.

    Raises:
        UsageError: see `gradient`.
        NormalizationRefused: see `method.inside`.
    """
    inside(values, mask)
    source = np.asarray(values, np.float32)
    length = gradient(np.where(np.isfinite(source), source, 0), spacing=spacing, fwhm_mm=fwhm_mm)
    sloped = length[mask & (length > 0)]
    limit = np.median(sloped) if sloped.size else 0.0
    out: Array = mask & (length <= limit)
    return out
