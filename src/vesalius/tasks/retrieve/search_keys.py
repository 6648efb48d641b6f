# SPDX-License-Identifier: Apache-2.0
"""The key of an archive's entry says which image it is and in which state it was indexed.

`c0ffee00.000b953e396f2b0d.71884e23.5e1f00d5`: cohort, row of the cohort, voxels, words and facts.
So the list of keys alone tells what is new, what changed, and what is gone.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, NamedTuple, Self

_DIGITS = 8


class EntryKey(NamedTuple):
    """The parts of a key.

    Attributes:
        cohort: digits that tell cohorts apart.
        row: key of the image in its cohort.
        voxels: digits of its content hash.
        state: digits of all else that is stored of it.
    """

    cohort: str
    row: str
    voxels: str
    state: str

    @classmethod
    def parse(cls, key: str) -> Self | None:
        """Return the parts; None for a key of another maker."""
        parts = key.split(".")
        return cls(*parts) if len(parts) == 4 else None

    def __str__(self) -> str:
        return ".".join(self)


def voxel_digits(content_hash: str | None) -> str:
    """Return the digits of a content hash that stand in a key; zeros where there is none."""
    return (content_hash or "")[:_DIGITS].ljust(_DIGITS, "0")


def state_digits(*parts: Any) -> str:
    """Return digits that change with any of some JSON-like values."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return digits(text.encode("utf-8", "surrogatepass"))


def digits(content: bytes) -> str:
    """Return 8 hex digits of bytes."""
    return hashlib.blake2b(content, digest_size=_DIGITS // 2).hexdigest()


def image_of(key: str) -> str:
    """Return the key of the image in its cohort, by which reports name it."""
    parsed = EntryKey.parse(key)
    return key if parsed is None else parsed.row
