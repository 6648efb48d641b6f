# SPDX-License-Identifier: Apache-2.0
"""Towers: small networks from what encoders say of images, or of words, into the shared space."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from vesalius.networks.sentence import WIDTH, sentence_encoder
from vesalius.networks.text import TextFeatures
from vesalius.tasks.retrieve.model import Head
from vesalius.types import Array, Json


class Tower(Head):
    """Standardized features, one hidden layer, `dimension` numbers; much is dropped in training."""

    scale: Tensor

    def __init__(self, features: int, spec: Json) -> None:
        """Build it from a plan's `tower`: `hidden`, `dimension`, `lost`, `dropout`."""
        super().__init__()
        self.dimension = int(spec["dimension"])
        self.register_buffer("center", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.layers = nn.Sequential(
            nn.Dropout(spec["lost"]),
            nn.Linear(features, spec["hidden"]),
            nn.GELU(),
            nn.Dropout(spec["dropout"]),
            nn.Linear(spec["hidden"], self.dimension),
        )

    def standardize(self, features: Tensor) -> None:
        """Take over mean and spread of the training images, or words."""
        self.center.copy_(features.mean(0))
        self.scale.copy_(features.std(0, correction=0).clamp(min=1e-6))

    def forward(self, features: Tensor) -> Tensor:
        """Return `(N, dimension)` of features `(N, features)`."""
        found: Tensor = self.layers((features - self.center) / self.scale)
        return found


class Projection(Head):
    """One linear layer: the end of a twin that was trained as a whole."""

    def __init__(self, features: int, dimension: int) -> None:
        super().__init__()
        self.dimension = dimension
        self.register_buffer("center", torch.zeros(features))
        self.layer = nn.Linear(features, dimension)

    def forward(self, features: Tensor) -> Tensor:
        """Return `(N, dimension)` of features `(N, features)`."""
        found: Tensor = self.layer(features)
        return found


class Blend(Head):
    """Several heads side by side: the cosine of the whole is the weighted mean of theirs."""

    weights: Tensor

    def __init__(
        self, heads: Sequence[Head], spans: Sequence[tuple[int, int]], weights: Sequence[float]
    ) -> None:
        """Put heads together.

        Args:
            heads: each with its own features.
            spans: first and last + 1 of the features that each head sees.
            weights: of each; they are made to sum to 1.
        """
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.spans = tuple(spans)
        self.dimension = sum(head.dimension for head in heads)
        shares = torch.tensor(weights, dtype=torch.float32)
        self.register_buffer("weights", shares / shares.sum())
        center = torch.zeros(max(end for _, end in spans))
        for head, (start, end) in zip(heads, spans, strict=True):
            center[start:end] = head.center
        self.register_buffer("center", center)

    def forward(self, features: Tensor) -> Tensor:
        """Return `(N, dimension)` of length one of features `(N, features)`."""
        parts = zip(self.heads, self.spans, self.weights.sqrt(), strict=True)
        found = [
            share * functional.normalize(head(features[:, start:end]), dim=1)
            for head, (start, end), share in parts
        ]
        return torch.cat(found, dim=1)


class WordsTowers(nn.Module):
    """What puts words into the space of the images: a head for each head of images.

    Where a head of images has none of words, its part of the vector is left empty: it changes no
    order of images.
    """

    def __init__(
        self,
        texts: TextFeatures,
        heads: Sequence[Head],
        shares: Sequence[float],
        *,
        sentences: bool,
        rest: int,
    ) -> None:
        """Put heads together.

        Args:
            texts: fitted on the training texts.
            heads: of words, one for each head of images that has its like.
            shares: weight of each, as in the blend of images.
            sentences: whether MiniLM's sentences are features, too.
            rest: numbers of the image vector that no words reach.
        """
        super().__init__()
        self.texts, self.sentences, self.rest = texts, sentences, rest
        self.heads = nn.ModuleList(heads)
        self.shares = tuple(shares)

    def vectors(self, texts: Sequence[str]) -> Array:
        """Return `(n, dimension)` float32 of length one."""
        features = text_features(self.texts, texts, sentences=self.sentences)
        with torch.inference_mode():
            parts = [
                share**0.5 * functional.normalize(head(features), dim=1)
                for head, share in zip(self.heads, self.shares, strict=True)
            ]
            whole = functional.normalize(torch.cat(parts, dim=1), dim=1)
        table: Array = functional.pad(whole, (0, self.rest)).numpy()
        return table


def width_of_text(texts: TextFeatures, *, sentences: bool) -> int:
    """Return how many features a text has."""
    return int(texts.directions.shape[1]) + WIDTH * sentences


def text_features(fitted: TextFeatures, texts: Sequence[str], *, sentences: bool) -> Tensor:
    """Return `(n, features)` of texts: TF-IDF's directions, and MiniLM's sentences.

    Raises:
        MissingDependency: sentences are asked for, and their wheel is not installed.
    """
    distinct = sorted(set(texts))
    parts = [torch.from_numpy(fitted.vectors(distinct))]
    if sentences:
        parts.append(torch.from_numpy(sentence_encoder().vectors(distinct)))
    place = {text: row for row, text in enumerate(distinct)}
    return torch.cat(parts, dim=1)[[place[text] for text in texts]]
