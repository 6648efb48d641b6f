# SPDX-License-Identifier: Apache-2.0
"""Dermoscopy and fundus photographs: the lit field, without the dark corners of the tube.

Dark = brightness (mean of the channels) at most a quarter of the median of the image's central
third. Corners = the dark parts that reach a corner of the image, thin bridges (hairs, vessels) cut.
Declared law: scale-invariant.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from vesalius.normalization.masks import shapes
from vesalius.normalization.masks.grid import Grid
from vesalius.types import Array

_DARK = 0.25  # of the center's brightness
_BRIDGE = 0.01  # of the extent
_FEWEST = 0.005  # of the image
_SMALL = 0.05  # of the largest lit part: what is smaller is glare in a corner


def lit_field(brightness: Array) -> Array | None:
    """Return the lit field `(i, j, k)`, Boolean; None where no corner is dark.

    Args:
        brightness: finite, `(i, j, k)`, 0 is black.
    """
    grid = Grid.of(brightness.shape)
    x = grid.sample(brightness)
    i, j = (slice(n // 3, n - n // 3) for n in x.shape[:2])
    dark = x <= _DARK * np.median(x[i, j])
    radius = (round(_BRIDGE * x.shape[0]), round(_BRIDGE * x.shape[1]), 0)
    dark = shapes.dilate(shapes.erode(dark, radius), radius) & dark
    labels, _ = ndimage.label(dark)
    found = np.unique(labels[:: max(1, len(x) - 1), :: max(1, x.shape[1] - 1)])
    corners = np.isin(labels, found[found > 0])
    if corners.mean() < _FEWEST:
        return None
    return grid.expand(shapes.large_components(~corners, share=_SMALL))
