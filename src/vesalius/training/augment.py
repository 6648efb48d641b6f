# SPDX-License-Identifier: Apache-2.0
"""Augmentation of a whole batch of tensors; all that is random is drawn from one generator.

Random values are drawn first (NumPy, on the CPU), then applied on the tensors' device: the same
generator gives the same batch anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vesalius.training.color import restain, shift_color, shift_stain
from vesalius.training.resolution import blur, coarsen
from vesalius.types import Array, Json


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How far a batch may be moved; each item is moved with probability `chance`.

    Attributes:
        rotation: degrees, in each plane of `planes`.
        scale: factor between `1 - scale` and `1 + scale`.
        shift: fraction of the extent along each axis.
        flips: spatial axes that may be mirrored.
        planes: pairs of spatial axes in which to rotate.
        gain: factor on the values between `1 - gain` and `1 + gain`.
        offset: added to the values, in standard deviations.
        gamma: exponent between `1 - gamma` and `1 + gamma` on values scaled to 0..1.
        noise: largest standard deviation of added Gaussian noise.
        color: strength of changed hue, saturation and channel gains, of RGB images.
        stain: strength of changed amounts of dye, of stained RGB images.
        restain: strength of other colors altogether, of RGB images.
        blur: largest standard deviation of a Gaussian, in voxels, along the axes of `planes`.
        coarse: largest factor on the voxels' edges along these axes, for a poorer resolution.
        chance: probability for the spatial part, and for each change of values.
        seldom: probability of blur, and of a poorer resolution.
    """

    rotation: float = 15.0
    scale: float = 0.15
    shift: float = 0.08
    flips: tuple[int, ...] = ()
    planes: tuple[tuple[int, int], ...] = ((0, 1),)
    gain: float = 0.2
    offset: float = 0.2
    gamma: float = 0.25
    noise: float = 0.1
    color: float = 0.0
    stain: float = 0.0
    restain: float = 0.0
    blur: float = 0.0
    coarse: float = 1.0
    chance: float = 0.5
    seldom: float = 0.2

    @classmethod
    def from_json(cls, held: Json) -> Self:
        """Return what a plan holds; what it does not name keeps its default."""
        return cls(**{name: _tuples(value) for name, value in held.items()})


