# SPDX-License-Identifier: Apache-2.0
"""Scores of label maps over cases: the mean of each measure of `overlap`, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vesalius.errors import UsageError
from vesalius.metrics.bootstrap import DRAWS, Statistics, estimates
from vesalius.metrics.groups import group_scores
from vesalius.metrics.lesions import LESION_IOU
from vesalius.metrics.overlap import TOLERANCE_MM
from vesalius.results import Estimate
from vesalius.types import Array, Json

_UNITS = {"dice": "", "iou": "", "nsd": "", "hd95": "mm", "lesion_f1": "", "volume_error": "ml"}
_WHEN_ABSENT = {"dice": 1, "iou": 1, "nsd": 1, "hd95": 0, "lesion_f1": 1, "volume_error": 0}


def segmentation_statistics(table: Mapping[str, Any], labels: Sequence[str]) -> Statistics:
    """Return the mean of each measure over weighted cases, over all structures and for each.

    `table` as for `segmentation_scores`; raises `UsageError` like it.
    """
    columns = _checked(table)
    found = _values(columns, labels)
    matrix = np.column_stack([values for values, _ in found.values()])  # (n, scores)
    if not np.isfinite(matrix).all():
        raise UsageError(
            "table must hold finite numbers; enter failures with `failed_masks`, and evaluate a "
            "run again that an earlier version scored"
        )

    def of(weights: Array) -> Array:
        means: Array = weights @ matrix / weights.sum(1, keepdims=True)
        return means

    return Statistics(tuple(found), of, len(matrix))


def segmentation_scores(
    table: Mapping[str, Any],
    labels: Sequence[str],
    *,
    tolerance_mm: float = TOLERANCE_MM,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Estimate]:
    """Return the mean over cases of each measure, over all structures and for each.

    `table` is a DataFrame or a mapping of columns: `patient` and what `compare_masks` and
    `failed_masks` return, one row per case. `volume_error` is the mean of its magnitude. The
    trivial baseline is the empty mask. Scores come structure by structure after the means.

    Raises `UsageError` for missing columns, numbers that are not finite or no case at all.
    """
    columns = _checked(table)
    statistics = segmentation_statistics(columns, labels)
    empty = {name: float(values.mean()) for name, (_, values) in _values(columns, labels).items()}

    def describe(measure: str, label: str, _: float) -> dict[str, Any]:
        stated = {
            "nsd": [f"tolerance {tolerance_mm:g} mm"],
            "lesion_f1": [f"a lesion is found from an IoU of {LESION_IOU:g} on"],
        }
        notes = stated.get(measure, [])
        if label:
            absent = (columns[f"volume_{label}"] == 0) & (columns[f"dice_{label}"] == 1)
            if nothing := int(absent.sum()):
                notes.append(
                    f"{nothing} cases without the structure, none predicted, count as "
                    f"{_WHEN_ABSENT[measure]}"
                )
        return {
            "bounded": not _UNITS[measure],
            "unit": _UNITS[measure],
            "baseline": empty[measure, label],
            "baseline_name": "empty mask",
            "note": "; ".join(notes),
        }

    return estimates(statistics, columns["patient"].tolist(), describe, draws=draws, seed=seed)


def segmentation_summary(
    table: Mapping[str, Any],
    labels: Sequence[str],
    *,
    tolerance_mm: float = TOLERANCE_MM,
    groups: Mapping[str, Sequence[Any]] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Json:
    """Return one split's entry of `metrics.json`: scores, scores by group, baseline.

    `groups` maps a column (`scanner`, `modality`) to each case's value there; `table` may have a
    column `failed`.
    """
    columns = _checked(table)
    n = len(columns["patient"])
    common: dict[str, Any] = {"tolerance_mm": tolerance_mm, "draws": draws, "seed": seed}

    def of_rows(chosen: Array) -> list[Estimate]:
        some = {name: values[chosen] for name, values in columns.items()}
        return [s for s in segmentation_scores(some, labels, **common) if not s.label]

    scores = segmentation_scores(columns, labels, **common)
    return {
        "n_cases": n,
        "n_patients": scores[0].n_patients,
        "n_failed": int(np.asarray(columns.get("failed", np.zeros(n)), bool).sum()),
        "tolerance_mm": tolerance_mm,
        "scores": [score.to_json() for score in scores],
        "by": group_scores(groups, n, of_rows),
        "baseline": {"name": "empty mask", "dice": scores[0].baseline},
    }


def _values(
    columns: Mapping[str, Array], labels: Sequence[str]
) -> dict[tuple[str, str], tuple[Array, Array]]:
    """Return (measure, structure) -> the cases' values and those of an empty mask, means first."""
    each = {
        (measure, name): _measure(columns, measure, name) for measure in _UNITS for name in labels
    }
    means = {
        (measure, ""): (
            np.mean([each[measure, name][0] for name in labels], axis=0),
            np.mean([each[measure, name][1] for name in labels], axis=0),
        )
        for measure in _UNITS
        if measure != "volume_error"
    }
    return means | each


def _measure(columns: Mapping[str, Array], measure: str, name: str) -> tuple[Array, Array]:
    """Return one structure's values `(n,)` and those that an empty mask would have had."""
    needed = [f"{measure}_{name}", f"volume_{name}", "diagonal"]
    missing = [column for column in needed if column not in columns]
    if missing:
        raise UsageError(
            f"table lacks the columns {missing}; make its rows with `compare_masks`, and evaluate "
            "a run again that an earlier version scored"
        )
    values, volume, diagonal = (columns[column].astype(np.float64) for column in needed)
    absent = volume == 0
    if measure == "volume_error":
        return np.abs(values), volume
    if measure == "hd95":
        return values, np.where(absent, 0.0, diagonal)
    return values, absent.astype(np.float64)


def _checked(table: Mapping[str, Any]) -> dict[str, Array]:
    columns = {name: np.asarray(table[name]) for name in table}
    if "patient" not in columns:
        raise UsageError("table must have a column 'patient'")
    if not len(columns["patient"]):
        raise UsageError("table holds no case: there is nothing to score")
    return columns
