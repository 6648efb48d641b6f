# SPDX-License-Identifier: Apache-2.0
"""Checks of versions: which state answered, what compaction keeps, what erasure does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from vesalius.errors import DataError, UsageError
from vesalius.store.conformance.engine import (
    DIMENSION,
    Check,
    Engine,
    archive,
    expect,
    refused,
    some,
)
from vesalius.store.protocol import Archive, Filter

_QUERY = np.linspace(-1, 1, DIMENSION)


def versions_answer_as_then(engine: Engine) -> None:
    """Open an earlier version: it answers what it answered."""
    entries = some(60)
    made = archive(engine, entries[:40])
    first, then = made.version, _answers(made)
    second = made.upsert(entries[40:])
    after_second = _answers(made)
    third = made.delete_keys([entries[0].key, entries[1].key])
    fourth = made.upsert([dataclasses.replace(entries[2], words="cavitation")])
    expect(first < second < third < fourth == made.version, "versions rise")
    expect(then != after_second, "the archive has changed")
    for version, wanted in ((first, then), (second, after_second)):
        past = engine.reopen(made, version)
        expect(past.version == version, "the version is the one that was asked")
        expect(_answers(past) == wanted, "it answers as then")
        for write in (
            lambda past=past: past.upsert(entries[:1]),
            lambda past=past: past.delete_keys(["image-0005"]),
            lambda past=past: past.erase_patients(["patient-0001"]),
            lambda past=past: past.compact(),
        ):
            refused(write, UsageError, str(version))
    refused(lambda: engine.reopen(made, fourth + 100), DataError, str(fourth + 100))


def others_see_what_is_committed(engine: Engine) -> None:
    """Each call of another handle answers from what was acknowledged before it."""
    entries = some(30)
    made = archive(engine, entries[:10])
    other = engine.reopen(made, None)
    expect(_answers(other) == _answers(made), "both answer the same")
    writes: tuple[Callable[[], int], ...] = (
        lambda: made.upsert(entries[10:]),
        lambda: other.delete_keys(["image-0003"]),
        lambda: made.upsert([dataclasses.replace(entries[4], words="granuloma")]),
        lambda: other.compact(),
        lambda: made.erase_patients(["patient-0002"]),
        lambda: other.upsert(entries[8:12]),
    )
    for write in writes:
        version = write()
        expect(made.version == other.version == version, "both know the version")
        expect(_answers(other) == _answers(made), "both answer the same")
        expect(_answers(engine.reopen(made, None)) == _answers(made), "and so does a third")


def compaction_changes_no_answer(engine: Engine) -> None:
    """Folding what many small writes left, with deleted rows in it, changes no answer."""
    entries = some(90)
    made = archive(engine)
    for at in range(0, 90, 15):
        made.upsert(entries[at : at + 15])
    made.delete_keys([entry.key for entry in entries[::10]])
    before = _answers(made)
    version = made.compact()
    expect(version == made.version, "the version is told")
    expect(_answers(made) == before, "the same handle answers as before")
    expect(_answers(engine.reopen(made, None)) == before, "another one, too")
    found = made.condition()
    expect(found.entries == 81 and found.unindexed == 0, "all is counted, all is indexed")
    expect(found.bytes > 0 and found.versions > 0 and found.alarms == (), "all is well")
    made.upsert(entries[:1])
    expect(made.condition().entries == 82, "what is new is counted")


def erased_patients_leave_nothing(engine: Engine) -> None:
    """Erase patients: no answer has their entries, no earlier version can be opened."""
    entries = some(60)
    made = archive(engine, entries[:30])
    first = made.version
    made.upsert(entries[30:])
    other = engine.reopen(made, None)
    _answers(other)
    gone = ["patient-0001", "patient-0007", "unknown"]
    version = made.erase_patients(gone)
    left = [entry for entry in entries if entry.patient not in gone]
    expect(made.held() == {e.key: e.patient for e in left}, "others are held, those are not")
    for opened in (made, other, engine.reopen(made, None)):
        expect(opened.version == version, "every handle knows the version")
        expect(_answers(opened) == _answers(archive(engine, left)), "answers are those of others")
        refused(lambda opened=opened: opened.entries([entries[4].key]), DataError)  # type: ignore[misc]
    refused(lambda: engine.reopen(made, first), DataError, str(first))
    expect(made.condition().versions == 1, "no earlier version is left")
    expect(made.upsert(entries[:1]) > version > first, "versions go on rising")


def _answers(made: Archive) -> Any:
    """Return what an archive answers to a set of questions."""
    given = Filter(where="modality = 'MR' or age > 20", not_patients=("patient-0003",))
    near = [
        one
        for filtered in (Filter(), given)
        for one in made.nearest(np.stack([_QUERY, -_QUERY]), 12, filtered)
    ]
    worded = made.worded("effusion mass lobe", 50) + made.worded("no effusion", 50, given)
    return (
        [(one.keys, one.cases, one.similarities.tolist()) for one in near],
        [(hit.key, hit.case, round(hit.score, 9), hit.terms) for hit in worded],
        made.held(),
        made.of_cases(["case-0001", "case-0004"]),
        [
            (entry.key, entry.words, dict(entry.facts))
            for entry in made.entries(sorted(made.held()))
        ],
    )


CHECKS: tuple[Check, ...] = (
    versions_answer_as_then,
    others_see_what_is_committed,
    compaction_changes_no_answer,
    erased_patients_leave_nothing,
)
