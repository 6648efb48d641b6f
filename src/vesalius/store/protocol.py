# SPDX-License-Identifier: Apache-2.0
"""What an archive of vectors and words can do, whatever engine keeps it.

An archive holds one entry an image: a vector of length one, words, facts to filter by, and whose
image it is. Entries of one case are found together. Vectors, words and thumbnails are patient data.
`store.conformance` is the suite that every engine passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from vesalius.types import Array, Json

Fact = str | float | int | bool | None  # what a filter can compare


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of an archive.

    Attributes:
        key: of the image, unique in the archive; an entry of the same key takes its place.
        case: what is found as a whole: key of a patient, study, series or image.
        patient: pseudonym, by which own images are left out and a patient is deleted.
        vector: `(d,)` float32 of length one; None for an entry of words alone.
        words: text to be found by.
        facts: column -> value, of the columns that the archive was made with.
        thumbnail: a small PNG or JPEG, empty for none.
    """

    key: str
    case: str
    patient: str
    vector: Array | None
    words: str = ""
    facts: Mapping[str, Fact] = field(default_factory=dict)
    thumbnail: bytes = b""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries may answer.

    Attributes:
        where: an SQL condition on facts, `case`, `patient` and `key`; empty for all entries.
        not_patients: pseudonyms whose entries are left out.
        not_cases: cases that are left out.
    """

    where: str = ""
    not_patients: tuple[str, ...] = ()
    not_cases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Near:
    """Entries near one vector, the nearest first.

    Attributes:
        keys: of the entries.
        cases: of the entries.
        similarities: cosines, float32, falling; equal ones are ordered by key.
    """

    keys: tuple[str, ...]
    cases: tuple[str, ...]
    similarities: Array


@dataclass(frozen=True, slots=True)
class Worded:
    """One entry that words found.

    Attributes:
        key: of the entry.
        case: of the entry.
        score: Okapi BM25, above zero.
        terms: the terms of the query that the entry bears, in the form they were looked up by.
    """

    key: str
    case: str
    score: float
    terms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Condition:
    """How an archive is, for the eye and for alarms.

    Attributes:
        entries: how many it holds.
        unindexed: entries that no index covers yet: found by scanning them, slower with each.
        bytes: on disk, earlier versions included.
        versions: how many can still be opened.
        exact: whether vectors are compared one by one (True) or through an index.
        alarms: sentences, empty when all is well.
    """

    entries: int
    unindexed: int
    bytes: int
    versions: int
    exact: bool
    alarms: tuple[str, ...]


class Archive(Protocol):
    """An opened archive. Several processes may write at once; each call sees what is committed.

    Every method that writes returns the new version once its rows, files and folders are on disk
    (fsync): a killed process or a lost power loses nothing that was returned. A version answers
    `which state answered this query`.
    """

    @property
    def identity(self) -> Json:
        """Who made the vectors: hashes of encoder, normalizer and plan; `{}` of words alone."""

    @property
    def columns(self) -> Mapping[str, str]:
        """Columns of facts -> `text`, `integer`, `float` or `boolean`."""

    @property
    def version(self) -> int:
        """The newest committed version, or the one it was opened at."""

    def upsert(self, entries: Iterable[Entry]) -> int:
        """Add entries, or put them in place of those of the same keys; all of them or none.

        Raises:
            DataError: a vector of another length, not finite or not of length one; an unknown
                column; a fact of another type.
        """

    def delete_keys(self, keys: Sequence[str]) -> int:
        """Delete entries; their bytes leave the disk with the last version that holds them."""

    def erase_patients(self, patients: Sequence[str]) -> int:
        """Delete a patient's entries and every earlier version, index and cache that holds them."""

    def nearest(self, vectors: Array, k: int, given: Filter = Filter()) -> list[Near]:
        """Return up to `k` entries near each of `(n, d)` vectors.

        A filter never makes the answer shorter than what fulfils it.

        Raises:
            UsageError: another length of vectors, or a filter that is not understood, with the
                column that may have been meant.
        """

    def worded(self, words: str, k: int, given: Filter = Filter()) -> list[Worded]:
        """Return up to `k` entries that bear some of the words, the best first."""

    def vectors(self, keys: Sequence[str]) -> Array:
        """Return `(n, d)`, a row of NaN for an entry without a vector.

        Raises:
            DataError: an unknown key.
        """

    def of_cases(self, cases: Sequence[str]) -> dict[str, list[str]]:
        """Return case -> keys of its entries, sorted."""

    def entries(self, keys: Sequence[str]) -> list[Entry]:
        """Return entries in the order of `keys`."""

    def held(self) -> dict[str, str]:
        """Return key -> patient of every entry: what an index run need not do again."""

    def compact(self) -> int:
        """Fold small files and new rows into the indexes, drop versions older than a week."""

    def condition(self) -> Condition:
        """Say how it is."""
