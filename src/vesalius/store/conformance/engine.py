# SPDX-License-Identifier: Apache-2.0
"""What the suite needs of an engine, the entries it writes and how it judges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from vesalius.errors import VesaliusError
from vesalius.store.protocol import Archive, Entry
from vesalius.types import Array, Json

DIMENSION = 16
IDENTITY: Json = {"encoder": "a1b2", "normalizer": "c3d4", "plan": {"size": 224}}
COLUMNS = {"modality": "text", "age": "integer", "dose": "float", "contrast": "boolean"}
_WORDS = (
    "Large right pleural effusion", "No pleural effusion. Mass in the left lobe",
    "Ring-enhancing lesion of the frontal lobe", "", "Mass of 3 mm, without calcification",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Engine:
    """How archives of one engine are made and opened.

    Attributes:
        create: `(identity=, dimension=, columns=)` makes a new empty archive.
        reopen: `(archive, version)` opens the same archive again, as another process would; the
            newest version for None.
    """

    create: Callable[..., Archive]
    reopen: Callable[[Archive, int | None], Archive]


Check: TypeAlias = Callable[[Engine], None]


def expect(holds: Any, promise: str) -> None:
    """Raise `AssertionError` with the promise that is broken unless it holds."""
    if not holds:
        raise AssertionError(promise)


def refused(call: Callable[[], object], kind: type[VesaliusError], *said: str) -> None:
    """Raise `AssertionError` unless an error of a kind, with some words, refuses a call."""
    try:
        call()
    except kind as error:
        for word in said:
            expect(word in str(error), f"the refusal does not say '{word}': {error}")
        return
    raise AssertionError(f"not refused by {kind.__name__}: {said}")


def archive(engine: Engine, entries: list[Entry] | None = None) -> Archive:
    """Return a new archive of the suite's columns that holds entries."""
    made = engine.create(identity=IDENTITY, dimension=DIMENSION, columns=COLUMNS)
    if entries:
        made.upsert(entries)
    return made


def unit(rng: np.random.Generator, count: int | None = None) -> Array:
    """Return a random vector of length one, or `(count, d)` of them."""
    found = rng.standard_normal((count or 1, DIMENSION))
    scaled: Array = (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)
    return scaled if count else scaled[0]


def some(count: int, seed: int = 0) -> list[Entry]:
    """Return entries: two images a case, two cases a patient, every seventh without a vector."""
    rng = np.random.default_rng(seed)
    return [
        Entry(
            key=f"image-{at:04d}",
            case=f"case-{at // 2:04d}",
            patient=f"patient-{at // 4:04d}",
            vector=None if at % 7 == 6 else unit(rng),
            words=_WORDS[at % len(_WORDS)],
            facts={
                "modality": ("MR", "CT", None, "MR")[at % 4],
                "age": None if at % 9 == 8 else at % 90,
                "dose": at / 4,
                "contrast": (True, False, None)[at % 3],
            },
            thumbnail=bytes([at % 256, 0, 255]),
        )
        for at in range(count)
    ]


def vector_of(entry: Entry) -> Array:
    """Return the vector of an entry that has one."""
    expect(entry.vector is not None, f"{entry.key} has a vector")
    return np.asarray(entry.vector)


def same(a: Entry, b: Entry) -> bool:
    """Return whether two entries are the same in everything."""
    vectors = (
        a.vector is b.vector
        if a.vector is None or b.vector is None
        else np.array_equal(np.asarray(a.vector, np.float32), b.vector)
    )
    facts = {name: a.facts.get(name) for name in COLUMNS} == dict(b.facts)
    plain = ("key", "case", "patient", "words", "thumbnail")
    return vectors and facts and all(getattr(a, name) == getattr(b, name) for name in plain)
