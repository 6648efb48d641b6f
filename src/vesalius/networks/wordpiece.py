# SPDX-License-Identifier: Apache-2.0
"""WordPiece: text becomes numbers of pieces of words, as BERT's uncased models read it.

Devlin et al., NAACL 2019; Wu et al., arXiv 1609.08144. Lower case, accents off, punctuation and
Chinese characters alone, then of each word the longest piece that the vocabulary knows, and so on.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from pathlib import Path

_CLASS, _END, _UNKNOWN = "[CLS]", "[SEP]", "[UNK]"
_LONGEST = 100  # letters of a word; a longer one is unknown
_CHINESE = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip


def read_vocabulary(path: Path) -> dict[str, int]:
    """Return piece -> number of a file with one piece a line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return {piece: number for number, piece in enumerate(lines)}


def encode(text: str, vocabulary: Mapping[str, int], *, most: int) -> list[int]:
    """Return the numbers of a text's pieces between `[CLS]` and `[SEP]`, `most` of them at most."""
    found = [vocabulary[piece] for word in words_of(text) for piece in pieces_of(word, vocabulary)]
    return [vocabulary[_CLASS], *found[: most - 2], vocabulary[_END]]


def words_of(text: str) -> list[str]:
    """Return words and signs, in lower case and without accents."""
    out: list[str] = []
    for sign in text:
        kind = unicodedata.category(sign)
        if sign in "\t\n\r" or kind == "Zs":
            out.append(" ")
        elif sign not in ("\x00", "\ufffd") and not kind.startswith("C"):
            out.append(f" {sign} " if _is_chinese(ord(sign)) else sign)
    plain = unicodedata.normalize("NFD", "".join(out).lower())
    spaced = "".join(
        f" {sign} " if _is_punctuation(sign) else sign
        for sign in plain
        if unicodedata.category(sign) != "Mn"
    )
    return spaced.split()


def pieces_of(word: str, vocabulary: Mapping[str, int]) -> list[str]:
    """Return the pieces of a word, all but the first with `##` before them."""
    if len(word) > _LONGEST:
        return [_UNKNOWN]
    found: list[str] = []
    start = 0
    while start < len(word):
        mark = "##" if start else ""
        ends = range(len(word), start, -1)
        end = next((e for e in ends if mark + word[start:e] in vocabulary), None)
        if end is None:
            return [_UNKNOWN]
        found.append(mark + word[start:end])
        start = end
    return found


def _is_punctuation(sign: str) -> bool:
    symbol = sign.isascii() and sign.isprintable() and not sign.isalnum() and sign != " "
    return symbol or unicodedata.category(sign).startswith("P")


def _is_chinese(code: int) -> bool:
    return any(low <= code <= high for low, high in _CHINESE)
