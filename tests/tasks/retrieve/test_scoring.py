# SPDX-License-Identifier: Apache-2.0
"""Judging searches: own images never count, failures do, words against brute force, BM25."""

from __future__ import annotations

import json
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported

import numpy as np
import pytest

from vesalius.tasks.cases import Case
from vesalius.tasks.retrieve import judge
from vesalius.tasks.retrieve.baselines import bm25_scores, small_pixels
from vesalius.tasks.retrieve.scoring import Images, padded, write_scores
from vesalius.tasks.run import Run, start_run


@pytest.fixture
def run(tmp_path) -> Run:
    decisions = {"labels": ["kind"], "pairs": ["same-label", "captions"]}
    return start_run(
        {"task": "retrieve", "target": "kind", "seed": 0, "decisions": decisions, "audit": [],
         "measured": {}, "cohort": {"digest": ""}, "split_digest": "", "request": {}},
        tmp_path / "run",
    )  # fmt: skip


def images(vectors: np.ndarray, kinds: str, patients: list[int], lost: int = 0) -> Images:
    rows = [
        {"key": f"{n:02}", "label_kind": kind, "modality": "CT", "words": f"seen {kind}"}
        for n, kind in enumerate(kinds)
    ]
    held = tuple(Case(r["key"], (r,), f"p{p}") for r, p in zip(rows, patients, strict=True))
    return Images(
        cases=held,
        vectors=padded(judge.unit(vectors), lost),
        queries=np.arange(len(held)),
        groups={case.key: p for case, p in zip(held, patients, strict=True)},
        meanings=lambda texts: judge.unit(np.array([[t == "seen a", t == "seen b"] for t in texts],
                                                   float)),
        others={"raw pixels": padded(judge.unit(vectors), lost)},
        failures={held[-1].key: "it ends early"} if lost else {},
    )  # fmt: skip


def value(metrics: dict, name: str, label: str) -> float:
    scores = metrics["splits"]["test"]["scores"]
    return next(s["value"] for s in scores if (s["name"], s["label"]) == (name, label))


def test_the_nearest_are_own_images_and_do_not_count(run: Run) -> None:
    # two images a patient, alike as twins; across patients a is near b, by construction
    vectors = np.array([[1, 0.0], [1, 0.01], [0.9, 0.1], [0.9, 0.11], [0, 1], [0, 1.01]])
    metrics = write_scores(run, images(vectors, "aabbaa", [0, 0, 1, 1, 2, 2]), "test")
    # four that may be found: two of b stand first, then two of a; a b has no other b, and no score
    assert value(metrics, "precision@5", "kind") == pytest.approx(2 / 4)
    assert value(metrics, "mrr", "kind") == pytest.approx(1 / 3)
    first = run.predictions().to_pylist()[0]
    assert json.loads(first["found"]) == ["02", "03", "04", "05"]


def test_an_image_that_cannot_be_read_counts_as_nothing_found(run: Run) -> None:
    vectors = np.array([[1, 0.0], [1, 0.1], [0.1, 1], [0, 1]])
    kinds, patients = "aabba", [0, 1, 2, 3, 4]
    metrics = write_scores(run, images(vectors, kinds, patients, lost=1), "test")
    assert metrics["splits"]["test"]["n_failed"] == 1
    # four find their one other first among three; the fifth is lost
    assert value(metrics, "recall@5", "kind") == pytest.approx(4 / 5)
    assert value(metrics, "mrr", "kind") == pytest.approx(4 / 5)
    assert value(metrics, "mrr", "words, first 10") == pytest.approx(1)
    lost = run.predictions().to_pylist()[-1]
    assert lost["failed"]
    assert lost["reason"] == "it ends early"
    assert lost["found"] == "[]"
    assert {one["name"] for one in metrics["splits"]["test"]["baselines"]} == {
        "raw pixels", "BM25 of own words",
    }  # fmt: skip


def test_words_find_the_images_that_bear_them() -> None:
    vectors = judge.unit(np.array([[1, 0.0], [0.8, 0.6], [0, 1]]))
    found = judge.by_words(vectors, np.eye(2), ["x", "y", "y"], ["x", "y"], k=2)
    assert judge.mean(found, 1) == pytest.approx(1)
    assert judge.mean(found, 0) == pytest.approx((0.5 + 1) / 2)
    assert judge.mean(judge.by_words(vectors, np.eye(2)[:1], ["z"] * 3, ["x"], k=2), 0) == 0


def test_bm25_by_hand() -> None:
    found = bm25_scores(["effusion"], ["pleural effusion", "no effusion", "a large mass"])
    assert found[0, 0] > 0
    assert found[0, 1] == found[0, 2] == 0
    idf = np.log(1 + (3 - 1 + 0.5) / (1 + 0.5))
    lengths = np.array([2, 2, 2])
    norm = 1.2 * (1 - 0.75 + 0.75 * 2 / lengths.mean())
    assert found[0, 0] == pytest.approx(idf * 2.2 / (1 + norm), rel=0.1)


def test_pixels_are_small_gray_and_centered() -> None:
    rng = np.random.default_rng(0)
    found = small_pixels([rng.normal(5, 1, (2, 3, 64, 64)).astype(np.float16)] * 2)
    assert found.shape == (2, 1024)
    np.testing.assert_allclose(found.mean(1), 0, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert small_pixels([]).shape == (0, 1024)
