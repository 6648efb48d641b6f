# SPDX-License-Identifier: Apache-2.0
"""Checks of words: the scores of Okapi BM25, negation, and statistics that follow the archive."""

from __future__ import annotations

import math

from vesalius.store.conformance.engine import Check, Engine, archive, expect, some
from vesalius.store.protocol import Entry, Filter
from vesalius.store.words import terms


def scores_are_those_of_bm25(engine: Engine) -> None:
    """Scores, order and terms, against the formula written out."""
    texts = [
        "mass mass mass in the liver", "mass", "liver cyst", "cyst", "", "kidney stone",
        "a large mass of the left kidney without any calcification of its wall", "liver liver cyst",
    ] * 3  # fmt: skip
    entries = [Entry(f"k{at:02d}", f"c{at}", "p", None, text) for at, text in enumerate(texts)]
    made = archive(engine, entries)
    for query in ("mass liver", "cyst of the kidney", "no calcification", "MASSES liver liver"):
        found = made.worded(query, 100)
        wanted = _bm25(query, {entry.key: entry.words for entry in entries})
        expect([hit.key for hit in found] == [key for key, _ in wanted], f"the order of {query!r}")
        for hit, (key, score) in zip(found, wanted, strict=True):
            expect(math.isclose(hit.score, score, rel_tol=1e-5), f"the score of {key}")
            borne = set(terms(dict(zip([e.key for e in entries], texts, strict=True))[key]))
            expect(set(hit.terms) == set(terms(query)) & borne, "the terms that it bears")
        expect(made.worded(query, 3) == found[:3], "fewer are the first of more")


def negation_is_another_term(engine: Engine) -> None:
    """Find what was ruled out by what was ruled out, and by nothing else."""
    made = archive(
        engine,
        [
            Entry("absent", "a", "p", None, "No effusion, no effusion. Effusion was ruled out."),
            Entry("present", "b", "p", None, "Small pleural effusions of the right side"),
            Entry("both", "c", "p", None, "Effusion left; without effusion right"),
            Entry("other", "d", "p", None, "Ring-enhancing lesion"),
        ],
    )
    expect({hit.key for hit in made.worded("effusion", 5)} == {"present", "both"}, "seen")
    expect({hit.key for hit in made.worded("no effusion", 5)} == {"absent", "both"}, "ruled out")
    expect([hit.key for hit in made.worded("RING ENHANCING", 5)] == ["other"], "hyphens")


def words_that_find_nothing(engine: Engine) -> None:
    """Unknown words, stop words, none at all, and a filter that leaves none."""
    made = archive(engine, some(20))
    for query in ("zzz", "of the", "", "  ", "?!"):
        expect(made.worded(query, 5) == [], f"{query!r} finds nothing")
    expect(made.worded("mass", 5, Filter(where="age > 1000")) == [], "nor what a filter keeps out")


def statistics_follow_the_archive(engine: Engine) -> None:
    """Weigh a term by the entries that are there, a filter notwithstanding."""
    entries = some(40)
    made = archive(engine, entries)
    for step in range(3):
        if step == 1:
            made.upsert([Entry("new", "c", "p", None, "effusion effusion and mass")])
            entries.append(Entry("new", "c", "p", None, "effusion effusion and mass"))
        if step == 2:
            gone = [entry.key for entry in entries if "Ring" in entry.words]
            made.delete_keys(gone)
            entries = [entry for entry in entries if entry.key not in gone]
        wanted = _bm25("pleural effusion mass", {entry.key: entry.words for entry in entries})
        found = made.worded("pleural effusion mass", 100)
        expect([hit.key for hit in found] == [key for key, _ in wanted], "order")
        fits = {entry.key for entry in entries if entry.facts.get("modality") == "MR"}
        for hits, scores in (
            (found, wanted),
            (
                made.worded("pleural effusion mass", 100, Filter(where="modality = 'MR'")),
                [(key, score) for key, score in wanted if key in fits],
            ),
        ):
            for hit, (key, score) in zip(hits, scores, strict=True):
                expect(hit.key == key and math.isclose(hit.score, score, rel_tol=1e-5), "scores")


def _bm25(query: str, texts: dict[str, str]) -> list[tuple[str, float]]:
    """Return key, score of the texts that bear a term, the best first, ties by key."""
    documents = {key: terms(text) for key, text in texts.items()}
    filled = [found for found in documents.values() if found]
    mean = sum(map(len, filled)) / len(filled)
    scores = dict.fromkeys(texts, 0.0)
    for term in set(terms(query)):
        bearing = sum(term in found for found in filled)
        weight = math.log(1 + (len(filled) - bearing + 0.5) / (bearing + 0.5))
        for key, found in documents.items():
            times = found.count(term)
            scores[key] += weight * times * 2.2 / (times + 1.2 * (0.25 + 0.75 * len(found) / mean))
    hits = [(key, score) for key, score in scores.items() if score > 0]
    return sorted(hits, key=lambda hit: (-round(hit[1], 9), hit[0]))


CHECKS: tuple[Check, ...] = (
    scores_are_those_of_bm25,
    negation_is_another_term,
    words_that_find_nothing,
    statistics_follow_the_archive,
)
