# SPDX-License-Identifier: Apache-2.0
"""Linear maps into a space of attributes and of words: ridge regression, in closed form.

What is known of training images (their labels, modality, plane and body part, as indicators; what
their words say, condensed) is predicted from an image's features, and the attributes from words as
well (Hoerl & Kennard, Technometrics 1970). Images and words then meet where both are predicted to
be. It is quick, has no seed, and few images do not lead it astray.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vesalius.tasks.retrieve.model import Head
from vesalius.types import Array, Json

FACTS = ("modality", "plane", "body_part")
_LEAST = 5  # images that a value needs to be predicted


class Ridge(Head):
    """A linear map whose numbers form blocks; each block has length one before it is weighed."""

    scale: Tensor
    matrix: Tensor
    weights: Tensor

    def __init__(self, features: int, blocks: Sequence[int]) -> None:
        """Build it with zeros.

        Args:
            features: that it sees.
            blocks: numbers of each block.
        """
        super().__init__()
        self.blocks = [int(width) for width in blocks]
        self.dimension = sum(self.blocks)
        self.register_buffer("center", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.register_buffer("matrix", torch.zeros(features, self.dimension))
        self.register_buffer("weights", torch.ones(len(self.blocks)))

    def forward(self, features: Tensor) -> Tensor:
        """Return `(N, dimension)` of features `(N, features)`."""
        found = ((features - self.center) / self.scale) @ self.matrix
        split = torch.split(found, self.blocks, dim=1)
        parts = zip(split, self.weights.sqrt(), strict=True)
        return torch.cat([share * functional.normalize(part, dim=1) for part, share in parts], 1)


def attributes(rows: Sequence[Json], labels: Sequence[str]) -> Array:
    """Return `(n, values)` indicators of labels and facts, centered, each column group alike.

    Args:
        rows: of the images.
        labels: columns of the labels that pairs share.
    """
    groups = []
    for name in (*labels, *FACTS):
        values = np.array([str(row.get(name) or "") for row in rows])
        known, counts = np.unique(values, return_counts=True)
        kept = [v for v, count in zip(known, counts, strict=True) if v and count >= _LEAST]
        if len(kept) < 2:
            continue
        groups.append(_alike((values[:, None] == np.array(kept)[None]).astype(np.float64)))
    return np.concatenate(groups, axis=1) if groups else np.zeros((len(rows), 0))


def fit_images(features: Tensor, targets: Sequence[Array], weights: Array, settings: Json) -> Ridge:
    """Return the map of images.

    Args:
        features: `(n, F)`.
        targets: `(n, d)` of each block, centered.
        weights: `(n,)` of the images.
        settings: of the plan's `ridge`: `strength`, `attributes`.
    """
    head = Ridge(features.shape[1], [target.shape[1] for target in targets])
    table = features.double().numpy()
    center, scale = table.mean(0), np.maximum(table.std(0), 1e-6)
    matrix = _solve((table - center) / scale, np.concatenate(targets, 1), weights, settings)
    _take(head, center, scale, matrix, settings)
    return head


def fit_words(
    words: Tensor,
    bearing: Array,
    attribute: Array,
    directions: Array,
    weights: Array,
    settings: Json,
) -> Ridge:
    """Return the map of words: their own directions, and the attributes that they foretell.

    Args:
        words: `(n, W)` features of the words of images.
        bearing: `(n,)`, whether an image bears words.
        attribute: `(n, a)` of the images.
        directions: `(W, t)`, see `directions_of`.
        weights: `(n,)` of the images.
        settings: as of `fit_images`.
    """
    blocks = [directions.shape[1], attribute.shape[1]]
    head = Ridge(words.shape[1], [width for width in blocks if width])
    table = words.double().numpy()[bearing]
    center = table.mean(0)
    foretold = _solve(table - center, attribute[bearing], weights[bearing], settings, unit=1.0)
    _take(head, center, np.ones_like(center), np.concatenate([directions, foretold], 1), settings)
    return head


def directions_of(words: Tensor, bearing: Array, count: int) -> Array:
    """Return `(W, t)`: the directions in which words differ most (principal components)."""
    table = words.double().numpy()[bearing]
    table = table - table.mean(0)
    _, strength, found = np.linalg.svd(table, full_matrices=False)
    kept = min(count, int((strength > 1e-6 * strength[:1].max(initial=1.0)).sum()))
    return np.asarray(found[:kept].T)


def words_target(words: Tensor, bearing: Array, directions: Array) -> Array:
    """Return `(n, t)` of words along directions, centered; zeros where an image bears none."""
    table = words.double().numpy()
    found = (table - table[bearing].mean(0)) @ directions
    found[~bearing] = 0.0
    return np.asarray(found / np.sqrt(np.square(found[bearing]).sum(1).mean()))


def _alike(table: Array) -> Array:
    """Center columns, and bring the rows' mean squared length to one."""
    centered = table - table.mean(0)
    return np.asarray(centered / np.sqrt(np.square(centered).sum(1).mean()))


def _solve(
    x: Array, y: Array, weights: Array, settings: Mapping[str, float], unit: float | None = None
) -> Array:
    """Return the ridge solution; `unit` is the mean squared length of rows of `x`."""
    scale = np.sqrt(x.shape[1] if unit is None else unit)
    a = x / scale
    shares = weights / weights.mean()
    weighed = a * shares[:, None]
    left = a.T @ weighed + float(settings["strength"]) * np.eye(a.shape[1])
    center = np.average(y, axis=0, weights=shares) if len(y) else 0.0
    return np.asarray(np.linalg.solve(left, weighed.T @ (y - center)) / scale)


def _take(head: Ridge, center: Array, scale: Array, matrix: Array, settings: Json) -> None:
    head.center.copy_(torch.from_numpy(center))
    head.scale.copy_(torch.from_numpy(scale))
    head.matrix.copy_(torch.from_numpy(matrix))
    if len(head.blocks) == 2:
        share = float(settings["attributes"])
        head.weights.copy_(torch.tensor([1 - share, share]))
