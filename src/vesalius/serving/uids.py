# SPDX-License-Identifier: Apache-2.0
"""Unique identifiers: checked at the door, and made from content.

An identifier never becomes a path. PS3.5 section 9.1 allows digits and dots, 64 characters;
`2.25.` with a number of 128 bits is open to all (PS3.5 section B.2).
"""

from __future__ import annotations

import hashlib
import re

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")


def is_uid(text: str) -> bool:
    """Return whether `text` is a unique identifier: numbers joined by dots, at most 64 long."""
    return len(text) <= 64 and text.isascii() and _UID.fullmatch(text) is not None


def made_uid(*parts: str) -> str:
    """Return the identifier that stands for `parts`: the same parts, the same identifier."""
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16])}"
