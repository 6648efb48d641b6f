# SPDX-License-Identifier: Apache-2.0
"""What texts are about: against a dense decomposition, and other words for the same thing."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from vesalius.errors import DataError
from vesalius.store.protocol import Entry
from vesalius.store.words import terms
from vesalius.tasks.retrieve.search import Query, search
from vesalius.tasks.retrieve.search_topics import Topics

sys.path.insert(0, str(Path(__file__).parent))
from memory_archive import MemoryArchive

KINDS, WORDS = 24, 10  # as many kinds of cases as the map has dimensions


def _texts(count: int) -> list[str]:
    """Return texts of six words of one kind, `kind3word7`, and one that no other text bears."""
    rng = np.random.default_rng(0)
    return [
        " ".join(f"kind{n % KINDS}word{w}" for w in rng.choice(WORDS, 6, replace=False))
        + f" case{n}"
        for n in range(count)
    ]


def test_it_is_the_singular_decomposition_of_weighted_counts() -> None:
    rng = np.random.default_rng(1)
    wordy = [" ".join(f"word{n}" for n in rng.integers(0, 90, 12)) for _ in range(70)]
    topics = Topics.fit(wordy)
    assert topics is not None
    counted = [Counter(terms(text)) for text in sorted(wordy)]
    table = np.zeros((70, len(topics.vocabulary)))
    for row, one in enumerate(counted):
        for term, count in one.items():
            if term in topics.vocabulary:
                place = topics.vocabulary[term]
                borne = sum(term in other for other in counted)
                table[row, place] = (1 + np.log(count)) * (np.log(71 / (1 + borne)) + 1)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    _, _, axes = np.linalg.svd(table)
    projected = table @ axes[:24].T
    projected /= np.linalg.norm(projected, axis=1, keepdims=True)
    found = topics.vectors(sorted(wordy))
    assert found @ found.T == pytest.approx(projected @ projected.T, abs=1e-4)


def _topics() -> Topics:
    topics = Topics.fit(_texts(480) * 2)
    assert topics is not None
    return topics


def test_other_words_for_the_same_thing_are_near() -> None:
    asked = ["kind3word1 kind3word2", "kind3word8 kind3word9", "kind7word1", "unheard-of"]
    found = _topics().vectors(asked)
    assert found[0] @ found[1] > 0.95
    assert abs(found[0] @ found[2]) < 0.05
    assert not found[3].any()


def test_what_one_text_alone_says_is_not_kept() -> None:
    assert not any(term.startswith("case") for term in _topics().vocabulary)


def test_it_survives_the_disk_and_damage_is_told(tmp_path: Path) -> None:
    topics = _topics()
    topics.save(tmp_path / "topics.npz")
    again = Topics.load(tmp_path / "topics.npz")
    texts = ["kind1word1", "kind1word2 and kind2word2"]
    assert np.array_equal(again.vectors(texts), topics.vectors(texts))
    (tmp_path / "topics.npz").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(DataError, match="is damaged; remove it"):
        Topics.load(tmp_path / "topics.npz")


def test_too_few_texts_give_none() -> None:
    assert Topics.fit(["one lesion", "two lesions"]) is None
    assert Topics.fit([]) is None


def test_the_search_finds_a_case_by_what_it_is_about() -> None:
    unit = np.array([1, 0], np.float32)
    archive = MemoryArchive(
        [
            Entry("a", "a", "pa", unit, "kind3word1"),
            Entry("b", "b", "pb", unit, "kind7word1"),
            Entry("c", "c", "pc", unit),
        ]
    )
    query = Query(unit[None], "kind3word8 with kind3word9", topics=_topics())
    found = search(archive, query, k=3)
    assert found.measures == ("images", "topics")
    assert found.worded == 0
    assert [hit.case for hit in found.hits] == ["a", "b", "c"]
    assert found.hits[0].topic is not None
    assert found.hits[0].topic > 0.8
    assert found.hits[2].topic is None
    alone = search(archive, Query(unit[None], "kind3word8"), k=3)
    assert alone.measures == ("images",)
