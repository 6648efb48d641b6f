# SPDX-License-Identifier: Apache-2.0
"""Scores of label maps: per case and structure, then means over cases with intervals.

Rules for empties: neither truth nor prediction has the structure, Dice and NSD are 1 and the
distance 0; one of them lacks it, Dice and NSD are 0 and the distance is the image's diagonal. A
failed case has the worst of each. Nothing is ever NaN, so nothing drops out of a mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vesalius.errors import UsageError
from vesalius.metrics.bootstrap import DRAWS, estimate, patient_draws, patient_index
from vesalius.metrics.groups import group_rows
from vesalius.metrics.surface import (
    diagonal_mm,
    hausdorff_95,
    normalized_surface_dice,
    surface_distances,
)
from vesalius.results import Estimate
from vesalius.types import Array, Json, Spacing3

TOLERANCE_MM = 2.0
_MEASURES = {"dice": "", "iou": "", "nsd": "", "hd95": "mm", "volume_error": "ml"}


def dice(prediction: Array, truth: Array) -> float:
    """Return twice the shared voxels over the sum of both masks' voxels; both empty: 1."""
    total = int(np.count_nonzero(prediction)) + int(np.count_nonzero(truth))
    return 2 * int(np.count_nonzero(prediction & truth)) / total if total else 1.0


def iou(prediction: Array, truth: Array) -> float:
    """Return the shared voxels over the joint ones (Jaccard); both empty: 1."""
    joint = int(np.count_nonzero(prediction | truth))
    return int(np.count_nonzero(prediction & truth)) / joint if joint else 1.0


def compare_masks(
    prediction: Array,
    truth: Array,
    spacing: Spacing3,
    labels: Mapping[int, str],
    tolerance_mm: float = TOLERANCE_MM,
) -> dict[str, float]:
    """Return one case's row of `predictions.parquet`: every measure for every structure.

    Args:
        prediction: integers `(i, j, k)`, or `(layer, i, j, k)` where structures overlap.
        truth: likewise, on the same grid.
        spacing: mm along i, j, k.
        labels: value -> name of the structures to score (no background).
        tolerance_mm: of the NSD.

    Returns:
        For each name `dice_`, `iou_`, `nsd_`, `hd95_` (mm), `volume_error_` (ml, signed:
        prediction minus truth), `volume_` (ml, truth); and the means over structures `dice`,
        `iou`, `nsd`, `hd95`; `diagonal` (mm) of the image.
    """
    prediction, truth = _layers(prediction), _layers(truth)
    if prediction.shape[1:] != truth.shape[1:]:
        raise UsageError(
            f"prediction must lie on the truth's grid {truth.shape[1:]}, got {prediction.shape[1:]}"
        )
    milliliters = float(np.prod(spacing)) / 1000
    diagonal = diagonal_mm(truth.shape[1:], spacing)
    boxes = _boxes([*prediction, *truth], max(_named(labels)))
    row: dict[str, float] = {}
    for value, name in labels.items():
        box: tuple[Any, ...] = (slice(None), *boxes(value))
        a, b = ((layers[box] == value).any(0) for layers in (prediction, truth))
        distances = surface_distances(a, b, spacing, worst_mm=diagonal)
        volume = int(np.count_nonzero(b)) * milliliters
        row[f"dice_{name}"] = dice(a, b)
        row[f"iou_{name}"] = iou(a, b)
        row[f"nsd_{name}"] = normalized_surface_dice(distances, tolerance_mm)
        row[f"hd95_{name}"] = hausdorff_95(distances)
        row[f"volume_error_{name}"] = int(np.count_nonzero(a)) * milliliters - volume
        row[f"volume_{name}"] = volume
    return _with_means(row, labels, diagonal)


