# SPDX-License-Identifier: Apache-2.0
"""A detector's scores on one subset: boxes, counts and their intervals, image by image."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vesalius.errors import DataError
from vesalius.metrics.detection import (
    count_scores,
    detection_scores,
    match_images,
    precision_recall,
)
from vesalius.tasks.cases import Case
from vesalius.tasks.detect.boxes import Boxes, boxes_of, empty
from vesalius.tasks.detect.predict import Detected, Detector
from vesalius.tasks.run import Run
from vesalius.types import Json, Progress

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort


def score_cases(
    run: Run,
    detector: Detector,
    cohort: Cohort,
    cases: Sequence[Case],
    split: str,
    *,
    progress: Progress | None = None,
) -> Json:
    """Detect in one subset, write `predictions.parquet` and `metrics.json`, return the metrics.

    An image that cannot be read or predicted counts as a failure: its objects are missed, and its
    count is wrong by as many.
    """
    if not cases:
        raise DataError(f"the subset '{split}' has no image with boxes")
    classes = detector.classes
    rows: list[Json] = []
    found: list[Boxes] = []
    truth: list[Boxes] = []
    for done, case in enumerate(cases, 1):
        (row,) = case.rows
        true = boxes_of(row, classes)
        reason, candidates, answer = "", empty(), None
        try:
            evidence = detector.evidence(cohort.read(row))
            candidates, answer = evidence.candidates, detector.judge(evidence)
        except DataError as error:
            reason = str(getattr(error, "reason", error))
        found.append(candidates)
        truth.append(true)
        rows.append(_row(case, split, classes, true, answer, reason))
        if progress is not None:
            progress(f"scoring {split}", done, len(cases))
    run.write_predictions(split, rows)
    patients = [case.patient for case in cases]
    scores, curves = [], {}
    for label, name in enumerate(classes):
        matched = match_images(
            [(b.corners[b.labels == label], b.scores[b.labels == label]) for b in found],
            [b.corners[b.labels == label] for b in truth],
        )
        scores += detection_scores(matched, patients, label=name)
        curves[name] = precision_recall(matched)
        scores += count_scores(
            np.array([row[f"count_{name}"] for row in rows]),
            np.array([row[f"true_{name}"] for row in rows]),
            patients,
            label=name,
            constant=run.decisions["usual_count"][name],
            low=np.array([row[f"low_{name}"] for row in rows]),
            high=np.array([_bound(row[f"high_{name}"]) for row in rows]),
            failed=np.array([row["failed"] for row in rows]),
        )
    summary = {
        "n_cases": len(rows),
        "n_patients": len(set(patients)),
        "n_failed": sum(row["failed"] for row in rows),
        "scores": [score.to_json() for score in scores],
        "precision_recall": curves,
    }
    return run.write_metrics(split, summary)


def _row(
    case: Case,
    split: str,
    classes: Sequence[str],
    true: Boxes,
    answer: Detected | None,
    reason: str,
) -> Json:
    row: Json = {
        "key": case.key,
        "patient": case.patient,
        "split": split,
        "modality": case.value("modality"),
        "scanner": case.value("scanner"),
        "failed": answer is None,
        "reason": reason,
        "boxes": json.dumps(answer.boxes.to_json(classes) if answer else []),
    }
    counts = true.count(len(classes))
    for label, name in enumerate(classes):
        one = answer.counts[label] if answer else None
        row[f"true_{name}"] = int(counts[label])
        row[f"count_{name}"] = one.count if one else 0
        row[f"expected_{name}"] = one.expected if one else 0.0
        row[f"low_{name}"] = one.low if one else 0
        row[f"high_{name}"] = one.high if one else 0
    return row


def _bound(high: int | None) -> float:
    return np.inf if high is None else high
