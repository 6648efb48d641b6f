# SPDX-License-Identifier: Apache-2.0
"""Checks of writing: what is kept, replaced, refused and deleted."""

from __future__ import annotations

import dataclasses
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from vesalius.errors import DataError, UsageError
from vesalius.store.conformance.engine import (
    COLUMNS,
    DIMENSION,
    IDENTITY,
    Check,
    Engine,
    archive,
    expect,
    refused,
    same,
    some,
    vector_of,
)
from vesalius.store.protocol import Entry


def empty_archive_answers_nothing(engine: Engine) -> None:
    """Ask an archive without entries."""
    made = archive(engine)
    (near,) = made.nearest(np.ones(DIMENSION), 5)
    expect(near.keys == () and len(near.similarities) == 0, "nothing is near")
    expect(made.worded("mass", 5) == [], "no words are found")
    expect(made.held() == {}, "nothing is held")
    expect(made.of_cases(["case"]) == {"case": []}, "an unknown case has no entries")
    expect(made.entries([]) == [], "no entries are asked for")
    expect(made.condition().entries == 0, "nothing is counted")
    expect(made.upsert([]) == made.version, "nothing to write is no version")
    made.compact()


def identity_and_columns_are_kept(engine: Engine) -> None:
    """Who made the vectors is known to whoever opens the archive."""
    again = engine.reopen(archive(engine), None)
    expect(again.identity == IDENTITY, "the identity is kept")
    expect(dict(again.columns) == COLUMNS, "columns are kept")


def entries_come_back_as_they_were(engine: Engine) -> None:
    """Vectors, words, facts, thumbnails, and what is missing of them."""
    wanted = some(40)
    again = engine.reopen(archive(engine, wanted), None)
    keys = [entry.key for entry in reversed(wanted)]
    found = again.entries(keys)
    expect([entry.key for entry in found] == keys, "entries come in the order of the keys")
    for a, b in zip(reversed(wanted), found, strict=True):
        expect(same(a, b), f"{a.key} comes back as it was")
    expect(len(again.entries([keys[0], keys[0]])) == 2, "a key may be asked for twice")
    vectors = again.vectors(keys)
    for entry, vector in zip(reversed(wanted), vectors, strict=True):
        missing = bool(np.isnan(vector).all())
        expect(missing == (entry.vector is None), "NaN stands for no vector, and only for that")
        expect(missing or np.array_equal(vector, vector_of(entry)), "vectors come back bit by bit")
    held = {entry.key: entry.patient for entry in wanted}
    expect(again.held() == held, "what is held, and whose it is")
    of_cases = again.of_cases(["case-0003", "case-0001", "none"])
    expect(
        of_cases
        == {"case-0003": ["image-0006", "image-0007"], "case-0001": ["image-0002", "image-0003"],
            "none": []},
        "entries of cases, sorted",
    )  # fmt: skip
    for ask in (again.entries, again.vectors):
        refused(lambda ask=ask: ask(["image-0001", "imag"]), DataError, "imag")  # type: ignore[misc]


def same_key_takes_the_place(engine: Engine) -> None:
    """Replace the entry of a known key; of two in one call the later counts."""
    old = some(10)
    made = archive(engine, old)
    new = dataclasses.replace(old[3], words="cavitation", patient="other", vector=old[0].vector)
    last = dataclasses.replace(old[4], words="granuloma")
    made.upsert([dataclasses.replace(last, words="never"), new, last])
    expect(len(made.held()) == 10, "no key is there twice")
    expect(same(made.entries(["image-0003"])[0], new), "the new entry is there")
    expect(made.held()["image-0003"] == "other", "the new patient is there")
    expect([hit.key for hit in made.worded("cavitation", 5)] == ["image-0003"], "new words")
    expect([hit.key for hit in made.worded("granuloma", 5)] == ["image-0004"], "the later counts")
    expect(made.worded("never", 5) == [], "the earlier does not")


