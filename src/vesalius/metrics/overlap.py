# SPDX-License-Identifier: Apache-2.0
"""One case's label map against its truth: overlap, surface, lesions, volume of each structure.

Rules for empties: neither truth nor prediction has the structure, Dice, IoU, NSD and lesion-wise
F1 are 1, the distance and the volume error 0; one of them lacks it, those are 0, the distance is
the image's diagonal and the volume error the whole volume of the other. A failed case has the worst
of each, and the volume error of an empty prediction. Nothing is ever NaN, so nothing drops out of a
mean over cases (`segmentation`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vesalius.errors import UsageError
from vesalius.metrics.lesions import match_lesions
from vesalius.metrics.surface import (
    diagonal_mm,
    hausdorff_95,
    normalized_surface_dice,
    surface_distances,
)
from vesalius.types import Array, Spacing3

TOLERANCE_MM = 2.0


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
        For each name `dice_`, `iou_`, `nsd_`, `hd95_` (mm), `lesion_f1_`, `volume_error_` (ml,
        signed: prediction minus truth), `volume_` (ml, truth); and the means over structures
        `dice`, `iou`, `nsd`, `hd95`, `lesion_f1`; `diagonal` (mm) of the image.
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
        row[f"lesion_f1_{name}"] = match_lesions(a, b, spacing).f1
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
        row |= {f"hd95_{name}": diagonal, f"lesion_f1_{name}": 0.0}
        row |= {f"volume_error_{name}": -volume, f"volume_{name}": volume}
    return _with_means(row, labels, diagonal)


def _with_means(
    row: dict[str, float], labels: Mapping[int, str], diagonal: float
) -> dict[str, float]:
    for measure in ("dice", "iou", "nsd", "hd95", "lesion_f1"):
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
