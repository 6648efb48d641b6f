# SPDX-License-Identifier: Apache-2.0
"""Stained slides: tissue and cells, without bare glass.

Optical density OD = -ln(I / I0), mean of red, green and blue, above beta = 0.15 (M. Macenko et al.:
A method for normalizing histology slides, ISBI 2009) in most of 3 x 3 pixels. Bare glass is bright
in red and green and not pink (green at least 0.88 of red): white, gray or yellow, which skin and
retina are not. I0 is the 90th percentile of its color, or white where less than a hundredth of the
tile is glass, so that a dim or yellow lamp is allowed for and a tile full of tissue is not taken
for glass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vesalius.errors import NormalizationRefused
from vesalius.normalization.masks import shapes
from vesalius.normalization.masks.grid import Grid
from vesalius.types import Array

BETA = 0.15
FEWEST = 0.005  # of the tile: with less tissue it is blank
_BRIGHT = 0.7  # of full scale
_PINK = 0.88  # green / red
_GLASS = 0.01  # of the tile: with less glass the lamp is taken to be white
_SLIDE = 0.1  # of the picture: with as much glass it is a slide


def tissue(rgb: Sequence[Array], scale: float) -> Array:
    """Return the tissue `(i, j, k)`, Boolean.

    Args:
        rgb: red, green and blue, finite, `(i, j, k)`, from 0 to `scale`.

    Raises:
        NormalizationRefused: `blank-tile`: less than half a percent of the tile is tissue.
    """
    grid = Grid.of(rgb[0].shape)
    x = np.stack([grid.sample(channel) for channel in rgb]) / scale  # (3, i, j, k)
    glass = _glass(x)
    light = np.quantile(x[:, glass], 0.9, axis=1) if glass.mean() >= _GLASS else np.ones(3)
    light = np.maximum(light, 1 / 255)  # a channel may be dark even there
    density = -np.log(np.maximum(x, 1 / 255) / light[:, None, None, None]).mean(axis=0)
    stained = shapes.majority(density > BETA)
    share = float(stained.mean())
    if share < FEWEST:
        raise NormalizationRefused(
            "blank-tile",
            f"{share:.2%} of the tile is stained (mean optical density above {BETA}), at least "
            f"{FEWEST:.1%} needed; leave blank tiles out",
        )
    return grid.expand(stained)


def looks_stained(rgb: Sequence[Array], scale: float) -> bool:
    """Return whether at least a tenth of a color picture is bare glass."""
    grid = Grid.of(rgb[0].shape)
    x = np.stack([grid.sample(channel) for channel in rgb]) / scale
    return bool(_glass(x).mean() >= _SLIDE)


def full_scale(brightest: float, dtype: np.dtype[Any]) -> float:
    """Return the value of white: the least of 1 (floats), 255, 4095 and 65535 not exceeded.

    Beyond, the brightest value itself.
    """
    scales = (1.0, 255.0, 4095.0, 65535.0)[dtype.kind != "f" :]
    return next((scale for scale in scales if brightest <= scale), brightest)


def _glass(x: Array) -> Array:
    """Return which points are bare glass."""
    red, green = x[0], x[1]
    glass: Array = (red >= _BRIGHT) & (green >= _BRIGHT) & (green >= _PINK * red)
    return glass