def all_or_none(engine: Engine) -> None:
    """One entry that cannot be kept keeps out all of the call."""
    good = some(3)
    made = archive(engine, good[:1])
    before = made.version
    vector = np.ones(DIMENSION, np.float32) / math.sqrt(DIMENSION)
    facts: list[tuple[dict[str, Any], str]] = [
        ({"modalty": "MR"}, "modality"), ({"age": "old"}, "age"), ({"age": 1.5}, "age"),
        ({"age": True}, "age"), ({"age": 2**63}, "age"), ({"dose": math.nan}, "dose"),
        ({"contrast": 1}, "contrast"), ({"modality": 3}, "modality"),
    ]  # fmt: skip
    bad = [(dataclasses.replace(good[1], facts=one), said) for one, said in facts]
    wrong = (vector[:-1], vector * 2, vector * 0, np.full(DIMENSION, np.nan), vector[None])
    bad += [(dataclasses.replace(good[1], vector=one), good[1].key) for one in wrong]
    bad.append((dataclasses.replace(good[1], key=""), "key"))
    bad += [(dataclasses.replace(good[1], words=one), "words") for one in ("a\0b", "\ud83d")]
    bad.append((dataclasses.replace(good[1], facts={"modality": "a\0b"}), "modality"))
    for entry, said in bad:
        refused(lambda entry=entry: made.upsert([good[2], entry]), DataError, said)  # type: ignore[misc]
    expect(made.version == before, "a refused call makes no version")
    expect(list(made.held()) == ["image-0000"], "a refused call writes nothing")


def hostile_texts_are_texts(engine: Engine) -> None:
    """Quotes, statements, separators and other scripts in keys and words."""
    texts = ["a'b", 'a"b', "x'); DROP TABLE rows; --", "%s", "a\\b", "ключ", "a b", "{}", "$1"]
    made = archive(engine, [Entry(t, t, t, None, words=t, facts={"modality": t}) for t in texts])
    expect(sorted(made.held()) == sorted(texts), "each is a key")
    expect([entry.facts["modality"] for entry in made.entries(texts)] == texts, "each is a fact")
    expect(made.of_cases(texts[:3]) == {t: [t] for t in texts[:3]}, "each is a case")
    made.delete_keys(texts[:3])
    expect(sorted(made.held()) == sorted(texts[3:]), "each can be deleted")
    made.erase_patients(texts[3:5])
    expect(sorted(made.held()) == sorted(texts[5:]), "each can be erased")


def deleted_keys_are_gone(engine: Engine) -> None:
    """Delete entries, which then answer nothing; unknown keys are passed over."""
    made = archive(engine, some(20))
    made.delete_keys(["image-0001", "image-0002", "unknown", "a\0b", "\ud83d"])
    expect(len(made.held()) == 18 and "image-0001" not in made.held(), "they are not held")
    expect(made.condition().entries == 18, "they are not counted")
    refused(lambda: made.entries(["image-0001"]), DataError, "image-0001")
    (near,) = made.nearest(vector_of(some(20)[1]), 20)
    expect("image-0001" not in near.keys, "they are near nothing")
    expect("image-0002" not in {hit.key for hit in made.worded("lesion", 20)}, "nor are words")
    made.upsert(some(20)[1:2])
    expect("image-0001" in made.held(), "a deleted key can come back")


def writers_lose_nothing(engine: Engine) -> None:
    """Four writers at once, each with its own handle, some on the same keys."""
    made = archive(engine)
    entries = some(160)

    def write(number: int) -> list[int]:
        mine = engine.reopen(made, None)
        return [
            mine.upsert(
                [*entries[at : at + 10], dataclasses.replace(entries[0], words=f"w{number}")]
            )
            for at in range(number * 40, number * 40 + 40, 10)
        ]

    with ThreadPoolExecutor(4) as pool:
        versions = list(pool.map(write, range(4)))
    for found in versions:
        expect(found == sorted(set(found)), "the versions that a writer is told rise")
    expect(max(map(max, versions)) == made.version, "the last write made the newest version")
    expect(sorted(made.held()) == [entry.key for entry in entries], "no entry is lost or twice")


def columns_are_checked(engine: Engine) -> None:
    """Names that are taken, no names, unknown types."""
    for columns, said in (
        ({"key": "text"}, "key"), ({"Vector": "text"}, "Vector"), ({"a b": "text"}, "a b"),
        ({"a": "txt"}, "text"), ({"a": "text", "A": "text"}, "'A'"), ({"_x": "text"}, "_x"),
        ({'a"; DROP': "text"}, "DROP"),
    ):  # fmt: skip
        refused(
            lambda columns=columns: engine.create(identity={}, dimension=4, columns=columns),  # type: ignore[misc]
            UsageError,
            said,
        )


CHECKS: tuple[Check, ...] = (
    empty_archive_answers_nothing,
    identity_and_columns_are_kept,
    entries_come_back_as_they_were,
    same_key_takes_the_place,
    all_or_none,
    hostile_texts_are_texts,
    deleted_keys_are_gone,
    writers_lose_nothing,
    columns_are_checked,
)
