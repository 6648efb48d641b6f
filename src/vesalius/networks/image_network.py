# SPDX-License-Identifier: Apache-2.0
"""What every network that describes an image offers, whatever its architecture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor, nn


@runtime_checkable
class ImageNetwork(Protocol):
    """A network from images to embeddings, and by one linear layer from embeddings to logits.

    The contract, for N images `(C, i, j)` or volumes `(C, i, j, k)`:

    - `maps(x)` returns the last maps that still have places, `(N, channels, ...)`: what is drawn
      as an overlay stands on them.
    - `encode(x)` returns `(N, features)`, and depends on `x` through `maps(x)` alone.
    - `forward(x)` is exactly `head(encode(x))`, shape `(N, out_channels)`.
    - `head` is the only layer that knows the labels: it can be replaced for others.
    - In evaluation mode an image's result does not depend on the rest of its batch.
    - One definition serves 2 and 3 spatial axes. Its function takes the keywords `spatial_dims`,
      `in_channels`, `out_channels`, `stem` (`layers.Stem`) and `width`: the number of channels of
      the first layer, to which the others are in proportion.
    - Any size of at least 8 voxels an axis is taken with the stem "small", of at least 32 with
      "large".
    """

    features: int
    if TYPE_CHECKING:  # submodules are found by `__getattr__`, which `isinstance` does not call
        head: nn.Linear

    def maps(self, x: Tensor) -> Tensor:
        """Return the last maps: `(N, in_channels, ...)` -> `(N, channels, ...)`."""
        ...

    def encode(self, x: Tensor) -> Tensor:
        """Return one embedding per image: `(N, in_channels, ...)` -> `(N, features)`."""
        ...

    def forward(self, x: Tensor) -> Tensor:
        """Return logits: `(N, in_channels, ...)` -> `(N, out_channels)`."""
        ...


@runtime_checkable
class Encoder(Protocol):
    """An image network that a segmentation network can stand on: `registry.ENCODERS`.

    The contract, beside that of `ImageNetwork`:

    - `pyramid(x)` returns the last maps of each resolution, finest first; neighbors differ by 2
      along every axis.
    - `pyramid_widths` and `pyramid_strides` are the channels of each, and the voxels of the input
      that one of theirs stands for, along every axis.
    - Built for no class (`out_channels=0`) it lacks the layers that `pyramid` does not use: only
      that method answers, and the state of a whole classifier loads strictly.
    """

    pyramid_widths: tuple[int, ...]
    pyramid_strides: tuple[int, ...]

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """Return maps: `(N, in_channels, ...)` -> `(N, width, ... / stride)` of each resolution."""
        ...
