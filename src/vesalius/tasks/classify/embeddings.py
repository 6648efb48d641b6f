# SPDX-License-Identifier: Apache-2.0
"""Embeddings by a frozen, pretrained encoder: computed once, kept with the run's cache."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vesalius.files import write_atomically
from vesalius.tasks.classify.heads import Embedded
from vesalius.tasks.classify.store import Store
from vesalius.tasks.frozen import VIEWS_AT_ONCE, FrozenEncoder
from vesalius.types import Progress

_TRIED, _LONG_ENOUGH = 4, 1.0  # images at a time, and seconds, to tell how fast it is


def embed_store(
    path: Path, encoder: FrozenEncoder, store: Store, progress: Progress | None
) -> dict[str, Tensor]:
    """Return image key -> `(features,)`; kept at `path`, so that a resumed run reads them."""
    keys = sorted(store.places)
    if path.exists():
        table = np.load(path)
    else:
        table = np.zeros((len(keys), encoder.features), np.float32)
        for start in range(0, len(keys), VIEWS_AT_ONCE):
            part = keys[start : start + VIEWS_AT_ONCE]
            table[start : start + len(part)] = encoder.images([store.image(k) for k in part])
            if progress is not None:
                progress("embedding images", start + len(part), len(keys))
        write_atomically(path, lambda stream: np.save(stream, table))
    return dict(zip(keys, torch.from_numpy(table), strict=True))


def seconds_to_embed(path: Path, encoder: FrozenEncoder, store: Store) -> float:
    """Return how long `embed_store` takes, about, from a few images; 0 where it was done before."""
    if path.exists():
        return 0.0
    keys = sorted(store.places)[:VIEWS_AT_ONCE]
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
