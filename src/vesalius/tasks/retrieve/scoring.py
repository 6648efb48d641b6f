# SPDX-License-Identifier: Apache-2.0
"""Scores of a retrieval run on one subset: `metrics.json`, `predictions.parquet`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from vesalius.errors import DataError
from vesalius.metrics.bootstrap import DRAWS
from vesalius.metrics.retrieval import Rankings, per_query, rank, retrieval_scores
from vesalius.results import Estimate
from vesalius.tasks.cases import Case, case_groups
from vesalius.tasks.retrieve.baselines import bm25_scores, small_pixels
from vesalius.tasks.retrieve.cases import label_column_of
from vesalius.tasks.retrieve.embedder import Embedder
from vesalius.tasks.retrieve.judge import NEAREST, WORDED, by_words, shared, unit
from vesalius.tasks.retrieve.pairs import Relation, make_pairs
from vesalius.tasks.run import Run
from vesalius.types import Array, Json, Progress

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort

GROUPED = ("modality", "body_part")
_LEAST = 10  # queries of a group that has scores of its own
_GROUP_DRAWS = 500


@dataclass(frozen=True, slots=True)
class Images:
    """Images with their vectors, of which some are queries and all may be found.

    Attributes:
        cases: of the images, those without a vector last.
        vectors: `(n, d)` of length one; NaN for an image that could not be read.
        queries: places of the queries.
        groups: case key -> patient or near-duplicates.
        meanings: puts words into the space of the vectors; None where nothing did.
        others: name -> `(n, d)` of length one: vectors to compare with.
        failures: case key -> why it has no vector.
    """

    cases: tuple[Case, ...]
    vectors: Array
    queries: Array
    groups: Mapping[str, int]
    meanings: Callable[[Sequence[str]], Array] | None
    others: Mapping[str, Array]
    failures: Mapping[str, str]


def score_cases(
    run: Run,
    embedder: Embedder,
    cohort: Cohort,
    cases: Sequence[Case],
    queries: Sequence[Case],
    split: str,
    *,
    progress: Progress | None = None,
) -> Json:
    """Embed a cohort's images, search for some of them among all others, write the scores.

    Args:
        run: finished.
        embedder: of the run.
        cohort: of the cases.
        cases: all images that may be found.
        queries: those that are looked for.
        split: name of the subset that these are.
        progress: called as `progress(stage, done, total)`.
    """
    if not queries:
        raise DataError(f"the subset '{split}' has no image")
    features, pixels, failures = [], [], {}
    for done, case in enumerate(cases, 1):
        try:
            views = embedder.views(cohort.read(case.rows[0]))
        except DataError as error:
            failures[case.key] = str(error)
            continue
        features.append(embedder.model.features([views]).numpy())
        pixels.append(small_pixels([views.views]))
        if progress is not None:
            progress("embedding images", done, len(cases))
    if not features:
        raise DataError(f"none of the {len(cases)} images can be read; see `vesalius check`")
    read = [case for case in cases if case.key not in failures]
    lost = [case for case in cases if case.key in failures]
    table = np.concatenate(features)
    asked = {case.key for case in queries}
    ordered = (*read, *lost)
    images = Images(
        cases=ordered,
        vectors=padded(embedder.of_features(table), len(lost)),
        queries=np.array([n for n, case in enumerate(ordered) if case.key in asked]),
        groups=case_groups(cohort, ordered),
        meanings=None if embedder.words_model is None else embedder.words_model.vectors,
        others={
            "frozen encoder": padded(unit(embedder.frozen_part(table)), len(lost)),
            "raw pixels": padded(np.concatenate(pixels), len(lost)),
        },
        failures=failures,
    )
    return write_scores(run, images, split)


def padded(vectors: Array, lost: int) -> Array:
    """Return vectors with a row of NaN for each image that could not be read."""
    return np.pad(vectors, ((0, lost), (0, 0)), constant_values=np.nan)


def write_scores(run: Run, images: Images, split: str) -> Json:
    """Write `predictions.parquet` and `metrics.json` of one subset, return the metrics."""
    decisions = run.decisions
    labels = list(decisions["labels"])
    columns = [label_column_of(name) for name in labels]
    pairs = make_pairs(images.cases, images.groups, decisions["pairs"], columns)
    named = [*labels, *["study"] * (len(pairs.relations) - len(labels))]
    scores: list[Estimate] = []
    groups: list[Json] = []
    found: list[Json] = []
    rows = _rows(images, split)
    for name, relation in zip(named, pairs.relations, strict=True):
        rankings = _by_image(images, images.vectors, relation, pairs.patients)
        scores += _estimates(rankings, images, relation, name)
        groups += _groups(rankings, images, name, several=len(pairs.relations) > 1)
        found += _beside(images, relation, pairs.patients, name)
        for row, precision in zip(rows, per_query(rankings)[:, 0], strict=True):
            row[f"precision_{name}"] = None if np.isnan(precision) else float(precision)
    if images.meanings is not None and pairs.words:
        scores += _worded(images, pairs.words, images.meanings)
    run.write_predictions(split, rows)
    summary = {
        "n_cases": len(images.queries),
        "n_patients": len({images.cases[n].patient for n in images.queries}),
        "n_failed": sum(images.cases[n].key in images.failures for n in images.queries),
        "n_archive": len(images.cases),
        "scores": [score.to_json() for score in scores],
        "by": groups,
        "baselines": found,
    }
    return run.write_metrics(split, summary)


def _own(codes: Array, queries: Array) -> Array:
    """Return `(queries, n)`: which images are of the query's patient, or study."""
    return np.asarray(codes[queries][:, None] == codes[None])


