# SPDX-License-Identifier: Apache-2.0
"""An archive in memory, for tests of the search alone: brute force, and words by plain counting."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from vesalius.store.protocol import Condition, Entry, Filter, Near, Worded


class MemoryArchive:
    """Of its filters' conditions it knows `case IN (…)` and nothing else."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.rows = {entry.key: entry for entry in entries}
        self.identity: dict[str, object] = {}
        self.columns = {"modality": "text", "phash": "integer"}
        self.version = 1

    def _given(self, given: Filter) -> list[Entry]:
        cases = re.search(r"case IN \((.*)\)$", given.where)
        assert cases or not given.where
        among = None if cases is None else set(re.findall(r"'([^']*)'", cases[1]))
        return [
            entry
            for _, entry in sorted(self.rows.items())
            if entry.patient not in given.not_patients
            and entry.case not in given.not_cases
            and (among is None or entry.case in among)
        ]

    def nearest(
        self,
        vectors: np.ndarray,
        k: int,
        given: Filter = Filter(),  # noqa: B008
    ) -> list[Near]:
        held = [entry for entry in self._given(given) if entry.vector is not None]
        found = []
        for vector in vectors:
            cosines = np.array([vector @ entry.vector for entry in held], np.float32)
            order = np.argsort(-cosines, kind="stable")[:k]
            found.append(
                Near(
                    tuple(held[n].key for n in order),
                    tuple(held[n].case for n in order),
                    cosines[order],
                )
            )
        return found

    def worded(self, words: str, k: int, given: Filter = Filter()) -> list[Worded]:  # noqa: B008
        asked = set(words.lower().split())
        found = []
        for entry in self._given(given):
            terms = sorted(asked & set(entry.words.lower().split()))
            if terms:
                found.append(Worded(entry.key, entry.case, float(len(terms)), tuple(terms)))
        return sorted(found, key=lambda one: (-one.score, one.key))[:k]

    def vectors(self, keys: Sequence[str]) -> np.ndarray:
        return np.stack([self.rows[key].vector for key in keys])

    def of_cases(self, cases: Sequence[str]) -> dict[str, list[str]]:
        return {
            case: sorted(key for key, entry in self.rows.items() if entry.case == case)
            for case in cases
        }

    def entries(self, keys: Sequence[str]) -> list[Entry]:
        return [self.rows[key] for key in keys]

    def held(self) -> dict[str, str]:
        return {key: entry.patient for key, entry in self.rows.items()}

    def upsert(self, entries: Iterable[Entry]) -> int:
        self.rows.update({entry.key: entry for entry in entries})
        self.version += 1
        return self.version

    def delete_keys(self, keys: Sequence[str]) -> int:
        for key in keys:
            del self.rows[key]
        self.version += 1
        return self.version

    def erase_patients(self, patients: Sequence[str]) -> int:
        gone = [key for key, entry in self.rows.items() if entry.patient in patients]
        return self.delete_keys(gone)

    def compact(self) -> int:
        return self.version

    def condition(self) -> Condition:
        return Condition(len(self.rows), 0, 0, 1, True, ())


def random_archive(
    rng: np.random.Generator, cases: int, *, dimension: int = 8, most: int = 4
) -> MemoryArchive:
    """Return an archive of random unit vectors, 1 to `most` images a case, a case a patient."""
    entries = []
    for case in range(cases):
        for image in range(int(rng.integers(1, most + 1))):
            vector = rng.normal(size=dimension)
            entries.append(
                Entry(
                    key=f"k{case:03}-{image}",
                    case=f"c{case:03}",
                    patient=f"p{case:03}",
                    vector=(vector / np.linalg.norm(vector)).astype(np.float32),
                )
            )
    return MemoryArchive(entries)
