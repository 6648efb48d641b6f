# SPDX-License-Identifier: Apache-2.0
"""VGG networks for images and volumes.

Simonyan, Zisserman: Very Deep Convolutional Networks for Large-Scale Image Recognition, ICLR 2015
(configurations A and D), with batch normalization after each convolution (Ioffe, Szegedy, ICML
2015). All convolutions have stride 1; the stems for smaller images leave out the last poolings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from vesalius.networks.layers import (
    AdaptiveAvgPool,
    BatchNorm,
    Conv,
    Dropped,
    FittingMaxPool,
    Stem,
    grid,
    initialize_plain,
)

_STEMS = {"small": (3, 3), "medium": (4, 4), "large": (5, 7)}  # poolings, cells before the linear
_MULTIPLES = (1, 2, 4, 8, 8)  # channels of each stage, in units of the first


class VGG(nn.Module):
    """Five stages of 3-wide convolutions and three fully connected layers.

    `features` is the width of the last hidden layer, 64 * `width`, which `encode` returns per
    image.
    """

    def __init__(
        self,
        depths: Sequence[int],
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
        poolings, size = _STEMS[stem]
        cells = grid(dims, size)
        layers: list[nn.Module] = []
        ends: dict[int, tuple[int, int]] = {}  # fall of the resolution -> last layer, its width
        channels = in_channels
        for level, (depth, multiple) in enumerate(zip(depths, _MULTIPLES, strict=True)):
            for _ in range(depth):
                layers += [
                    Conv[dims](channels, multiple * width, 3, 1, 1),
                    BatchNorm[dims](multiple * width),
                    nn.ReLU(inplace=True),
                ]
                channels = multiple * width
            if level < poolings:
                layers.append(FittingMaxPool(2, 2))
            ends[2 ** min(level + 1, poolings)] = len(layers), channels
        self._ends = [place for place, _ in ends.values()]
        self.pyramid_widths = tuple(wide for _, wide in ends.values())
        self.pyramid_strides = tuple(ends)
        self.convolutions = nn.Sequential(*layers)
        self.pool = AdaptiveAvgPool[dims](cells)
        self.features = 64 * width
        self.hidden: nn.Module = Dropped()
        self.head: nn.Module = Dropped()
        if out_channels:
            self.hidden = nn.Sequential(
                nn.Linear(channels * math.prod(cells), self.features),
                nn.ReLU(inplace=True),
                nn.Dropout(dropout),
                nn.Linear(self.features, self.features),
                nn.ReLU(inplace=True),
                nn.Dropout(dropout),
            )
            self.head = nn.Linear(self.features, out_channels)
        initialize_plain(self)

    def maps(self, x: Tensor) -> Tensor:
        """Return the last maps: `(N, in_channels, ...)` -> `(N, 8 * width, ...)`."""
        maps: Tensor = self.convolutions(x)
        return maps

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """Return the last maps of each resolution, finest first (see `Encoder`).

        A pooling ends its stage: with the large stem, these are the maps after each of the five.
        """
        found: list[Tensor] = []
        for number, layer in enumerate(self.convolutions, 1):
            x = layer(x)
            if number in self._ends:
                found.append(x)
        return found

    def encode(self, x: Tensor) -> Tensor:
        """Return one embedding per image: `(N, in_channels, ...)` -> `(N, features)`."""
        embedding: Tensor = self.hidden(self.pool(self.maps(x)).flatten(1))
        return embedding

    def forward(self, x: Tensor) -> Tensor:
        """Return logits: `(N, in_channels, ...)` -> `(N, out_channels)`."""
        logits: Tensor = self.head(self.encode(x))
        return logits


def vgg11(
    *,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    stem: Stem = "large",
    width: int = 64,
    dropout: float = 0.5,
) -> VGG:
    """Build configuration A: 132,868,840 parameters for 2D, 3 channels, 1000 classes."""
    return VGG(
        (1, 1, 2, 2, 2),
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        out_channels=out_channels,
        stem=stem,
        width=width,
        dropout=dropout,
    )


def vgg16(
    *,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    stem: Stem = "large",
    width: int = 64,
    dropout: float = 0.5,
) -> VGG:
    """Build configuration D: 138,365,992 parameters for 2D, 3 channels, 1000 classes."""
    return VGG(
        (2, 2, 3, 3, 3),
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        out_channels=out_channels,
        stem=stem,
        width=width,
        dropout=dropout,
    )
