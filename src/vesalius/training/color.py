# SPDX-License-Identifier: Apache-2.0
"""Changes of color for a batch of RGB images: of camera and light, and of a stain's strength.

Values are on any scale that the three channels share; each image's own range stands for black to
white.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vesalius.types import Array

_GRAY = np.full((3, 3), 1 / 3)
_TURN = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)  # about the gray axis
# Optical density of hematoxylin, eosin and DAB in red, green, blue: Ruifrok & Johnston, 2001.
_STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
_DARKEST = 1 / 255


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
    low, span = _range(images)
    return _where(changed, _mix((images - low) / span, matrices) * span + low, images)


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
    low, span = _range(images)
    density = -torch.log(((images - low) / span).clamp(min=_DARKEST))
    added = torch.as_tensor(offsets, dtype=torch.float32, device=images.device)
    density = _mix(density, matrices) + added.reshape(len(images), 3, *[1] * (images.ndim - 2))
    return _where(changed, torch.exp(-density).clamp(max=1.0) * span + low, images)


def _range(images: Tensor) -> tuple[Tensor, Tensor]:
    axes = tuple(range(1, images.ndim))
    low = images.amin(dim=axes, keepdim=True)
    span = images.amax(dim=axes, keepdim=True) - low
    return low, torch.where(span > 0, span, 1.0)


def _where(changed: Array, new: Tensor, old: Tensor) -> Tensor:
    chosen = torch.from_numpy(changed).to(old.device)
    return torch.where(chosen.reshape(-1, *[1] * (old.ndim - 1)), new, old)


def _mix(images: Tensor, matrices: Array) -> Tensor:
    held = torch.as_tensor(matrices, dtype=torch.float32, device=images.device)
    return torch.einsum("nij,nj...->ni...", held, images)
