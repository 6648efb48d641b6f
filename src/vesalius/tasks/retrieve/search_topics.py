# SPDX-License-Identifier: Apache-2.0
"""What texts are about, learned from an archive's own words: other words for the same thing match.

Latent semantic analysis: Deerwester, Dumais, Furnas, Landauer, Harshman, "Indexing by latent
semantic analysis", Journal of the American Society for Information Science 41(6):391-407, 1990. It
needs no model from elsewhere; a history of "hematuria" finds kidneys because the archive's cases
say so. Few dimensions, and terms that several texts bear: it tells regions and kinds, and BM25
beside it the exact words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from zipfile import BadZipFile

import numpy as np

from vesalius.errors import DataError
from vesalius.files import write_atomically
from vesalius.store.words import terms
from vesalius.types import Array

LEAST = 50  # different texts that are needed
MOST = 20_000  # texts that are looked at
_DIMENSIONS = 24
_REMEMBERED = 100_000
_BORNE = 2  # texts that a term must be in: what one patient's text alone says is not kept


@dataclass(frozen=True, slots=True)
class Topics:
    """A map from texts to what they are about.

    Attributes:
        vocabulary: term -> its row of `basis`.
        weights: `(terms,)` inverse document frequencies.
        basis: `(terms, d)`.
    """

    vocabulary: dict[str, int]
    weights: Array
    basis: Array
    _met: dict[str, Array] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def fit(cls, texts: Iterable[str]) -> Self | None:
        """Return the map learned from texts, each counted once; None where they are too few."""
        from scipy.sparse.linalg import svds

        counted = [Counter(terms(text)) for text in sorted(set(texts) - {""})[:MOST]]
        counted = [one for one in counted if one]
        borne = Counter(term for one in counted for term in one)
        kept = sorted(term for term, count in borne.items() if count >= _BORNE)
        if len(counted) < LEAST or len(kept) < LEAST:
            return None
        frequency = np.array([borne[term] for term in kept], np.float64)
        weights = np.log((1 + len(counted)) / (1 + frequency)) + 1
        vocabulary = {term: place for place, term in enumerate(kept)}
        table = _table(counted, vocabulary, weights)
        start = np.ones(min(table.shape))  # so that the same texts give the same map
        _, _, basis = svds(table, k=min(_DIMENSIONS, min(table.shape) - 1), v0=start)
        return cls(vocabulary, weights.astype(np.float32), basis.T.astype(np.float32))

    def vectors(self, texts: Sequence[str]) -> Array:
        """Return `(n, d)` float32 of length one; zeros for a text of unknown terms alone.

        Texts that were met before are remembered, up to `_REMEMBERED` of them.
        """
        new = [text for text in dict.fromkeys(texts) if text not in self._met]
        if len(self._met) + len(new) > _REMEMBERED:
            self._met.clear()
            new = list(dict.fromkeys(texts))
        counted = [Counter(terms(text)) for text in new]
        found = _table(counted, self.vocabulary, self.weights) @ self.basis
        length = np.linalg.norm(found, axis=1, keepdims=True)
        unit = (found / np.where(length > 0, length, 1)).astype(np.float32)
        self._met.update(zip(new, unit, strict=True))
        empty = np.empty((0, self.basis.shape[1]), np.float32)
        return np.concatenate([empty, *(self._met[text][None] for text in texts)])

    def save(self, path: Path) -> None:
        """Write it, durably. It is patient data, as the words are."""
        names = np.array(list(self.vocabulary))
        write_atomically(
            path,
            lambda stream: np.savez(
                stream, vocabulary=names, weights=self.weights, basis=self.basis
            ),
        )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return what `save` wrote.

        Raises:
            DataError: it is damaged.
        """
        try:
            with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as held:
                names = held["vocabulary"].tolist()
                return cls(
                    {str(n): place for place, n in enumerate(names)},
                    held["weights"],
                    held["basis"],
                )
        except (ValueError, KeyError, OSError, BadZipFile) as error:
            raise DataError(
                f"{path} is damaged; remove it, and `vesalius index` makes it anew"
            ) from error


def _table(counted: Sequence[Counter[str]], vocabulary: dict[str, int], weights: Array) -> Array:
    """Return sparse `(texts, terms)`: damped counts times weights, each text of length one."""
    from scipy.sparse import csr_array

    rows, columns, values = [], [], []
    for row, one in enumerate(counted):
        known = [(vocabulary[t], count) for t, count in one.items() if t in vocabulary]
        damped = [(1 + np.log(count)) * weights[place] for place, count in known]
        length = float(np.linalg.norm(damped)) or 1.0
        rows += [row] * len(known)
        columns += [place for place, _ in known]
        values += [value / length for value in damped]
    shape = (len(counted), len(vocabulary))
    table: Array = csr_array((np.array(values, np.float64), (rows, columns)), shape=shape)
    return table
