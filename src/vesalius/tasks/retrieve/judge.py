# SPDX-License-Identifier: Apache-2.0
"""How well like is found for like: scores of vectors against what images share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vesalius.metrics.retrieval import Rankings, per_query, rank
from vesalius.types import Array

NEAREST = 5  # of images to an image
WORDED = 10  # of images to words


def unit(vectors: Array) -> Array:
    """Return rows of length one; those of zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0))


def by_image(
    vectors: Array, queries: Array, patients: Array, alike: Array, *, k: int = NEAREST
) -> Rankings:
    """Return the nearest images to each query among all others' images.

    Args:
        vectors: `(n, d)` of length one.
        queries: places of the queries.
        patients: `(n,)` codes; a query's own do not count.
        alike: `(queries, n)`, what is relevant.
        k: ranks.
    """
    own = patients[queries][:, None] == patients[None]
    return rank(vectors[queries] @ vectors.T, alike, excluded=own, k=k)


def shared(codes: Array, queries: Array) -> Array:
    """Return `(queries, n)`: which images bear the query's code; -1 is shared with nobody."""
    return np.asarray((codes[queries][:, None] == codes[None]) & (codes[queries][:, None] >= 0))


def by_words(
    images: Array, texts: Array, captions: Sequence[str], asked: Sequence[str], *, k: int = WORDED
) -> Rankings:
    """Return the nearest images to each text; relevant are those that bear it.

    Args:
        images: `(n, d)` of length one.
        texts: `(m, d)` of `asked`.
        captions: `(n,)`, what each image bears.
        asked: `(m,)` distinct texts.
        k: ranks.
    """
    bears = np.array([[caption == text for caption in captions] for text in asked])
    return rank(texts @ images.T, bears.reshape(len(asked), len(images)), k=k)


def mean(rankings: Rankings, column: int) -> float:
    """Return the mean of a column of `metrics.retrieval.names_at` where it is defined, else 0."""
    values = per_query(rankings)[:, column]
    return float(np.nanmean(values)) if np.isfinite(values).any() else 0.0
