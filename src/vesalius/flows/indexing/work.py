# SPDX-License-Identifier: Apache-2.0
"""What an archive still lacks of a cohort, and the work of bringing it up to date."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, cast

import numpy as np

from vesalius.errors import UsageError
from vesalius.flows.indexing.columns import fact_columns, facts_of, words_of
from vesalius.flows.indexing.pictures import PicturingReader, may_be_shown
from vesalius.store.protocol import Entry
from vesalius.tasks.retrieve.search_keys import (
    EntryKey,
    digits,
    state_digits,
    voxel_digits,
)
from vesalius.types import Json, Progress

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort
    from vesalius.store.protocol import Archive
    from vesalius.tasks.retrieve.embedder import Embedder

CASES = ("patient", "study", "series", "image")
COMMIT = 256  # images: what a crash may cost, and what is held at a time
_NEEDED = (
    "key", "root", "files", "member", "format", "patient", "study", "series", "modality", "kind",
    "spacing", "affine", "calibrated", "content_hash", "file_hash", "findings", "words",
    "description", "body_part",
)  # fmt: skip
_SHOWN, _HIDDEN = "p", "n"  # last character of a state: whether a picture may be kept


@dataclass(slots=True)
class Done:
    """What was done so far.

    Attributes:
        embedded: images that the encoder looked at.
        renewed: images of which words or facts alone had changed.
        removed: entries that are gone.
        failures: key of an image that could not be read -> why.
        seconds: spent on embedding.
    """

    embedded: int = 0
    renewed: int = 0
    removed: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Todo:
    """One image whose entry is missing or out of date.

    Attributes:
        row: of the cohort.
        key: that its entry will have.
        old: key of the entry that it has, or ``.
        fresh: whether its vector must be made; else words or facts alone changed.
    """

    row: Json
    key: EntryKey
    old: str
    fresh: bool


class Work:
    """A cohort, or a part of it, and an archive that is to hold it."""

    def __init__(
        self, archive: Archive, cohort: Cohort, where: str, *, case: str, show_text: bool
    ) -> None:
        self.archive, self.case, self.show_text = archive, case, show_text
        self.cohort = cohort.filter(where) if where else cohort
        self.name = cohort_name(cohort)
        own = fact_columns(cohort)
        self.columns = [name for name in archive.columns if name in own]
        self.left_out = sorted(set(own) - set(archive.columns))
        self.held = archive.held()
        parsed = ((key, EntryKey.parse(key)) for key in self.held)
        mine = [(key, p.row) for key, p in parsed if p is not None and p.cohort == self.name]
        self._of_row = {row: key for key, row in mine}
        # A crash between adding an entry's new state and removing the old one leaves both.
        self._twice = [key for key, row in mine if self._of_row[row] != key]
        self.gone = self._gone(cohort)
        self.done = Done()

    def of_another(self, key: str) -> bool:
        """Return whether an entry is of another cohort."""
        parsed = EntryKey.parse(key)
        return parsed is None or parsed.cohort != self.name

    def count(self) -> tuple[int, int, int]:
        """Return how many images there are, lack a vector, and lack words or facts alone."""
        images = fresh = renewed = 0
        for todo in self._all():
            images += 1
            if todo is not None:
                fresh, renewed = fresh + todo.fresh, renewed + (not todo.fresh)
        return images, fresh, renewed

    def todo(self) -> Iterator[Todo]:
        """Yield what is missing or out of date, by the images' keys."""
        yield from (one for one in self._all() if one is not None)

    def run(self, embedder: Embedder, total: int, progress: Progress | None) -> None:
        """Bring the archive up to date; every `COMMIT` images are on disk before the next begin.

        Args:
            embedder: of the archive.
            total: images to embed, for the progress.
            progress: called as `progress(stage, done, total)`.
        """
        if self.gone:
            self.archive.delete_keys(self.gone)
            self.done.removed += len(self.gone)
        todo = self.todo()
        while part := list(islice(todo, COMMIT)):
            entries = self._renewed([one for one in part if not one.fresh])
            entries += self._embedded([one for one in part if one.fresh], embedder, total, progress)
            if entries:
                self.archive.upsert(entries)
            old = [one.old for one in part if one.old]
            if old:
                self.archive.delete_keys(old)

    def _embedded(
        self, part: Sequence[Todo], embedder: Embedder, total: int, progress: Progress | None
    ) -> list[Entry]:
        """Return entries of the images that can be read, with new vectors."""
        if not part:
            return []
        before, begun = self.done.embedded + len(self.done.failures), time.perf_counter()
        reader = PicturingReader(self.cohort, show_text=self.show_text)

        def told(stage: str, count: int, _: int | None) -> None:
            if progress is not None:
                progress(stage, before + count, total)

        found = embedder.embed(cast("Cohort", reader), [one.row for one in part], told)
        self.done.seconds += time.perf_counter() - begun
        self.done.failures |= found.failures
        entries = []
        for one, vector in zip(part, found.table, strict=True):
            if np.isfinite(vector).all():
                picture = reader.pictures.get(one.key.row, b"")
                entries.append(self._entry(one, vector=vector, thumbnail=picture))
        self.done.embedded += len(entries)
        return entries

    def _renewed(self, part: Sequence[Todo]) -> list[Entry]:
        """Return entries with new words and facts, and the vectors that they had."""
        held = self.archive.entries([one.old for one in part])
        self.done.renewed += len(part)
        return [
            replace(self._entry(one), vector=entry.vector, thumbnail=entry.thumbnail)
            for one, entry in zip(part, held, strict=True)
        ]

    def _entry(self, one: Todo, **content: object) -> Entry:
        row = one.row
        return Entry(
            key=str(one.key),
            case=case_of(row, self.case),
            patient=str(row["patient"]),
            words=words_of(row),
            facts=facts_of(row, self.columns),
            **{"vector": None, **content},  # type: ignore[arg-type]  # of its fields
        )

    def _all(self) -> Iterator[Todo | None]:
        """Yield for each image what is to be done, None for nothing."""
        own = facts_needed(self.cohort, self.columns)
        for row in self.cohort.iter_rows(list(dict.fromkeys((*_NEEDED, *own))), batch_size=COMMIT):
            if (row["kind"] or "image") != "image":
                continue
            key = self._key(row)
            old = self._of_row.get(key.row, "")
            if old == str(key):
                yield None
                continue
            was = EntryKey.parse(old)
            same = (
                was is not None
                and was.voxels == key.voxels
                and was.state[-1:] == key.state[-1:]
                and bool(row["content_hash"] or row["file_hash"])
            )
            yield Todo(row, key, old, not same)

    def _key(self, row: Json) -> EntryKey:
        shown = _SHOWN if may_be_shown(row, show_text=self.show_text) else _HIDDEN
        return EntryKey(
            self.name,
            str(row["key"]),
            voxel_digits(row["content_hash"] or row["file_hash"]),
            state_digits(
                case_of(row, self.case), row["patient"], words_of(row),
                facts_of(row, self.columns),
            ) + shown,
        )  # fmt: skip

    def _gone(self, cohort: Cohort) -> list[str]:
        """Return keys of entries whose image the whole cohort has no more."""
        there = {row["key"] for row in cohort.iter_rows(["key"], batch_size=COMMIT)}
        return [*self._twice, *(key for row, key in self._of_row.items() if row not in there)]


def facts_needed(cohort: Cohort, columns: Sequence[str]) -> list[str]:
    """Return the columns of a cohort that some facts of an archive come from."""
    from vesalius.cohorts.schema import LABEL

    known = set(cohort.columns)
    return [name for fact in columns for name in (fact, LABEL + fact) if name in known]


def case_of(row: Json, level: str) -> str:
    """Return the case that a row belongs to.

    Raises:
        UsageError: an unknown level.
    """
    if level not in CASES:
        raise UsageError(f"case must be one of {', '.join(CASES)}, got '{level}'")
    return str(row["key"] if level == "image" else row[level] or row["key"])


def cohort_name(cohort: Cohort) -> str:
    """Return 8 hex digits that tell a cohort from others and stay when its folder moves."""
    from vesalius.cohorts.pseudonyms import KEY_FILE, load_key

    secret = hashlib.sha256(load_key(cohort.path / KEY_FILE)).digest()
    return digits(secret + "\0".join(sorted(cohort.roots)).encode())
