# SPDX-License-Identifier: Apache-2.0
"""What a search is measured against: raw pixels, and words alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch
from torch.nn import functional

from vesalius.store import bm25
from vesalius.store.words import terms
from vesalius.tasks.retrieve.judge import unit
from vesalius.types import Array

SIDE = 32


def small_pixels(views: Sequence[Array]) -> Array:
    """Return `(n, 1024)` of length one: 32 x 32 gray pixels, the mean over views, centered.

    Args:
        views: `(views, C, size, size)` of each image.
    """
    rows = [np.empty((0, SIDE * SIDE), np.float32)]
    for one in views:
        gray = torch.from_numpy(one.astype(np.float32)).mean((0, 1))[None, None]
        small = functional.interpolate(gray, (SIDE, SIDE), mode="bilinear", antialias=True)
        rows.append((small - small.mean()).reshape(1, -1).numpy())
    return unit(np.concatenate(rows))


def bm25_scores(queries: Sequence[str], documents: Sequence[str]) -> Array:
    """Return `(queries, documents)` Okapi BM25; 0 where no word is shared."""
    held = bm25.postings(pa.array([" ".join(terms(text)) for text in documents], pa.string()))
    mean = float(held.lengths.mean()) if len(documents) else 0.0
    table = np.zeros((len(queries), len(documents)))
    for row, text in enumerate(queries):
        for term in set(terms(text)):
            places, counts = held.of(term)
            worth = bm25.idf(len(documents), len(places))
            table[row, places] += worth * bm25.weights(counts, held.lengths[places], mean)
    return table
