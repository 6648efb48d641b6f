# SPDX-License-Identifier: Apache-2.0
"""Which words of a text are negated: phrases that negate, that only seem to, and clauses that end.

After NegEx (Chapman, Bridewell, Hanbury, Cooper, Buchanan: A simple algorithm for identifying
negated findings and diseases in discharge summaries. J Biomed Inform 34:301-310, 2001), whose
window of five words is replaced by the end of the clause, so that a list ("no fever, chills or
cough") is negated whole.
"""

from __future__ import annotations

from collections.abc import Sequence

# negates what follows, to the end of the clause
_BEFORE = """
    no; not; without; w/o; never; neither; nor; none; denies; denied; deny; denying; negative for;
    neg for; absence of; free of; clear of; lack of; lacks; lacking; no evidence of;
    no evidence for; no sign of; no signs of; no history of; without evidence of;
    without sign of; without signs of; fails to reveal; failed to reveal; ruled out for; rules out;
    cannot see
"""
# negates what precedes, back to the start of the clause
_AFTER = """
    ruled out; is ruled out; was ruled out; are ruled out; were ruled out; has been ruled out;
    have been ruled out; excluded; unlikely; absent; is absent; are absent; was absent;
    were absent; not seen; not identified; not present; not visualized; not visible;
    not demonstrated; not detected; not appreciated; not found; is not seen; are not seen;
    was not seen; were not seen; is not identified; are not identified; is negative; are negative;
    was negative; were negative
"""
# look like negation and are none
_SEEMING = """
    no change; no interval change; no significant change; no significant interval change;
    no increase; no suspicious change; no further; not only; not necessarily; not certain if;
    not certain whether; not rule out; not ruled out; not been ruled out; not exclude;
    not excluded; without difficulty; gram negative
"""
# a new clause, in which what was negated before is no longer
_CLAUSE = """
    but; however; nevertheless; yet; though; although; still; except; except for; apart from;
    aside from; other than; whereas; there is; there are; there was; there were; shows; show;
    showed; showing; demonstrates; demonstrated; demonstrating; reveals; revealed; revealing;
    presents; presented; presenting; which; because; is seen; are seen; due to; secondary to
"""
_END = ""  # how the end of a sentence is written


def negated(said: Sequence[str]) -> list[bool | None]:
    """Return for each word whether it is negated; None for those that negate.

    Args:
        said: words, folded, an empty one at each end of a sentence.
    """
    marks: list[bool | None] = [False] * len(said)
    inside = False  # what follows is negated
    clause = 0  # where the clause began
    at = 0
    while at < len(said):
        kind, length = _phrase_at(said, at)
        if kind == "clause":
            inside, clause = False, at + length
        elif kind == "before":
            inside = True
            marks[at : at + length] = [None] * length
        elif kind == "after":
            marks[clause:at] = [None if one is None else True for one in marks[clause:at]]
            marks[at : at + length] = [None] * length
        elif kind != "seeming" and inside:
            marks[at] = True
        at += length
    return marks


def _phrases() -> dict[tuple[str, ...], str]:
    tables = {"clause": _CLAUSE, "before": _BEFORE, "after": _AFTER, "seeming": _SEEMING}
    return {
        tuple(phrase.split()): kind
        for kind, phrases in tables.items()
        for phrase in phrases.split(";")
    }


_PHRASES = _phrases()
_LONGEST = max(map(len, _PHRASES))
_FIRST = frozenset(phrase[0] for phrase in _PHRASES)


def _phrase_at(said: Sequence[str], at: int) -> tuple[str, int]:
    """Return the kind and the length of the longest phrase that begins at a word."""
    if said[at] == _END:
        return "clause", 1
    if said[at] in _FIRST:
        for length in range(min(_LONGEST, len(said) - at), 0, -1):
            kind = _PHRASES.get(tuple(said[at : at + length]))
            if kind:
                return kind, length
    return "", 1
