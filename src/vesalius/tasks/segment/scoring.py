# SPDX-License-Identifier: Apache-2.0
"""Label maps become `predictions.parquet` and scores: what evaluation and training write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vesalius import io
from vesalius.errors import DataError, RunError
from vesalius.files import fsync_folder, read_json, write_json
from vesalius.metrics import failed_masks, segmentation_summary
from vesalius.tasks.cases import Case
from vesalius.tasks.run import Run
from vesalius.tasks.segment.compare import compare
from vesalius.tasks.segment.doubt import Doubt
from vesalius.tasks.segment.grid import refuse_off_grid
from vesalius.tasks.segment.largest_choice import decide_largest
from vesalius.tasks.segment.predict import Segmenter
from vesalius.tasks.segment.quality import Quality, fit_quality, on_one_level
from vesalius.tasks.segment.structures import Structures
from vesalius.tasks.segment.suspects import suspect_masks
from vesalius.types import Json, Progress

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
    folds: Mapping[str, int] | None = None,
    progress: Progress | None = None,
) -> Json:
    """Predict one subset, write label maps, `predictions.parquet` and `metrics.json`.

    An image that cannot be read or predicted counts as a failure, with the worst of each score;
    one whose truth cannot be read, or lies on another grid, is left out and said so. The subset
    `val` also decides of which structures the largest piece is kept, and gives the quality lines.

    Args:
        run: whose scores they are.
        segmenter: of the run.
        cohort: of the cases.
        cases: of the subset.
        split: its name.
        folds: case key -> fold: each case is answered by that fold's network alone. Empty or None:
            by the run's whole model.
        progress: called as `progress(stage, done, total)`.
    """
    rows: list[Json] = []
    left_out: list[str] = []
    if split == "val":
        segmenter = segmenter.with_largest(())
    for done, case in enumerate(cases, 1):
        answering = segmenter.member(folds[case.key]) if folds else segmenter
        row = _score(run, answering, cohort, case, split)
        if "left_out" in row:
            left_out.append(f"image {case.key} left out of {split}: {row['left_out']}")
        else:
            rows.append(row)
        if progress is not None:
            progress(f"scoring {split}", done, len(cases))
    if not rows:
        raise DataError(f"no image of the subset '{split}' has a usable mask")
    labels = run.decisions["labels"]
    if split == "val":
        rows = decide_largest(run, cohort, cases, rows)
        rows = _on_one_level(rows, labels, folds) if folds else rows
        _keep_quality(run, rows, labels)
    if (run.path / "predictions").exists():
        fsync_folder(run.path / "predictions")
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
    summary["suspect_masks"] = suspect_masks(rows, labels)
    if folds:
        summary["folds"] = 1 + max(folds.values())
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


def _on_one_level(
    rows: Sequence[Json], labels: Sequence[str], folds: Mapping[str, int]
) -> list[Json]:
    """Return the rows with the expectations of the folds' networks on one level."""
    names = [f"expected_{name}" for name in labels]
    known = [row for row in rows if not row["failed"]]
    if not known:
        return list(rows)
    table = np.array([[row[name] for name in names] for row in known], float)
    moved = on_one_level(table, [folds[row["key"]] for row in known]).tolist()
    held = {
        row["key"]: dict(zip(names, own, strict=True))
        for row, own in zip(known, moved, strict=True)
    }
    return [{**row, **held.get(row["key"], {})} for row in rows]


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
    structures = Structures.of(run.decisions)
    labels = dict(enumerate(structures.sources, 1))
    unsure = {f"expected_{name}": None for name in labels.values()}
    try:
        mask = cohort.read_mask(row)
        codes = structures.encode(mask)
    except DataError as error:
        return {"left_out": str(getattr(error, "reason", error))}
    try:
        volume = cohort.read(row)
    except DataError as error:
        truth = structures.places(codes)
        reason = str(getattr(error, "reason", error))
        scores = failed_masks(truth, mask.spacing, labels)
        return {**base, **scores, **unsure, "failed": True, "reason": reason, "file": ""}
    try:
        refuse_off_grid(mask, volume)
    except DataError as error:
        return {"left_out": str(error)}
    truth = structures.places(codes)
    doubt = Doubt.of(run.decisions)
    try:
        predicted = segmenter.predict(volume, doubt=doubt)
    except DataError as error:
        scores = failed_masks(truth, volume.spacing, labels)
        return {**base, **scores, **unsure, "failed": True, "reason": str(error), "file": ""}
    scores = compare(predicted, codes, structures)
    name = f"predictions/{case.key}.nii.gz"
    (run.path / "predictions").mkdir(exist_ok=True)
    io.write(predicted, run.path / name)
    expected = {
        f"expected_{label}": float(value)
        for label, value in zip(labels.values(), doubt.expected_dice(), strict=True)
    }
    return {**base, **scores, **expected, "failed": False, "reason": "", "file": name}
