# SPDX-License-Identifier: Apache-2.0
"""Sliding-window inference: overlapping patches, weighted by a Gaussian, added up.

Isensee et al.: nnU-Net, Nature Methods 2021 (overlap one half, sigma an eighth of the patch).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vesalius.types import Array, Json


def slide(network: Callable[[Tensor], Tensor], image: Array, decisions: Json) -> Array:
    """Return logits `(classes, i, j, k)` float32 for an image `(C, i, j, k)` on the plan's grid.

    Args:
        network: `(1, C, ...)` to `(1, classes, ...)`, with 2 axes (slice by slice) or 3.
        image: any size; padded with its smallest value to the patch at least.
        decisions: patch and overlap.
    """
    patch = patch3(decisions)
    shape = np.array(image.shape[1:])
    lack = np.maximum(0, patch - shape)
    before = lack // 2
    padding = [(0, 0), *((int(b), int(n - b)) for b, n in zip(before, lack, strict=True))]
    padded = np.pad(image.astype(np.float32), padding, constant_values=float(image.min()))
    weight = _gaussian(patch)
    total: Array | None = None
    norm = np.zeros(padded.shape[1:], np.float32)
    starts = [
        _starts(int(n), int(p), decisions["overlap"])
        for n, p in zip(padded.shape[1:], patch, strict=True)
    ]
    flat = len(decisions["patch"]) == 2
    for place in itertools.product(*starts):
        window = tuple(slice(a, a + int(p)) for a, p in zip(place, patch, strict=True))
        crop = torch.from_numpy(np.ascontiguousarray(padded[(slice(None), *window)]))[None]
        answer = network(crop[..., 0] if flat else crop)
        values = (answer[..., None] if flat else answer)[0].float().cpu().numpy()
        if total is None:
            total = np.zeros((len(values), *padded.shape[1:]), np.float32)
        total[(slice(None), *window)] += values * weight
        norm[window] += weight
    assert total is not None  # noqa: S101 - there is at least one window
    total /= norm
    inner = tuple(slice(int(b), int(b + n)) for b, n in zip(before, shape, strict=True))
    return np.ascontiguousarray(total[(slice(None), *inner)])


def patch3(decisions: Json) -> Array:
    """Return the patch with three axes: a 2D patch has one slice."""
    return np.array([*decisions["patch"], 1][:3])


def _starts(length: int, patch: int, overlap: float) -> list[int]:
    """Return window starts, evenly spread from the first voxel to the last."""
    count = 1 + int(np.ceil((length - patch) / max(1, patch * (1 - overlap))))
    return sorted({round(place) for place in np.linspace(0, length - patch, count).tolist()})


def _gaussian(patch: Array) -> Array:
    out = np.ones(patch, np.float32)
    for axis, size in enumerate(patch):
        if size == 1:
            continue
        x = (np.arange(size) - (size - 1) / 2) / (size / 8)
        bell = np.exp(-0.5 * x**2).astype(np.float32)
        out *= bell.reshape([-1 if a == axis else 1 for a in range(len(patch))])
    return np.maximum(out, 1e-3)