def failed_masks(truth: Array, spacing: Spacing3, labels: Mapping[int, str]) -> dict[str, float]:
    """Return the row of a case without prediction: the worst of every measure."""
    truth = _layers(truth)
    milliliters = float(np.prod(spacing)) / 1000
    diagonal = diagonal_mm(truth.shape[1:], spacing)
    row: dict[str, float] = {}
    for value, name in _named(labels).items():
        volume = int(np.count_nonzero((truth == value).any(0))) * milliliters
        row |= {f"dice_{name}": 0.0, f"iou_{name}": 0.0, f"nsd_{name}": 0.0}
        row |= {f"hd95_{name}": diagonal, f"volume_error_{name}": -volume, f"volume_{name}": volume}
    return _with_means(row, labels, diagonal)


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
    """
    columns = {name: np.asarray(table[name]) for name in table}
    if "patient" not in columns:
        raise UsageError("table must have a column 'patient'")
    n = len(columns["patient"])
    if not n:
        raise UsageError("table holds no case: there is nothing to score")
    index, n_patients = patient_index(columns["patient"].tolist(), n)
    scored: list[tuple[str, str, Array, Array, str]] = []  # measure, label, values, empty, note
    for measure in _MEASURES:
        found = [_measure(columns, measure, name) for name in labels]
        if measure != "volume_error":
            values, empty = (np.mean([pair[k] for pair in found], axis=0) for k in (0, 1))
            scored.append((measure, "", values, empty, ""))
        for name, (values, empty) in zip(labels, found, strict=True):
            nothing = int(((columns[f"volume_{name}"] == 0) & (columns[f"dice_{name}"] == 1)).sum())
            count_as = {"dice": 1, "iou": 1, "nsd": 1, "hd95": 0}.get(measure)
            note = ""
            if nothing and count_as is not None:
                note = f"{nothing} cases without the structure, none predicted, count as {count_as}"
            scored.append((measure, name, values, empty, note))
    scored.sort(key=lambda entry: bool(entry[1]))  # stable: the means come first
    matrix = np.column_stack([entry[2] for entry in scored])  # (n, scores)
    if not np.isfinite(matrix).all():
        raise UsageError("table must hold finite numbers; enter failures with `failed_masks`")

    def statistic(weights: Array) -> Array:
        means: Array = weights @ matrix / weights.sum(1, keepdims=True)
        return means

    values = statistic(np.ones((1, n)))[0]
    samples = patient_draws(statistic, index, draws=draws, seed=seed)
    return [
        estimate(
            measure,
            values[column],
            samples[:, column],
            n=n,
            n_patients=n_patients,
            bounded=not _MEASURES[measure],
            label=label,
            unit=_MEASURES[measure],
            baseline=float(empty.mean()),
            baseline_name="empty mask",
            note="; ".join(
                part
                for part in (f"tolerance {tolerance_mm:g} mm" if measure == "nsd" else "", note)
                if part
            ),
        )
        for column, (measure, label, _, empty, note) in enumerate(scored)
    ]


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
    columns = {name: np.asarray(table[name]) for name in table}
    n = len(columns["patient"])
    common: dict[str, Any] = {"tolerance_mm": tolerance_mm, "draws": draws, "seed": seed}
    scores = segmentation_scores(columns, labels, **common)
    by = []
    for column, rows in group_rows(groups or {}, n):
        for value, chosen in rows:
            some = {name: values[chosen] for name, values in columns.items()}
            kept = [s.to_json() for s in segmentation_scores(some, labels, **common) if not s.label]
            by.append({"column": column, "value": value, "scores": kept})
    return {
        "n_cases": n,
        "n_patients": scores[0].n_patients,
        "n_failed": int(np.asarray(columns.get("failed", np.zeros(n)), bool).sum()),
        "tolerance_mm": tolerance_mm,
        "scores": [score.to_json() for score in scores],
        "by": by,
        "baseline": {"name": "empty mask", "dice": scores[0].baseline},
    }


def _measure(columns: Mapping[str, Array], measure: str, name: str) -> tuple[Array, Array]:
    """Return one structure's values `(n,)` and those that an empty mask would have had."""
    needed = [f"{measure}_{name}", f"volume_{name}", "diagonal"]
    missing = [column for column in needed if column not in columns]
    if missing:
        raise UsageError(f"table lacks the columns {missing}; make its rows with `compare_masks`")
    values, volume, diagonal = (columns[column].astype(np.float64) for column in needed)
    absent = volume == 0
    if measure == "volume_error":
        return np.abs(values), volume
    if measure == "hd95":
        return values, np.where(absent, 0.0, diagonal)
    return values, absent.astype(np.float64)


def _with_means(
    row: dict[str, float], labels: Mapping[int, str], diagonal: float
) -> dict[str, float]:
    for measure in ("dice", "iou", "nsd", "hd95"):
        row[measure] = float(np.mean([row[f"{measure}_{name}"] for name in labels.values()]))
    return row | {"diagonal": diagonal}


def _boxes(layers: Sequence[Array], largest: int) -> Callable[[int], tuple[slice, ...]]:
    """Return a function from a value to the box, one voxel wider, that holds all of it.

    One pass over each layer, so that many structures cost little more than one.
    """
    from scipy import ndimage

    shape = layers[0].shape
    found = [
        ndimage.find_objects(layer.view(np.uint8) if layer.dtype == bool else layer, largest)
        for layer in layers
    ]

    def box(value: int) -> tuple[slice, ...]:
        own = [boxes[value - 1] for boxes in found if boxes[value - 1] is not None]
        if not own:
            return tuple(slice(0, min(n, 1)) for n in shape)
        return tuple(
            slice(max(min(b[axis].start for b in own) - 1, 0), max(b[axis].stop for b in own) + 1)
            for axis in range(3)
        )

    return box


def _named(labels: Mapping[int, str]) -> Mapping[int, str]:
    if not labels or min(labels) < 1 or max(labels) > 65535:
        raise UsageError(
            f"labels must map values from 1 to 65535 (0 is background) to names, got {dict(labels)}"
        )
    if len(set(labels.values())) < len(labels):
        raise UsageError(f"labels must have different names, got {dict(labels)}")
    return labels


def _layers(array: Array) -> Array:
    array = np.asarray(array)
    if array.ndim not in (3, 4) or array.dtype.kind not in "iub":
        raise UsageError(
            f"a label map holds integers (i, j, k) or (layer, i, j, k), "
            f"got {array.dtype} of shape {array.shape}"
        )
    return array if array.ndim == 4 else array[None]
