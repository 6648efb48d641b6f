# SPDX-License-Identifier: Apache-2.0
"""The image normalizer: a shallow residual network in front of a task network.

y = z + g(z), where g has two hidden layers of 16 filters of size 3 and the activation
exp(-x^2 / s^2) with a learned width s per filter. Karani et al.: Test-time adaptable neural
networks for robust medical image segmentation, Medical Image Analysis 68:101907, 2021.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_CONV: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}


class ImageNormalizer(nn.Module):
    """Karani's residual network on each channel alone: 2 x 16 filters of size 3, RBF activation.

    The last convolution starts at zero: the network starts as the identity.
    """

    def __init__(self, *, spatial_dims: int, width: int = 16) -> None:
        super().__init__()
        conv = _CONV[spatial_dims]
        last = conv(width, 1, 3, padding=1)
        self.layers = nn.Sequential(
            conv(1, width, 3, padding=1),
            RadialBasis(width, spatial_dims=spatial_dims),
            conv(width, width, 3, padding=1),
            RadialBasis(width, spatial_dims=spatial_dims),
            last,
        )
        for parameter in last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, z: Tensor) -> Tensor:
        """Return `z` (N, C, i, j[, k]) plus a correction of the same shape."""
        alone = z.flatten(0, 1)[:, None]  # (N * C, 1, i, j[, k])
        correction: Tensor = self.layers(alone)
        return z + correction.reshape(z.shape)


class RadialBasis(nn.Module):
    """exp(-x^2 / s^2), one learned width s a channel."""

    def __init__(self, channels: int, *, spatial_dims: int) -> None:
        super().__init__()
        self.width = nn.Parameter(torch.ones(channels, *[1] * spatial_dims))

    def forward(self, x: Tensor) -> Tensor:
        """Return the bounded response, same shape."""
        return torch.exp(-((x / self.width) ** 2))
