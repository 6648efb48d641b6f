# SPDX-License-Identifier: Apache-2.0
"""Label maps become `predictions.parquet` and scores: what evaluation and training write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vesalius import io
from vesalius.errors import DataError, RunError
from vesalius.files import fsync_folder, read_json, write_json
from vesalius.metrics import compare_masks, failed_masks, segmentation_summary
from vesalius.tasks.cases import Case
from vesalius.tasks.run import Run
from vesalius.tasks.segment.doubt import Doubt
from vesalius.tasks.segment.grid import class_indices
from vesalius.tasks.segment.predict import Segmenter
from vesalius.tasks.segment.quality import Quality, fit_quality
from vesalius.types import Array, Json, Progress
from vesalius.volume import LabelMap

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort

QUALITY = "quality.json"


def score_cases(
    run: Run,
    segmenter: Segmenter,
    cohort: Cohort,
    cases: Sequence[Case],
    split: str,
    *,
    progress: Progress | None = None,
) -> Json:
    """Predict one subset, write label maps, `predictions.parquet` and `metrics.json`.

    An image that cannot be read or predicted counts as a failure, with the worst of each score;
    one whose truth cannot be read, or lies on another grid, is left out and said so.
    """
    rows: list[Json] = []
    left_out: list[str] = []
    for done, case in enumerate(cases, 1):
        row = _score(run, segmenter, cohort, case, split)
        if "left_out" in row:
            left_out.append(f"image {case.key} left out of {split}: {row['left_out']}")
        else:
            rows.append(row)
        if progress is not None:
            progress(f"scoring {split}", done, len(cases))
    if not rows:
        raise DataError(f"no image of the subset '{split}' has a usable mask")
    if (run.path / "predictions").exists():
        fsync_folder(run.path / "predictions")
    labels = run.decisions["labels"]
    if split == "val":
        _keep_quality(run, rows, labels)
    quality = load_quality(run)
    for row in rows:
        for name, line in zip(labels, quality, strict=True):
            expected = row[f"expected_{name}"]
            row[f"predicted_dice_{name}"] = None if expected is None else line.predict(expected)
    run.write_predictions(split, rows)
    summary = segmentation_summary(
        {name: [row[name] for row in rows] for name in rows[0]},
        labels,
        groups={name: [str(row[name]) for row in rows] for name in ("modality", "scanner")},
    )
    summary["quality"] = [
        {"label": name, **_agreement([row for row in rows if not row["failed"]], name)}
        for name in labels
    ]
    return run.write_metrics(split, {**summary, "left_out": left_out})


def load_quality(run: Run) -> list[Quality]:
    """Return each structure's line from the network's expectation to the Dice score.

    Raises:
        RunError: the run has none.
    """
    try:
        held = read_json(run.path / QUALITY)
    except (OSError, ValueError) as error:
        raise RunError(
            f"the run '{run.path}' lacks a readable {QUALITY}; `vesalius evaluate --split val` "
            "writes it"
        ) from error
    return [Quality(**line) for line in held]


def _keep_quality(run: Run, rows: Sequence[Json], labels: Sequence[str]) -> None:
    """Fit and write the lines, on validation images that could be predicted."""
    known = [row for row in rows if not row["failed"]]
    expected, dice = (
        np.array([[row[f"{kind}_{name}"] for name in labels] for row in known]).reshape(
            len(known), len(labels)
        )
        for kind in ("expected", "dice")
    )
    lines = [line.to_json() for line in fit_quality(expected, dice)]
    write_json(run.path / QUALITY, lines)


def _agreement(rows: Sequence[Json], name: str) -> Json:
    """Return how the Dice score that was predicted goes with the true one."""
    from scipy.stats import spearmanr

    predicted = np.array([row[f"predicted_dice_{name}"] for row in rows], float)
    dice = np.array([row[f"dice_{name}"] for row in rows], float)
    varied = len(rows) > 2 and np.ptp(predicted) > 0 and np.ptp(dice) > 0
    return {
        "n": len(rows),
        "mean_error": float(np.abs(predicted - dice).mean()) if len(rows) else None,
        "rank_correlation": float(spearmanr(predicted, dice)[0]) if varied else None,
    }


def _score(run: Run, segmenter: Segmenter, cohort: Cohort, case: Case, split: str) -> Json:
    (row,) = case.rows
    base: Json = {
        "key": case.key,
        "patient": case.patient,
        "split": split,
        "modality": case.value("modality"),
        "scanner": case.value("scanner"),
    }
    labels = dict(enumerate(run.decisions["labels"], 1))
    unsure = {f"expected_{name}": None for name in labels.values()}
    try:
        mask = cohort.read_mask(row)
    except DataError as error:
        return {"left_out": str(getattr(error, "reason", error))}
    try:
        volume = cohort.read(row)
    except DataError as error:
        truth = _indexed(mask, run.decisions)
        reason = str(getattr(error, "reason", error))
        scores = failed_masks(truth, mask.spacing, labels)
        return {**base, **scores, **unsure, "failed": True, "reason": reason, "file": ""}
    try:
        truth = class_indices(mask, volume, run.decisions)
    except DataError as error:
        return {"left_out": str(error)}
    doubt = Doubt(1 + len(labels))
    try:
        predicted = segmenter.predict(volume, doubt=doubt)
    except DataError as error:
        scores = failed_masks(truth, volume.spacing, labels)
        return {**base, **scores, **unsure, "failed": True, "reason": str(error), "file": ""}
    found = _indexed(predicted, run.decisions)
    scores = compare_masks(found, truth, volume.spacing, labels)
    name = f"predictions/{case.key}.nii.gz"
    (run.path / "predictions").mkdir(exist_ok=True)
    io.write(predicted, run.path / name)
    expected = {
        f"expected_{label}": float(value)
        for label, value in zip(labels.values(), doubt.expected_dice(), strict=True)
    }
    return {**base, **scores, **expected, "failed": False, "reason": "", "file": name}


def _indexed(mask: LabelMap, decisions: Json) -> Array:
    return class_indices(mask, mask, decisions)