def _by_image(images: Images, vectors: Array, relation: Relation, patients: Array) -> Rankings:
    queries = images.queries
    own = np.arange(len(vectors)) if relation.within else patients
    excluded = _own(own, queries) | np.isnan(vectors).any(axis=1)
    return rank(
        vectors[queries] @ vectors.T, shared(relation.codes, queries), excluded=excluded, k=NEAREST
    )


def _failed(images: Images) -> Array:
    return np.array([images.cases[n].key in images.failures for n in images.queries])


def _estimates(
    rankings: Rankings, images: Images, relation: Relation, name: str, *, draws: int = DRAWS
) -> list[Estimate]:
    patients = [images.cases[n].patient for n in images.queries]
    classes = [str(code) for code in relation.codes[images.queries]]
    several = None if relation.within else classes
    found = retrieval_scores(
        rankings, patients, classes=several, failed=_failed(images), draws=draws
    )
    return [replace(one, label=f"{name}, mean of values" if one.label else name) for one in found]


def _groups(rankings: Rankings, images: Images, name: str, *, several: bool) -> list[Json]:
    """Return the scores of each modality and body part with enough queries."""
    cases = [images.cases[n] for n in images.queries]
    failed = _failed(images)
    out = []
    for column in GROUPED:
        values = np.array([case.value(column) for case in cases])
        for value in sorted(set(values) - {""}):
            own = values == value
            if own.sum() < _LEAST:
                continue
            part = Rankings(*(getattr(rankings, slot)[own] for slot in Rankings.__slots__))
            patients = [case.patient for case, here in zip(cases, own, strict=True) if here]
            scores = retrieval_scores(part, patients, failed=failed[own], draws=_GROUP_DRAWS)
            out.append({
                "column": column,
                "value": f"{value}, {name}" if several else str(value),
                "n_cases": int(own.sum()),
                "scores": [replace(score, label=name).to_json() for score in scores],
            })  # fmt: skip
    return out


def _beside(images: Images, relation: Relation, patients: Array, name: str) -> list[Json]:
    """Return the scores of what the run is compared with."""
    tables = {
        other: _by_image(images, vectors, relation, patients)
        for other, vectors in images.others.items()
    }
    texts = [(case.rows[0].get("words") or "").strip() for case in images.cases]
    asked = [texts[n] for n in images.queries]
    if any(asked):
        own = np.arange(len(texts)) if relation.within else patients
        tables["BM25 of own words"] = rank(
            bm25_scores(asked, texts),
            shared(relation.codes, images.queries),
            excluded=_own(own, images.queries),
            k=NEAREST,
        )
    return [
        {
            "name": other,
            "label": name,
            "scores": [
                score.to_json()
                for score in _estimates(rankings, images, relation, name, draws=_GROUP_DRAWS)
                if score.label == name
            ],
        }
        for other, rankings in tables.items()
    ]


def _worded(
    images: Images, words: Sequence[str], meanings: Callable[[Sequence[str]], Array]
) -> list[Estimate]:
    """Return how well a subset's images are found by their own words, among these images alone."""
    places = [int(n) for n in images.queries if images.cases[n].key not in images.failures]
    captions = [words[n] for n in places]
    asked = sorted(set(captions) - {""})
    if not asked:
        return []
    rankings = by_words(images.vectors[places], meanings(asked), captions, asked)
    patients = [images.cases[places[captions.index(text)]].patient for text in asked]
    scores = retrieval_scores(rankings, patients)
    return [replace(score, label=f"words, first {WORDED}") for score in scores]


def _rows(images: Images, split: str) -> list[Json]:
    """Return what `predictions.parquet` holds of each query."""
    patients = np.array([images.groups[case.key] for case in images.cases])
    likeness = images.vectors[images.queries] @ images.vectors.T
    likeness[patients[images.queries][:, None] == patients[None]] = -np.inf
    likeness = np.where(np.isnan(likeness), -np.inf, likeness)
    nearest = np.argsort(-likeness, axis=1, kind="stable")[:, :NEAREST]
    rows: list[Json] = []
    for row, place in enumerate(images.queries):
        case = images.cases[place]
        kept = [n for n in nearest[row] if np.isfinite(likeness[row, n])]
        rows.append({
            "key": case.key,
            "patient": case.patient,
            "split": split,
            "modality": case.value("modality"),
            "scanner": case.value("scanner"),
            "failed": case.key in images.failures,
            "reason": images.failures.get(case.key, ""),
            "found": json.dumps([images.cases[n].key for n in kept]),
            "cosines": json.dumps([round(float(likeness[row, n]), 4) for n in kept]),
        })  # fmt: skip
    return rows
