# SPDX-License-Identifier: Apache-2.0
"""AlexNet for images and volumes.

Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural Networks,
NeurIPS 2012, in the one-tower form of Krizhevsky: One Weird Trick for Parallelizing Convolutional
Neural Networks, arXiv 1404.5997 (2014), which has no local response normalization. The stems for
smaller images replace the first kernel and stride (11, 4).
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from vesalius.networks.layers import (
    AdaptiveAvgPool,
    Conv,
    FittingMaxPool,
    Stem,
    grid,
    initialize_plain,
)

# stem -> kernel, stride and padding of the first convolution, cells before the linear layers
_STEMS = {"small": (3, 1, 1, 2), "medium": (5, 2, 2, 3), "large": (11, 4, 2, 6)}


class AlexNet(nn.Module):
    """Five convolutions, three overlapping poolings and three fully connected layers.

    61,100,840 parameters for 2D, 3 channels, 1000 classes. `features` is the width of the last
    hidden layer, 64 * `width`, which `encode` returns per image.
    """

    def __init__(
        self,
        *,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        stem: Stem = "large",
        width: int = 64,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        dims = spatial_dims
        kernel, stride, padding, size = _STEMS[stem]
        cells = grid(dims, size)
        self.convolutions = nn.Sequential(
            Conv[dims](in_channels, width, kernel, stride, padding),
            nn.ReLU(inplace=True),
            FittingMaxPool(3, 2),
            Conv[dims](width, 3 * width, 5, 1, 2),
            nn.ReLU(inplace=True),
            FittingMaxPool(3, 2),
            Conv[dims](3 * width, 6 * width, 3, 1, 1),
            nn.ReLU(inplace=True),
            Conv[dims](6 * width, 4 * width, 3, 1, 1),
            nn.ReLU(inplace=True),
            Conv[dims](4 * width, 4 * width, 3, 1, 1),
            nn.ReLU(inplace=True),
            FittingMaxPool(3, 2),
        )
        self.pool = AdaptiveAvgPool[dims](cells)
        self.features = 64 * width
        self.hidden = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(4 * width * math.prod(cells), self.features),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(self.features, self.features),
            nn.ReLU(inplace=True),
        )
        self.head = nn.Linear(self.features, out_channels)
        initialize_plain(self)

    def maps(self, x: Tensor) -> Tensor:
        """Return the last maps: `(N, in_channels, ...)` -> `(N, 4 * width, ...)`."""
        maps: Tensor = self.convolutions(x)
        return maps

    def encode(self, x: Tensor) -> Tensor:
        """Return one embedding per image: `(N, in_channels, ...)` -> `(N, features)`."""
        embedding: Tensor = self.hidden(self.pool(self.maps(x)).flatten(1))
        return embedding

    def forward(self, x: Tensor) -> Tensor:
        """Return logits: `(N, in_channels, ...)` -> `(N, out_channels)`."""
        logits: Tensor = self.head(self.encode(x))
        return logits
