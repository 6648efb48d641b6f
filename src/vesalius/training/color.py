# SPDX-License-Identifier: Apache-2.0
"""Changes of color for a batch of RGB images: of camera and light, of a stain's strength, of stain.

Values are on any scale that the three channels share; each image's own range stands for black to
white.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vesalius.types import Array

_GRAY = np.full((3, 3), 1 / 3)
_TURN = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)  # about the gray axis
# Optical density of hematoxylin, eosin and DAB in red, green, blue: Ruifrok & Johnston, 2001.
_STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
_DARKEST = 1 / 255
_HAZE = 0.3  # of white, where an image's darkest value may lie
_SPREAD = (0.5, 0.5, 0.5)  # of the shares of a mean: one channel alone is as likely as all


def shift_color(images: Tensor, strength: float, chance: float, rng: np.random.Generator) -> Tensor:
    """Return RGB images `(N, 3, ...)` with hue, saturation and the channels' gains changed.

    Args:
        images: on any scale.
        strength: 0 to 1; 1 turns the hue by up to half a circle, takes the saturation to between
            0 and 2, and each channel's gain to between 0.5 and 1.5.
        chance: for each image to be changed.
        rng: the step's generator.
    """
    matrices, changed = np.empty((len(images), 3, 3)), np.zeros(len(images), bool)
    for place in range(len(images)):
        angle = rng.uniform(-np.pi, np.pi) * strength
        saturation = 1 + rng.uniform(-1, 1) * strength
        gains = 1 + rng.uniform(-0.5, 0.5, 3) * strength
        hue = _GRAY + np.cos(angle) * (np.eye(3) - _GRAY) + np.sin(angle) * _TURN
        matrices[place] = np.diag(gains) @ (_GRAY + saturation * (np.eye(3) - _GRAY)) @ hue
        changed[place] = rng.random() < chance

    def change(some: Tensor, places: Array) -> Tensor:
        low, span = _range(some)
        return _mix((some - low) / span, matrices[places]) * span + low

    return _in_places(changed, images, change)


def shift_stain(images: Tensor, strength: float, chance: float, rng: np.random.Generator) -> Tensor:
    """Return stained RGB images `(N, 3, ...)` with each dye's amount scaled and shifted.

    In optical density, by dye: `c * (1 + a) + b`, with `a` uniform in `± strength` and `b` in a
    fifth of that (Tellez et al., IEEE TMI 2018).

    Args:
        images: on any scale, brightfield (white is unstained).
        strength: of the change.
        chance: for each image to be changed.
        rng: the step's generator.
    """
    unmix = _STAINS / np.linalg.norm(_STAINS, axis=1, keepdims=True)  # dye -> density
    back = np.linalg.inv(unmix)
    matrices, changed = np.empty((len(images), 3, 3)), np.zeros(len(images), bool)
    offsets = np.zeros((len(images), 3))
    for place in range(len(images)):
        amount = 1 + rng.uniform(-strength, strength, 3)
        more = rng.uniform(-strength, strength, 3) * 0.2  # of a dye's full density
        changed[place] = rng.random() < chance
        matrices[place] = (back @ np.diag(amount) @ unmix).T
        offsets[place] = more @ unmix

    def change(some: Tensor, places: Array) -> Tensor:
        low, span = _range(some)
        density = -torch.log(((some - low) / span).clamp(min=_DARKEST))
        density = _mix(density, matrices[places]) + _column(offsets[places], some)
        return torch.exp(-density).clamp(max=1.0) * span + low

    return _in_places(changed, images, change)


def restain(images: Tensor, strength: float, chance: float, rng: np.random.Generator) -> Tensor:
    """Return RGB images `(N, 3, ...)` in other colors, as if other dyes had been used.

    The optical density of each new channel is a random mean of the three old ones (so colors may
    change places, or all turn gray), times a factor for the image and one for the channel, plus a
    tint that lies on the whole image. How bright the darkest value is, which the density depends
    on, is not known of normalized images, and drawn too. Each image keeps its mean and standard
    deviation over all channels, as a normalizer would give it back.

    Args:
        images: on any scale.
        strength: 0 to 1; 1 keeps nothing of the old mixture, takes the image's factor to between
            1/3 and 3, the channels' to between 1/2 and 2, and lets a tint take up to 60 % of the
            light of a channel.
        chance: for each image to be changed.
        rng: the step's generator.
    """
    count = len(images)
    means = rng.dirichlet(_SPREAD, (count, 3))
    common = 3.0 ** (strength * rng.uniform(-1, 1, (count, 1)))
    factors = common * 2.0 ** (strength * rng.uniform(-1, 1, (count, 3)))
    tints = strength * rng.uniform(0, 1, (count, 3)) ** 2
    darkest = rng.uniform(_DARKEST, _HAZE, count)
    changed = rng.random(count) < chance
    mixtures = factors[:, :, None] * ((1 - strength) * np.eye(3) + strength * means)

    def change(some: Tensor, places: Array) -> Tensor:
        low, span = _range(some)
        floor = _column(darkest[places], some)
        density = -torch.log(floor + (1 - floor) * (some - low) / span)
        found = torch.exp(-_mix(density, mixtures[places]) - _column(tints[places], some))
        return _as_bright(found, some)

    return _in_places(changed, images, change)


def _as_bright(images: Tensor, models: Tensor) -> Tensor:
    """Return each image with the mean and standard deviation of its model."""
    axes = tuple(range(1, images.ndim))
    spread, mean = torch.std_mean(images, axes, keepdim=True)
    wanted, center = torch.std_mean(models, axes, keepdim=True)
    return (images - mean) * (wanted / torch.where(spread > 0, spread, 1.0)) + center


def _range(images: Tensor) -> tuple[Tensor, Tensor]:
    axes = tuple(range(1, images.ndim))
    low = images.amin(dim=axes, keepdim=True)
    span = images.amax(dim=axes, keepdim=True) - low
    return low, torch.where(span > 0, span, 1.0)


def _in_places(changed: Array, images: Tensor, change: Callable[[Tensor, Array], Tensor]) -> Tensor:
    """Return the batch with the chosen images changed; `change` is given them and their places."""
    places = np.flatnonzero(changed)
    if not len(places):
        return images
    chosen, out = torch.from_numpy(places).to(images.device), images.clone()
    out[chosen] = change(images[chosen], places)
    return out


def _column(values: Array, images: Tensor) -> Tensor:
    """Return values `(N,)` or `(N, 3)` that can be added to the images."""
    held = torch.as_tensor(values, dtype=torch.float32, device=images.device)
    return held.reshape(len(images), -1, *[1] * (images.ndim - 2))


def _mix(images: Tensor, matrices: Array) -> Tensor:
    held = torch.as_tensor(matrices, dtype=torch.float32, device=images.device)
    return torch.einsum("nij,nj...->ni...", held, images)
