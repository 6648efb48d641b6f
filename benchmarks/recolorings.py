# SPDX-License-Identifier: Apache-2.0
"""Strong recolorings of stained pictures, fixed: other dyes, hues, light and contrast.

They were chosen by eye, before any model had seen one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vesalius.types import Array

Recoloring = Callable[[Array], Array]  # uint8 `(3, i, j)` -> the same

# red, green, blue -> luma, in-phase, quadrature (NTSC)
_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
# Optical densities in red, green, blue of hematoxylin, eosin and DAB: Ruifrok & Johnston, 2001.
_HED = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
_GREENS = ((0.98, 0.24, 0.74), (0.60, 0.20, 0.60), (0.27, 0.57, 0.78))
_BLUES = ((0.85, 0.50, 0.15), (0.60, 0.25, 0.10), (0.65, 0.35, 0.20))
_BROWNS = ((0.40, 0.65, 0.90), (0.10, 0.50, 0.86), (0.60, 0.50, 0.40))


def _dyes(
    stains: tuple[tuple[float, ...], ...], amounts: tuple[float, float, float] = (1, 1, 1)
) -> Recoloring:
    """Take a picture for hematoxylin, eosin and DAB; replace them by others, in other amounts."""
    old, new = (np.array(s) / np.linalg.norm(s, axis=1, keepdims=True) for s in (_HED, stains))
    change = (np.linalg.inv(old) @ np.diag(amounts) @ new).T

    def recolor(image: Array) -> Array:
        density = -np.log(np.maximum(image, 1) / 255)
        return _bytes(np.exp(-np.tensordot(change, density, 1)))

    return recolor


def _hue(degrees: float) -> Recoloring:
    """Turn the plane of in-phase and quadrature."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    return _matrix(np.linalg.inv(_YIQ) @ turn @ _YIQ)


def _matrix(matrix: Array) -> Recoloring:
    return lambda image: _bytes(np.tensordot(matrix, image / 255, 1))


def _gray_world(cast: tuple[float, float, float]) -> Recoloring:
    """Take the mean color for gray (gray world), then cast a light of another color on it."""

    def recolor(image: Array) -> Array:
        light = image / 255
        mean = light.mean(axis=(1, 2), keepdims=True)
        return _bytes(light * (mean.mean() / mean) * np.array(cast)[:, None, None])

    return recolor


def _tint(color: tuple[float, float, float], contrast: float) -> Recoloring:
    """Shrink the contrast towards a color: a veil over the picture."""
    veil = np.array(color)[:, None, None] * (1 - contrast)
    return lambda image: _bytes(image / 255 * contrast + veil)


def _gamma(*powers: float) -> Recoloring:
    return lambda image: _bytes((image / 255) ** np.array(powers)[:, None, None])


def _bytes(image: Array) -> Array:
    return np.asarray(np.clip(np.rint(image * 255), 0, 255), np.uint8)


RECOLORINGS: dict[str, Recoloring] = {
    "green dyes": _dyes(_GREENS),
    "blue dyes": _dyes(_BLUES, (1.4, 1.0, 1.0)),
    "brown dyes": _dyes(_BROWNS, (0.9, 1.2, 0.8)),
    "hematoxylin x 0.6, eosin x 1.5": _dyes(_HED, (0.6, 1.5, 1.2)),
    "hematoxylin x 1.5, eosin x 0.6": _dyes(_HED, (1.5, 0.6, 0.6)),
    "hue + 60 degrees": _hue(60),
    "hue + 120 degrees": _hue(120),
    "hue + 180 degrees": _hue(180),
    "gray world, cold light": _gray_world((0.75, 1.0, 1.3)),
    "gray world, warm light": _gray_world((1.3, 1.0, 0.7)),
    "bluish veil": _tint((0.55, 0.7, 1.0), 0.6),
    "greenish veil": _tint((0.6, 1.0, 0.6), 0.6),
    "pale": _tint((1.0, 1.0, 1.0), 0.35),
    "gamma 2.2": _gamma(2.2, 2.2, 2.2),
    "gamma 0.45, blue 1.5": _gamma(0.45, 0.45, 1.5),
}
