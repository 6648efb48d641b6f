# SPDX-License-Identifier: Apache-2.0
"""A frozen, pretrained encoder: what the views of an image look like, as numbers.

Of a volume that the plan shows whole, the encoder sees nine pictures: along each axis the mean, the
maximum and the middle slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vesalius.errors import UsageError
from vesalius.networks import build
from vesalius.networks.efficientnet_lite import EfficientNetLite
from vesalius.networks.external import load_encoder
from vesalius.networks.fusion import fused
from vesalius.networks.pretrained import INPUT_SCALE, load_pretrained
from vesalius.tasks.views import resize
from vesalius.types import Array, Json

VIEWS_AT_ONCE = 64
FILE = "file"  # an encoder of the user's, kept in the run's folder


class Viewed(Protocol):
    """An image that has been prepared."""

    @property
    def views(self) -> Array:
        """Its views, `(n, C, ...)`."""


class FrozenEncoder(nn.Module):
    """A pretrained encoder that is never trained.

    `features` is the number of numbers per image.
    """

    encoder: Any  # a network, or what an ONNX file holds

    def __init__(self, spec: Json, folder: Path, *, pretrained: bool = True) -> None:
        """Build it from the plan's `frozen`: `encoder`, `size`, `channels`, `volumes`, `mirror`.

        Args:
            spec: of the plan.
            folder: the run's, where a file of the user's lies.
            pretrained: load the weights that came with a package; else they are random, for a
                run's own to be loaded.
        """
        super().__init__()
        self.file = spec["encoder"] == FILE
        if self.file:
            self.encoder = load_encoder(folder / spec["file"])
            width = int(self.encoder.features)
        else:
            network = build(
                spec["encoder"], spatial_dims=2, in_channels=spec["channels"], out_channels=1
            )
            if not isinstance(network, EfficientNetLite):
                raise UsageError(f"no frozen encoder is known as '{spec['encoder']}'")
            if pretrained:
                load_pretrained(network, spec["encoder"], in_channels=spec["channels"])
            self.encoder, width = network, network.level_features
        self.size, self.volumes = int(spec["size"]), bool(spec["volumes"])
        self.mirror = bool(spec["mirror"])
        pictures = 9 if self.volumes else 1
        self.features = width * pictures
        self.eval().requires_grad_(False)
        self._fast: list[Any] = []  # in a list: no part of the weights

    @staticmethod
    def width_of(spec: Json) -> int:
        """Return how many numbers the pretrained encoder of a plan gives per view."""
        network = build(
            spec["encoder"], spatial_dims=2, in_channels=spec["channels"], out_channels=1
        )
        return int(network.level_features)  # type: ignore[arg-type]

    def forward(self, views: Tensor) -> Tensor:
        """Return `(M, features)` of views `(M, C, ...)`."""
        count = len(views)
        if self.volumes:
            views = pictures(views)
        if not self._fast:  # after the weights were loaded
            self._fast.append(self.encoder if self.file else fused(self.encoder))
        found = self.encode_once(views, self._fast[0])
        if self.mirror:
            found = (found + self.encode_once(views.flip(2), self._fast[0])) / 2
        return found.reshape(count, -1)

    def encode_once(self, views: Tensor, encoder: Any) -> Tensor:
        """Return `(M, features)` of pictures as they are, by a form of the encoder."""
        sized = resize(views, self.size)
        if self.file:
            return torch.as_tensor(encoder.encode(sized))
        near = sized.to(memory_format=torch.channels_last) * INPUT_SCALE
        return torch.as_tensor(encoder.levels(near))

    def maps(self, views: Tensor) -> list[Tensor]:
        """Return the maps whose means `forward` gives, `(M, channels, ...)` each, not mirrored.

        Raises:
            UsageError: an encoder of the user's, or one that sees volumes as pictures.
        """
        if self.file or self.volumes:
            raise UsageError(
                "maps of similarity are drawn for the pretrained encoder on slices; this one is "
                f"{'a file of yours' if self.file else 'shown whole volumes'}"
            )
        with torch.inference_mode():
            near = resize(views, self.size).to(memory_format=torch.channels_last) * INPUT_SCALE
            found: list[Tensor] = self.encoder.level_maps(near)
        return found

    def image(self, image: Viewed) -> Tensor:
        """Return the embedding `(features,)` of one image: the mean of its views'."""
        return self.images([image])[0]

    def images(self, images: Sequence[Viewed]) -> Tensor:
        """Return `(images, features)`, some views at a time."""
        views = np.concatenate([image.views for image in images])
        at_once = max(1, VIEWS_AT_ONCE // (9 if self.volumes else 1))
        with torch.inference_mode():
            parts = [
                self(torch.from_numpy(views[start : start + at_once].astype(np.float32)))
                for start in range(0, len(views), at_once)
            ]
        found = torch.cat(parts)
        return torch.stack(
            [part.mean(0) for part in torch.split(found, [len(i.views) for i in images])]
        )


def pictures(volumes: Tensor) -> Tensor:
    """Return `(M * 9, C, n, n)` pictures of cubes `(M, C, n, n, n)`."""
    found = []
    for axis in (2, 3, 4):
        middle = volumes.shape[axis] // 2
        flat = (volumes.mean(axis), volumes.amax(axis), volumes.select(axis, middle))
        side = max(volumes.shape[2:])
        found += [
            functional.interpolate(f, (side, side), mode="bilinear", align_corners=False)
            for f in flat
        ]
    stacked = torch.stack(found, dim=1)  # (M, 9, C, n, n)
    return stacked.flatten(0, 1)
