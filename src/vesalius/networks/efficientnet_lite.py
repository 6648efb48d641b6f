# SPDX-License-Identifier: Apache-2.0
"""EfficientNet-Lite0 for images and volumes: inverted residual blocks, no squeeze, ReLU6.

Tan, Le: EfficientNet, ICML 2019; the Lite variant (TensorFlow authors, 2020) leaves out what
quantization and phones do badly: squeeze-and-excitation and swish. Padding is TensorFlow's
"same": as many outputs as `ceil(input / stride)`, the odd voxel of padding at the far end.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from vesalius.networks.layers import BatchNorm, Conv, Dropped, Stem, initialize_by_fan_out

# repeats, kernel, stride, expansion, channels (for a first layer of 32)
BLOCKS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
FEATURES = 1280
_LEVELS = (4, 10, 15)  # blocks before the resolution falls, and the last one
_EPSILON, _MOMENTUM = 1e-3, 0.01
# The stem's stride and that of the first downsampling block.
_STRIDES = {"small": (1, 1), "medium": (2, 1), "large": (2, 2)}


class SamePad(nn.Module):
    """Zeros at both ends so that a convolution gives `ceil(input / stride)` outputs."""

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """Pad all spatial axes of `(N, C, ...)`."""
        pads: list[int] = []
        for size in reversed(x.shape[2:]):
            outputs = -(-size // self.stride)
            total = max((outputs - 1) * self.stride + self.kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return functional.pad(x, pads) if any(pads) else x


class InvertedResidual(nn.Module):
    """Widen by a 1-kernel, filter each channel alone, narrow again; a shortcut where shapes fit."""

    def __init__(
        self, dims: int, inputs: int, outputs: int, kernel: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        wide = inputs * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers += [Conv[dims](inputs, wide, 1, bias=False), _norm(dims, wide), nn.ReLU6(True)]
        layers += [
            SamePad(kernel, stride),
            Conv[dims](wide, wide, kernel, stride, groups=wide, bias=False),
            _norm(dims, wide),
            nn.ReLU6(True),
            Conv[dims](wide, outputs, 1, bias=False),
            _norm(dims, outputs),
        ]
        self.branch = nn.Sequential(*layers)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Map `(N, inputs, ...)` to `(N, outputs, ... / stride)`."""
        out: Tensor = self.branch(x)
        return x + out if self.shortcut else out


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite over `(N, in_channels, ...)` with 2 or 3 spatial axes.

    `features` is the number of channels that `encode` returns per image.
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
        first, second = _STRIDES[stem]
        self.stem = nn.Sequential(
            SamePad(3, first),
            Conv[dims](in_channels, width, 3, first, bias=False),
            _norm(dims, width),
            nn.ReLU6(True),
        )
        channels = width
        fall = first  # of the resolution, so far
        blocks: list[nn.Module] = []
        widths: list[int] = []
        falls: list[int] = []
        for number, (repeats, kernel, stride, expansion, outputs) in enumerate(BLOCKS):
            wide = max(8, outputs * width // 32)
            if number == 1:
                stride = second
            for index in range(repeats):
                step = 1 if index else stride
                blocks.append(InvertedResidual(dims, channels, wide, kernel, step, expansion))
                channels = wide
                fall *= step
                widths.append(wide)
                falls.append(fall)
        self.blocks = nn.Sequential(*blocks)
        self._widths = [widths[number] for number in _LEVELS]
        self._ends = [n for n, fall in enumerate(falls) if fall not in falls[n + 1 :]]
        self.pyramid_widths = tuple(widths[number] for number in self._ends)
        self.pyramid_strides = tuple(falls[number] for number in self._ends)
        self.features = FEATURES * width // 32
        self.last: nn.Module = Dropped()
        self.head: nn.Module = Dropped()
        if out_channels:
            self.last = nn.Sequential(
                Conv[dims](channels, self.features, 1, bias=False),
                _norm(dims, self.features),
                nn.ReLU6(True),
            )
            self.head = nn.Linear(self.features, out_channels)
        initialize_by_fan_out(self)

    def maps(self, x: Tensor) -> Tensor:
        """Return the last maps: `(N, in_channels, ...)` -> `(N, features, ... / 32)`."""
        maps: Tensor = self.last(self.blocks(self.stem(x)))
        return maps

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """Return the last maps of each resolution, finest first (see `Encoder`)."""
        found: list[Tensor] = []
        x = self.stem(x)
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self._ends:
                found.append(x)
        return found

    def encode(self, x: Tensor) -> Tensor:
        """Return one embedding per image: `(N, in_channels, ...)` -> `(N, features)`."""
        return self.maps(x).flatten(2).mean(2)

    @property
    def level_features(self) -> int:
        """Return how many numbers `levels` gives per image."""
        return sum(self._widths) + self.features

    def levels(self, x: Tensor) -> Tensor:
        """Return means of maps from several depths, and `encode`'s: `(N, level_features)`.

        The depths are the last maps at 1/8, 1/16 and 1/32 of the input (stem `large`): texture
        that the last layer, made for photographs, no longer tells apart.
        """
        return torch.cat([maps.flatten(2).mean(2) for maps in self.level_maps(x)], dim=1)

    def level_maps(self, x: Tensor) -> list[Tensor]:
        """Return the maps whose means `levels` gives, finest first: `(N, channels, ...)` each."""
        found: list[Tensor] = []
        x = self.stem(x)
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in _LEVELS:
                found.append(x)
        return [*found, self.last(x)]

    def forward(self, x: Tensor) -> Tensor:
        """Return logits: `(N, in_channels, ...)` -> `(N, out_channels)`."""
        logits: Tensor = self.head(self.encode(x))
        return logits


def efficientnet_lite0(
    *, spatial_dims: int, in_channels: int, out_channels: int, stem: Stem = "large", width: int = 32
) -> EfficientNetLite:
    """Build EfficientNet-Lite0: 4,652,008 parameters for 2D, 3 channels, 1000 classes."""
    return EfficientNetLite(
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        out_channels=out_channels,
        stem=stem,
        width=width,
    )


def _norm(dims: int, channels: int) -> nn.Module:
    return BatchNorm[dims](channels, eps=_EPSILON, momentum=_MOMENTUM)
