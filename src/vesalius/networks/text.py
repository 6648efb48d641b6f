# SPDX-License-Identifier: Apache-2.0
"""Words as numbers, learned from the user's own texts: TF-IDF of words and pairs, condensed.

Weights are `(1 + log count) * log((1 + texts) / (1 + texts with it)) + 1` (Salton & Buckley, 1988),
of length one; they are condensed to the directions that tell most (latent semantic analysis:
Deerwester et al., JASIS 1990). Reproducible, small, and offline.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import svds

from vesalius.types import Array

DIRECTIONS = 256
MOST_TERMS = 20_000
_LEAST_TEXTS = 2  # texts that a term must stand in
_WORD = re.compile(r"[^\W_]+(?:-[^\W_]+)*")
# words that tell nothing of a picture; "no" and "without" do
_EMPTY = frozenset({
    "a", "an", "and", "are", "as", "at", "be", "been", "by", "can", "for", "from", "has", "have",
    "in", "into", "is", "it", "its", "of", "on", "or", "that", "the", "their", "there", "these",
    "this", "to", "was", "were", "which", "while", "with", "within",
})  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class TextFeatures:
    """A fitted vocabulary and its directions.

    Attributes:
        terms: in the order of the columns; pairs of words with a space between.
        rarity: `(terms,)`, the inverse frequency of each.
        directions: `(terms, d)`.
    """

    terms: tuple[str, ...]
    rarity: Array
    directions: Array

    @classmethod
    def fit(cls, texts: Sequence[str], directions: int = DIRECTIONS) -> Self:
        """Learn terms and directions from texts; those alike count once."""
        distinct = sorted({text for text in texts if text.strip()})
        counts: Counter[str] = Counter()
        for text in distinct:
            counts.update(set(terms_of(text)))
        often = [(-count, term) for term, count in counts.items() if count >= _LEAST_TEXTS]
        terms = tuple(sorted(term for _, term in sorted(often)[:MOST_TERMS]))
        frequency = np.array([counts[term] for term in terms], np.float64)
        rarity = np.log((1 + len(distinct)) / (1 + frequency)) + 1
        bare = cls(terms, rarity.astype(np.float32), np.zeros((len(terms), 0), np.float32))
        table = bare._weights(distinct)
        most = min(directions, min(table.shape) - 1)
        if most < 1:
            return bare
        _, strength, found = svds(table.astype(np.float64), most, random_state=0)
        found = found[np.argsort(-strength)]
        signs = np.sign(found[np.arange(most), np.abs(found).argmax(1)])  # the same everywhere
        return cls(terms, bare.rarity, (found * signs[:, None]).T.astype(np.float32))

    def vectors(self, texts: Iterable[str]) -> Array:
        """Return `(n, d)` float32 of length one; a row of zeros where no term is known."""
        found = np.asarray(self._weights(texts) @ self.directions, np.float32)
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        return np.asarray(np.divide(found, lengths, out=np.zeros_like(found), where=lengths > 0))

    def _weights(self, texts: Iterable[str]) -> sparse.csr_array:
        """Return `(n, terms)` TF-IDF of length one."""
        place = {term: column for column, term in enumerate(self.terms)}
        values: list[float] = []
        columns: list[int] = []
        ends = [0]
        for text in texts:
            counts = Counter(term for term in terms_of(text) if term in place)
            weights = [(1 + np.log(n)) * self.rarity[place[term]] for term, n in counts.items()]
            length = float(np.sqrt(np.square(weights).sum())) or 1.0
            values += [weight / length for weight in weights]
            columns += [place[term] for term in counts]
            ends.append(len(columns))
        shape = (len(ends) - 1, len(self.terms))
        return sparse.csr_array((np.asarray(values, np.float32), columns, ends), shape=shape)


def terms_of(text: str) -> list[str]:
    """Return words in lower case, and pairs of neighbors among them."""
    words = [word for word in _WORD.findall(text.lower()) if word not in _EMPTY]
    return words + [f"{a} {b}" for a, b in pairwise(words)]