def augment(
    images: Tensor,
    settings: Augmentation,
    rng: np.random.Generator,
    *,
    labels: Tensor | None = None,
    spacing: tuple[float, ...] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Return the batch, moved and with its values changed.

    Args:
        images: `(N, C, ...)`, 2 or 3 spatial axes.
        settings: how far.
        rng: the step's generator.
        labels: `(N, ...)` integers moved along, sampled by nearest neighbor.
        spacing: millimeters along each spatial axis, so that rotations are rigid.
    """
    matrices = _matrices(len(images), images.shape[2:], settings, rng, spacing)
    images, labels = _moved(images.float(), labels, matrices)
    if settings.color and images.shape[1] == 3:
        images = shift_color(images, settings.color, settings.chance, rng)
    if settings.stain and images.shape[1] == 3:
        images = shift_stain(images, settings.stain, settings.chance, rng)
    if settings.restain and images.shape[1] == 3:
        images = restain(images, settings.restain, settings.chance, rng)
    fine = sorted({axis for plane in settings.planes for axis in plane})
    if settings.blur:
        images = blur(images, settings.blur, fine, settings.seldom, rng)
    if settings.coarse > 1:
        images = coarsen(images, settings.coarse, fine, settings.seldom, rng)
    return _change_values(images, settings, rng), labels


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _matrices(
    count: int,
    shape: torch.Size | tuple[int, ...],
    settings: Augmentation,
    rng: np.random.Generator,
    spacing: tuple[float, ...] | None,
) -> Array:
    """Return `(count, axes, axes + 1)` maps from new to old positions, as `affine_grid` wants."""
    axes = len(shape)
    half = np.asarray(shape) * np.asarray(spacing or (1.0,) * axes) / 2  # millimeters
    out = np.zeros((count, axes, axes + 1))
    for item in range(count):
        matrix = np.eye(axes)
        move = rng.random() < settings.chance
        zoom = 1 + rng.uniform(-settings.scale, settings.scale)
        angles = np.radians(
            rng.uniform(-settings.rotation, settings.rotation, len(settings.planes))
        )
        shift = rng.uniform(-settings.shift, settings.shift, axes) * 2  # in half extents
        flips = rng.random(axes) < 0.5
        if move:
            for (a, b), angle in zip(settings.planes, angles, strict=True):
                turn = np.eye(axes)
                turn[[a, a, b, b], [a, b, a, b]] = (
                    np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle),
                )  # fmt: skip
                matrix = matrix @ turn
            matrix = matrix * zoom
            out[item, :, axes] = shift
        for axis in settings.flips:
            if flips[axis]:
                matrix[:, axis] *= -1
        out[item, :, :axes] = matrix * half[None, :] / half[:, None]
    # `grid_sample` names the last spatial axis first.
    return np.concatenate([out[:, ::-1, :axes][:, :, ::-1], out[:, ::-1, axes:]], axis=2)


def _moved(images: Tensor, labels: Tensor | None, matrices: Array) -> tuple[Tensor, Tensor | None]:
    """Return the batch on its new positions; what is only mirrored, or stays, is not sampled."""
    linear, shift = matrices[:, :, :-1], matrices[:, :, -1]
    mirrored = (np.abs(linear) == np.eye(linear.shape[1])).all((1, 2)) & (shift == 0).all(1)
    out = images.clone()
    truth = None if labels is None else labels.clone()
    for item in np.flatnonzero(mirrored):
        # `grid_sample` names the last spatial axis first.
        axes = [-1 - n for n in np.flatnonzero(np.diagonal(linear[item]) < 0).tolist()]
        if axes:
            out[item] = images[item].flip(axes)
            if labels is not None and truth is not None:
                truth[item] = labels[item].flip(axes)
    moved = torch.from_numpy(np.flatnonzero(~mirrored)).to(images.device)
    if not len(moved):
        return out, truth
    some = images[moved]
    grid = functional.affine_grid(
        torch.as_tensor(matrices[~mirrored], dtype=torch.float32, device=images.device),
        list(some.shape),
        align_corners=False,
    )
    out[moved] = functional.grid_sample(
        some, grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    if labels is not None and truth is not None:
        sampled = functional.grid_sample(
            labels[moved][:, None].float(), grid, mode="nearest", padding_mode="border",
            align_corners=False,
        )  # fmt: skip
        truth[moved] = sampled[:, 0].round().to(truth.dtype)
    return out, truth


def _change_values(images: Tensor, settings: Augmentation, rng: np.random.Generator) -> Tensor:
    count = len(images)

    def draw(low: float, high: float, neutral: float) -> Tensor:
        drawn = np.where(
            rng.random(count) < settings.chance, rng.uniform(low, high, count), neutral
        )
        column = torch.as_tensor(drawn, dtype=torch.float32, device=images.device)
        return column.reshape(count, *[1] * (images.ndim - 1))

    gain = draw(1 - settings.gain, 1 + settings.gain, 1.0)
    offset = draw(-settings.offset, settings.offset, 0.0)
    gamma = draw(1 - settings.gamma, 1 + settings.gamma, 1.0)
    noise = draw(0.0, settings.noise, 0.0)
    seed = int(rng.integers(2**31))
    low = images.amin(dim=tuple(range(1, images.ndim)), keepdim=True)
    span = images.amax(dim=tuple(range(1, images.ndim)), keepdim=True) - low
    span = torch.where(span > 0, span, 1.0)
    images = ((images - low) / span) ** gamma * span + low
    images = images * gain + offset
    if bool((noise > 0).any()):
        generator = torch.Generator().manual_seed(seed)
        images = images + noise * torch.randn(images.shape, generator=generator).to(images.device)
    return images
