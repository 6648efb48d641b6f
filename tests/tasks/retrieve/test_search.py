# SPDX-License-Identifier: Apache-2.0
"""The search against brute force over all cases; what happens when half a query is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.errors import UsageError
from vesalius.store.protocol import Entry, Filter
from vesalius.tasks.retrieve.search import Query, search

sys.path.insert(0, str(Path(__file__).parent))
from memory_archive import MemoryArchive, random_archive


def _unit(*values: float) -> np.ndarray:
    vector = np.array(values, np.float32)
    return vector / np.linalg.norm(vector)


def _brute(archive: MemoryArchive, vectors: np.ndarray) -> dict[str, float]:
    """Mean over the query's images of the best cosine among a case's, by two plain loops."""
    found = {}
    for case in {entry.case for entry in archive.rows.values()}:
        own = [e.vector for e in archive.rows.values() if e.case == case and e.vector is not None]
        if own:
            found[case] = float(np.mean([max(float(v @ o) for o in own) for v in vectors]))
    return found


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(1, 5), st.integers(1, 12))
def test_it_finds_what_brute_force_finds(seed: int, cases: int, images: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    archive = random_archive(rng, cases)
    vectors = rng.normal(size=(images, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    wanted = sorted(_brute(archive, vectors).items(), key=lambda item: -item[1])[:k]
    found = search(archive, Query(vectors), k=k)
    assert [hit.case for hit in found.hits] == [case for case, _ in wanted]
    assert [hit.score for hit in found.hits] == pytest.approx([s for _, s in wanted], abs=1e-5)
    order = rng.permutation(images)
    turned = search(archive, Query(vectors[order]), k=k)
    assert [hit.case for hit in turned.hits] == [hit.case for hit in found.hits]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_each_match_is_the_best_image_of_its_case(seed: int) -> None:
    rng = np.random.default_rng(seed)
    archive = random_archive(rng, 6)
    vectors = np.stack([_unit(*rng.normal(size=8)) for _ in range(3)])
    for hit in search(archive, Query(vectors), k=3).hits:
        assert hit.score == pytest.approx(np.mean([m.similarity for m in hit.matches]), abs=1e-6)
        for match in hit.matches:
            assert archive.rows[match.key].case == hit.case
            own = [e.vector for e in archive.rows.values() if e.case == hit.case]
            best = max(float(vectors[match.image] @ vector) for vector in own)
            assert match.similarity == pytest.approx(best, abs=1e-5)


def _mixed() -> MemoryArchive:
    return MemoryArchive(
        [
            Entry("a1", "a", "pa", _unit(1, 0, 0), "lesion in the liver"),
            Entry("b1", "b", "pb", _unit(0.9, 0.1, 0)),  # no words
            Entry("c1", "c", "pc", None, "liver lesion with ring enhancement"),  # no image
            Entry("d1", "d", "pd", _unit(0, 0, 1), "chest"),
        ]
    )


def test_an_image_alone_and_words_alone() -> None:
    image = search(_mixed(), Query(_unit(1, 0, 0)[None]), k=9)
    assert [hit.case for hit in image.hits] == ["a", "b", "d"]
    assert image.hits[0].relevance is None
    words = search(_mixed(), Query(words="liver lesion ring"), k=9)
    assert [(hit.case, hit.score) for hit in words.hits] == [("c", 3.0), ("a", 2.0)]
    assert words.hits[0].worded[0].terms == ("lesion", "liver", "ring")
    assert words.hits[0].likeness is None


def test_both_find_cases_that_lack_either() -> None:
    found = search(_mixed(), Query(_unit(1, 0, 0)[None], "liver lesion"), k=9)
    assert found.hits[0].case == "a"  # leads both
    assert found.hits[0].score == pytest.approx(1)
    assert {hit.case for hit in found.hits} == {"a", "b", "c", "d"}
    by_case = {hit.case: hit for hit in found.hits}
    assert by_case["b"].relevance is None
    assert by_case["c"].likeness is None
    assert by_case["c"].relevance == 2.0


def test_balance_shifts_between_images_and_words() -> None:
    query = Query(_unit(0, 0, 1)[None], "ring")
    assert search(_mixed(), query, k=1, balance=0.0).hits[0].case == "d"
    assert search(_mixed(), query, k=1, balance=1.0).hits[0].case == "c"


def test_the_meaning_of_words_finds_images_without_words() -> None:
    found = search(_mixed(), Query(words="unheard-of", meaning=_unit(1, 0, 0)), k=2)
    assert [hit.case for hit in found.hits] == ["a", "b"]
    meaning = found.hits[1].meaning
    assert meaning is not None
    assert meaning.key == "b1"


def test_patients_that_are_left_out_never_appear() -> None:
    query = Query(_unit(1, 0, 0)[None], "liver lesion")
    found = search(_mixed(), query, k=9, given=Filter(not_patients=("pa", "pc")))
    assert {hit.case for hit in found.hits} == {"b", "d"}
    assert found.nearest[0] == pytest.approx(float(_unit(0.9, 0.1, 0)[0]), abs=1e-6)


def test_many_images_of_one_case_do_not_hide_the_others() -> None:
    crowd = [Entry(f"x{n:04}", "x", "px", _unit(1, n / 1e5, 0)) for n in range(700)]
    archive = MemoryArchive([*crowd, Entry("y", "y", "py", _unit(0.5, 1, 0))])
    assert [hit.case for hit in search(archive, Query(_unit(1, 0, 0)[None]), k=2).hits] == [
        "x",
        "y",
    ]


def test_queries_that_ask_nothing_are_refused() -> None:
    for query in (Query(), Query(words="  "), Query(np.empty((0, 3), np.float32))):
        with pytest.raises(UsageError, match="give an image, words, or both"):
            search(_mixed(), query, k=3)
    with pytest.raises(UsageError, match="k must be 1 or more"):
        search(_mixed(), Query(words="liver"), k=0)
    with pytest.raises(UsageError, match="balance must lie within"):
        search(_mixed(), Query(words="liver"), k=1, balance=1.5)


def test_an_empty_archive_answers_with_nothing() -> None:
    found = search(MemoryArchive([]), Query(_unit(1, 0, 0)[None], "liver"), k=3)
    assert found.hits == ()
    assert np.isnan(found.nearest).all()
