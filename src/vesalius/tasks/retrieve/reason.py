# SPDX-License-Identifier: Apache-2.0
"""Why words found a text: the stretches that match, and those that say the contrary."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from vesalius.store.words import NEGATED, plain, spans, terms

Mark = Literal["", "match", "contrary"]


@dataclass(frozen=True, slots=True)
class Passage:
    """A stretch of a text.

    Attributes:
        text: as it stands.
        mark: `match` where the query asks for it; `contrary` where the text denies what the query
            asks for, or states what the query denies; `` else.
    """

    text: str
    mark: Mark = ""


def marked(text: str, words: str) -> tuple[Passage, ...]:
    """Return a text in stretches that, joined, are the text.

    Args:
        text: of an archive's image.
        words: of the query.
    """
    asked = set(terms(words))
    against = {plain(t) if t.startswith(NEGATED) else NEGATED + t for t in asked}
    found: list[tuple[int, int, Mark]] = []
    for one in spans(text):
        mark: Mark = "match" if one.term in asked else "contrary" if one.term in against else ""
        if not mark:
            continue
        if found and one.start < found[-1][1]:  # a second term of the same stretch
            if mark == "match":
                found[-1] = (found[-1][0], max(found[-1][1], one.end), mark)
            continue
        found.append((one.start, one.end, mark))
    return tuple(_passages(text, found))


def _passages(text: str, found: Iterable[tuple[int, int, Mark]]) -> Iterable[Passage]:
    at = 0
    for start, end, mark in found:
        if start > at:
            yield Passage(text[at:start])
        yield Passage(text[start:end], mark)
        at = end
    if at < len(text):
        yield Passage(text[at:])
