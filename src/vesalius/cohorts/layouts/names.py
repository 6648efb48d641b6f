# SPDX-License-Identifier: Apache-2.0
"""The patient in a file's name: the leading words up to the first with a digit, when shared.

`SC-HF-I-10-IM-0034-0048.png` -> `SC-HF-I-10`, `MPX1007_synpic46719.jpg` -> `MPX1007`,
`00000001_000.png` -> `00000001`. The rule holds for a whole folder or not at all: nearly every name
must have such a start with something after it, there must be two or more of them, and on average
three files must share two of them; names that are mere counters (`hippocampus_001`) give none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from vesalius.cohorts.layouts.facts import MODALITIES, stem

_PIECES = re.compile(r"[A-Za-z0-9]+|[^A-Za-z0-9]+")
_COVERED = 0.95
_SHARED = 1.5  # files a patient, on average
_COUNTERS = frozenset({"image", "img", "slice", "frame", "fig", "figure", "page", "scan", "im"})


def leading_id(name: str) -> str:
    """Return the start of a file name that may name its patient, or ``."""
    pieces = _PIECES.findall(stem(name))
    for n, piece in enumerate(pieces):
        if not any(c.isdigit() for c in piece) or piece.lower() in MODALITIES:
            continue
        start = "".join(pieces[: n + 1])
        rest = pieces[n + 1 :]
        word = re.match(r"[A-Za-z]*", piece)
        before = [p for p in pieces[:n] if p.isalpha()]
        counter = (word and word[0].lower()) or (before[-1].lower() if before else "")
        if counter in _COUNTERS:
            return ""
        return start if any(p.isalnum() for p in rest) else ""
    return ""


def names_tell_patients(names: Sequence[str]) -> bool:
    """Return whether the names of a folder's images (a sample of them) start with their patient."""
    ids = [leading_id(name) for name in names]
    known = [one for one in ids if one]
    distinct = len(set(known))
    return distinct >= 2 and len(known) >= _COVERED * len(ids) and len(known) >= _SHARED * distinct
