# SPDX-License-Identifier: Apache-2.0
"""From the views of images to vectors of one space: encoders, and a head upon what they say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from vesalius.tasks.frozen import Viewed
from vesalius.types import Array


class ImageEncoder(Protocol):
    """What describes an image: `FrozenEncoder`, or a twin that was trained.

    `features` is the number of numbers per image.
    """

    features: int

    def images(self, images: Sequence[Viewed]) -> Tensor:
        """Return `(images, features)`: the mean over the views of each."""

    def maps(self, views: Tensor) -> list[Tensor]:
        """Return maps `(M, channels, ...)` of views whose means are the features, in order."""


class Head(nn.Module):
    """What turns features into vectors; of no length in particular.

    Attributes:
        dimension: of the vectors.
        center: `(features,)`: what an image without anything to tell would have.
    """

    dimension: int
    center: Tensor

    def forward(self, features: Tensor) -> Tensor:
        """Return `(N, dimension)` of features `(N, features)`."""
        raise NotImplementedError


class LastLevel(Head):
    """The last level of an encoder as it is: a vector without any training."""

    def __init__(self, features: int, dimension: int) -> None:
        super().__init__()
        self.dimension = dimension
        self.register_buffer("center", torch.zeros(features))

    def forward(self, features: Tensor) -> Tensor:
        """Return the last `dimension` features."""
        return features[:, -self.dimension :]


class ImageModel(nn.Module):
    """Some encoders side by side, and one head upon all their features."""

    def __init__(self, encoders: Sequence[nn.Module], head: Head) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        self.head = head

    def features(self, images: Sequence[Viewed]) -> Tensor:
        """Return `(images, features)` of all encoders."""
        parts: list[ImageEncoder] = list(self.encoders)  # type: ignore[arg-type]  # so they are
        return torch.cat([encoder.images(images) for encoder in parts], dim=1)

    def vectors(self, images: Sequence[Viewed]) -> Array:
        """Return `(images, dimension)` float32 of length one."""
        return self.of_features(self.features(images))

    def of_features(self, features: Tensor) -> Array:
        """Return `(images, dimension)` float32 of length one of `features` of them."""
        with torch.inference_mode():
            found = functional.normalize(self.head(features), dim=1)
        table: Array = found.float().numpy()
        return table

    def maps(self, views: Tensor) -> list[Tensor]:
        """Return the maps of all encoders, in the order of the features."""
        parts: list[ImageEncoder] = list(self.encoders)  # type: ignore[arg-type]  # so they are
        return [found for encoder in parts for found in encoder.maps(views)]
