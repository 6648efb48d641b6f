# SPDX-License-Identifier: Apache-2.0
"""Embeddings of images by a frozen, pretrained encoder: computed once, kept with the run's cache.

Of a volume that the plan shows whole, the encoder sees nine pictures: along each axis the mean, the
maximum and the middle slice.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vesalius.errors import UsageError
from vesalius.files import write_atomically
from vesalius.networks import build
from vesalius.networks.efficientnet_lite import EfficientNetLite
from vesalius.networks.external import load_encoder
from vesalius.networks.fusion import fused
from vesalius.networks.pretrained import INPUT_SCALE, load_pretrained
from vesalius.tasks.classify.batch import Image
from vesalius.tasks.classify.heads import Embedded
from vesalius.tasks.classify.model import resize
from vesalius.tasks.classify.store import Store
from vesalius.types import Json, Progress

_VIEWS_AT_ONCE = 64
_TRIED, _LONG_ENOUGH = 4, 1.0  # images at a time, and seconds, to tell how fast it is
FILE = "file"  # an encoder of the user's, kept in the run's folder


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
        self._fast: Any = None

    def forward(self, views: Tensor) -> Tensor:
        """Return `(M, features)` of views `(M, C, ...)`."""
        count = len(views)
        if self.volumes:
            views = pictures(views)
        if self._fast is None:  # after the weights were loaded
            self._fast = self.encoder if self.file else fused(self.encoder)
        found = self.encode_once(views, self._fast)
        if self.mirror:
            found = (found + self.encode_once(views.flip(2), self._fast)) / 2
        return found.reshape(count, -1)

    def encode_once(self, views: Tensor, encoder: Any) -> Tensor:
        """Return `(M, features)` of pictures as they are, by a form of the encoder."""
        sized = resize(views, self.size)
        if self.file:
            return torch.as_tensor(encoder.encode(sized))
        near = sized.to(memory_format=torch.channels_last) * INPUT_SCALE
        return torch.as_tensor(encoder.levels(near))

    def image(self, image: Image) -> Tensor:
        """Return the embedding `(features,)` of one image: the mean of its views'."""
        return self.images([image])[0]

    def images(self, images: Sequence[Image]) -> Tensor:
        """Return `(images, features)`, some views at a time."""
        views = np.concatenate([image.views for image in images])
        at_once = max(1, _VIEWS_AT_ONCE // (9 if self.volumes else 1))
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


def embed_store(
    path: Path, encoder: FrozenEncoder, store: Store, progress: Progress | None
) -> dict[str, Tensor]:
    """Return image key -> `(features,)`; kept at `path`, so that a resumed run reads them."""
    keys = sorted(store.places)
    if path.exists():
        table = np.load(path)
    else:
        table = np.zeros((len(keys), encoder.features), np.float32)
        for start in range(0, len(keys), _VIEWS_AT_ONCE):
            part = keys[start : start + _VIEWS_AT_ONCE]
            table[start : start + len(part)] = encoder.images([store.image(k) for k in part])
            if progress is not None:
                progress("embedding images", start + len(part), len(keys))
        write_atomically(path, lambda stream: np.save(stream, table))
    return dict(zip(keys, torch.from_numpy(table), strict=True))


def seconds_to_embed(path: Path, encoder: FrozenEncoder, store: Store) -> float:
    """Return how long `embed_store` takes, about, from a few images; 0 where it was done before."""
    if path.exists():
        return 0.0
    keys = sorted(store.places)[:_VIEWS_AT_ONCE]
    encoder.image(store.image(keys[0]))  # the first call is slower
    count, begun = 0, time.perf_counter()
    for start in range(0, len(keys), _TRIED):
        part = [store.image(key) for key in keys[start : start + _TRIED]]
        encoder.images(part)
        count += sum(len(image.views) for image in part)
        if time.perf_counter() - begun > _LONG_ENOUGH:
            break
    return (time.perf_counter() - begun) / count * len(store.array)


def embedded(cases: Sequence[Sequence[tuple[Tensor, tuple[int, ...]]]]) -> Embedded:
    """Return cases from the embedding and the facts of each image."""
    flat = [image for case in cases for image in case]
    return Embedded(
        torch.stack([vector for vector, _ in flat]),
        torch.tensor([facts for _, facts in flat]),
        tuple(len(case) for case in cases),
    )
