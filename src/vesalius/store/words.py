# SPDX-License-Identifier: Apache-2.0
"""Medical text to the terms that it is found by: one for a word, another for its negation.

What a caption and a query have in common must not hang on a hyphen, a plural or an accent, and
must hang on a "no": a negated word becomes another term, `no:effusion`, so that "effusion" never
finds "no effusion", while "no effusion" finds "without effusion".
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from vesalius.store.negation import negated
from vesalius.store.stems import stem

RULES = 1  # number of these rules: terms that other rules made do not mix with theirs

NEGATED = "no:"

_UNITS = (
    "mm|cm|dm|ml|cc|mg|mcg|kg|hu|msv|mci|mbq|mhz|hz|tesla|"
    "(?:year|yr|month|mo|week|wk|day|hour|hr|minute|min|second|sec)s?|%|[gmst]"
)
_MARKS = r"\u0300-\u036f"  # combining accents: of the letter before
_TOKEN = re.compile(
    rf"(?P<xray>\bx[\s-]?rays?\b)"
    rf"|(?P<measure>(?:(?<![\w.])|(?<=\d[x×]))(?P<number>\d+(?:[.,]\d+)?)[\s-]?(?P<unit>{_UNITS})(?![\w{_MARKS}]))"
    rf"|(?P<factor>(?<![^\W_])\d+(?:[.,]\d+)?(?=\s*[x×]\s*\d))"
    rf"|(?P<times>(?<=[\d\s])[x×](?=\s*\d))"
    rf"|(?P<decimal>(?<![\w.])\d+[.,]\d+(?!\w))"
    rf"|(?P<word>\b[a-z]/[a-z]\b|[^\W_][^\W_{_MARKS}]*(?:[{_MARKS}][^\W_]*)*(?:['’][^\W\d_]+)?)"
    rf"|(?P<end>[.;:!?\n\r])"
    rf"|(?P<hyphen>(?<=\w)-(?=\w))",
    re.IGNORECASE,
)
_ALIASES = {"yr": "year", "yrs": "year", "mo": "month", "wk": "week", "wks": "week",
            "hr": "hour", "hrs": "hour", "min": "minute", "sec": "second", "s": "second",
            "m": "meter", "t": "tesla", "cc": "ml"}  # fmt: skip
_PREFIXED = """
    anti extra hyper hypo infra inter intra multi non para peri post pre retro semi sub supra trans
"""
_PASSED_OVER = """
    a about above after all also although an and any are as at be because been before being below
    between both but by can could did do does during each either except for from further had has
    have he her here hers him his how however i if in into is it its itself may might more most
    must my nevertheless no not of on once only or other our out over own same shall she should so
    some still such than that the their them then there these they this those though through to
    too under until up very was we were what when where whereas which while who whom why will with
    within would x yet you your
"""
_PREFIXES = frozenset(_PREFIXED.split())
_STOP = frozenset(_PASSED_OVER.split())


@dataclass(frozen=True, slots=True)
class Term:
    """A term and the stretch of text it stands for.

    Attributes:
        term: what is looked up, `no:…` when negated.
        start: first character in the text.
        end: behind the last character.
    """

    term: str
    start: int
    end: int


def terms(text: str) -> list[str]:
    """Return the terms of a text in its order, repetitions included."""
    return [one.term for one in spans(text)]


def spans(text: str) -> list[Term]:
    """Return the terms of a text with the stretches they stand for, to highlight a match."""
    words = _words(text)
    marks = negated([word.said for word in words])
    found: list[Term] = []
    for at, word in enumerate(words):
        if marks[at] is None or not word.forms:
            continue
        mark = NEGATED if marks[at] else ""
        found += [Term(mark + form, word.start, word.end) for form in word.forms]
    return found


def plain(term: str) -> str:
    """Return a term without its mark of negation."""
    return term.removeprefix(NEGATED)


@dataclass(frozen=True, slots=True)
class _Word:
    said: str  # folded, as phrases are compared; "" behind the end of a sentence
    forms: tuple[str, ...]  # terms
    start: int
    end: int


def _words(text: str) -> list[_Word]:
    """Split a text: words with their terms, and the ends of sentences."""
    found: list[_Word] = []
    matches = [one for one in _TOKEN.finditer(text) if one.lastgroup != "times"]
    at = 0
    while at < len(matches):
        match = matches[at]
        at += 1
        kind = match.lastgroup
        start, end = match.span()
        if kind == "hyphen":
            continue
        if kind == "end":
            found.append(_Word("", (), start, end))
            continue
        said = _fold(match.group())
        if kind == "xray":
            forms: tuple[str, ...] = ("xray",)
        elif kind == "unit" or match.group("measure"):
            unit = _fold(match.group("unit"))
            unit = _ALIASES.get(unit, unit.removesuffix("s") if len(unit) > 3 else unit)
            forms = (match.group("number").replace(",", ".") + unit,)
        elif kind in ("factor", "decimal"):
            forms = (said.replace(",", "."),)
        else:
            after = _behind(matches, at)
            base = _fold(matches[after].group()) if after < len(matches) else ""
            joined = said in _PREFIXES and base.isalpha() and base not in _STOP
            if joined and matches[after].lastgroup == "word":
                whole = stem(said + base)
                forms = (whole,) if said == "non" else (whole, stem(base))
                end, at = matches[after].end(), after + 1
            else:
                forms = () if said in _STOP else (stem(said.removesuffix("'s").replace("/", "")),)
        found.append(_Word(said, forms, start, end))
    return found


def _behind(matches: list[re.Match[str]], at: int) -> int:
    """Return where the next word is, a hyphen passed over."""
    return at + 1 if at < len(matches) and matches[at].lastgroup == "hyphen" else at


def _fold(text: str) -> str:
    """Return lower case without accents."""
    if text.isascii():
        return text.lower()
    apart = unicodedata.normalize("NFKD", text.replace("’", "'"))
    return "".join(c for c in apart if not unicodedata.combining(c)).casefold()
