# SPDX-License-Identifier: Apache-2.0
"""A plain convolutional network: convolution, pooling, fully connected; small and fast.

The line of LeCun, Bottou, Bengio, Haffner: Gradient-Based Learning Applied to Document
Recognition, Proceedings of the IEEE 1998 (LeNet-5), with what came later: 3-wide kernels, ReLU,
and batch normalization (Ioffe, Szegedy, ICML 2015).
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from vesalius.networks.layers import (
    AdaptiveAvgPool,
    BatchNorm,
    Conv,
    FittingMaxPool,
    Stem,
    grid,
    initialize_plain,
)

_STEMS = {"small": (3, 1), "medium": (3, 2), "large": (7, 4)}  # kernel and stride of the first
_CELLS = 3


class PlainCNN(nn.Module):
    """Three convolutions, each with pooling by 2, and one fully connected layer.

    `features` is the width of the fully connected layer, which `encode` returns per image.
    """

    def __init__(
        self,
        *,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        stem: Stem = "large",
        width: int = 32,
    ) -> None:
        super().__init__()
        dims = spatial_dims
        kernel, stride = _STEMS[stem]
        layers: list[nn.Module] = []
        channels = in_channels
        for level, wide in enumerate((width, 2 * width, 4 * width)):
            size, step = (3, 1) if level else (kernel, stride)
            layers += [
                Conv[dims](channels, wide, size, step, size // 2, bias=False),
                BatchNorm[dims](wide),
                nn.ReLU(inplace=True),
                FittingMaxPool(2, 2),
            ]
            channels = wide
        self.convolutions = nn.Sequential(*layers)
        cells = grid(dims, _CELLS)
        self.pool = AdaptiveAvgPool[dims](cells)
        self.features = 4 * width
        self.hidden = nn.Sequential(
            nn.Linear(channels * math.prod(cells), self.features, bias=False),
            nn.BatchNorm1d(self.features),
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
