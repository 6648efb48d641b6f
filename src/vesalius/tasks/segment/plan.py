# SPDX-License-Identifier: Apache-2.0
"""Fingerprint of images and masks -> every decision of a segmentation run.

The rules follow Isensee et al.: nnU-Net, Nature Methods 2021 (median spacing, patch shaped like
the median image, pooling per axis by spacing), cut down to what the machine at hand can train.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from vesalius.errors import CohortError, DataError, UsageError, did_you_mean
from vesalius.geometry import axis_codes
from vesalius.networks import SEGMENTATION_NETWORKS
from vesalius.networks.pretrained import INPUT_SCALE
from vesalius.tasks.augmentation import any_way_up, value_changes
from vesalius.tasks.cases import Case
from vesalius.tasks.normalizing import method_name
from vesalius.training.device import best_precision
from vesalius.types import Array, Json

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort

MASKS = 300  # training masks that are read to learn the labels
THIN = 12  # slices below which a volume is treated slice by slice
ANISOTROPIC = 3.0  # times coarser than the other axes
MIN_EDGE = 4  # voxels left at the coarsest level
MOST_LEVELS = 5
MOST_WIDTH = 256
MAX_EPOCHS = 400
_STEMS = {"large": 128, "medium": 32}  # stem of an encoder -> shortest side of the patch for it
_COARSEST = {"large": 32, "medium": 16, "small": 8}  # ... -> what the patch is a multiple of
_SIDES = {"left", "right", "l", "r", "lt", "rt", "lh", "rh", "sin", "dex"}
# (axes, on a GPU) -> voxels of a patch, and patches that the median image may be worth before
# its spacing is coarsened. On two cores a 256 x 256 image learns several times faster per minute
# at 1.4 times its spacing, seen whole, than in patches at its own.
_LIMITS = {
    (2, False): (2**15, 1),
    (3, False): (2**17, 24),
    (2, True): (2**18, 16),
    (3, True): (2**21, 64),
}


def fingerprint(cohort: Cohort, train: Sequence[Case]) -> Json:
    """Return shapes, spacings (RAS order for volumes), channels and labels of training images.

    Raises:
        CohortError: no training image, or no mask with anything in it.
    """
    rows = [row for case in train for row in case.rows]
    if not rows:
        raise CohortError("the training subset holds no image with a mask; check the split")
    flat = np.median([row["shape"][3] for row in rows]) < THIN
    grids = [_grid(row, reorder=not flat) for row in rows]
    labels, read = _labels(cohort, rows)
    if not labels:
        raise CohortError(
            f"none of the {read} training masks holds a label other than 0; look at the masks "
            "with `vesalius check`"
        )
    shapes = np.array([shape for shape, _ in grids])
    spacings = np.array([spacing for _, spacing in grids])
    return {
        "images": len(rows),
        "spatial_dims": 2 if flat else 3,
        "channels": int(np.median([row["shape"][0] for row in rows])),
        "modalities": dict(sorted(Counter(row["modality"] or "" for row in rows).items())),
        "median_shape": np.median(shapes, axis=0).round().astype(int).tolist(),
        "median_spacing": np.median(spacings, axis=0).round(4).tolist(),
        "fine_spacing": np.percentile(spacings, 10, axis=0).round(4).tolist(),
        "labels": labels,
        "masks_read": read,
    }


def decide(
    found: Json,
    *,
    model: str,
    budget: Json,
    normalize: str = "auto",
) -> Json:
    """Return the decisions that follow from a fingerprint and the device; a function of both.

    Args:
        found: of `fingerprint`.
        model: one of `SEGMENTATION_NETWORKS`, or `auto`.
        budget: `{"minutes": m}` or `{"steps": n}`.
        normalize: an intensity method, or `auto`.

    Raises:
        UsageError: an unknown model.
    """
    name = "unet" if model == "auto" else model
    if name not in SEGMENTATION_NETWORKS:
        raise UsageError(
            f"model must be auto or one of {', '.join(SEGMENTATION_NETWORKS)} for segment, got "
            f"'{model}'.{did_you_mean(model, ('auto', *SEGMENTATION_NETWORKS))}"
        )
    labels: dict[str, str] = found["labels"]  # value -> name
    dims, large = found["spatial_dims"], torch.cuda.is_available()
    limit, windows = _LIMITS[dims, large]
    spacing = _target_spacing(found, dims)
    extent = np.array(found["median_shape"][:dims]) * found["median_spacing"][:dims]
    while np.prod(extent / spacing) > windows * limit:  # coarsen the finer axes first
        spacing = np.where(spacing < 0.5 * spacing.max(), spacing * 1.03, spacing)
        if (spacing >= 0.5 * spacing.max()).all():
            spacing = spacing * 1.03
    shape = np.maximum(1, np.round(extent / spacing)).astype(int)
    patch, strides, kernels = _topology(shape, spacing, limit)
    while windows == 1 and (shape > patch).any():  # a patch is to see the whole image
        spacing = spacing * 1.02
        shape = np.maximum(1, np.round(extent / spacing)).astype(int)
        patch, strides, kernels = _topology(shape, spacing, limit)
    color = dims == 2 and found["channels"] >= 3
    channels = 3 if color else found["channels"]
    network = {"name": name, "spatial_dims": dims, "in_channels": channels, "weights": "random"}
    if name in ("unet", "resenc-unet"):
        base = 32 if large else 16
        widths = [min(MOST_WIDTH, base * 2**level) for level in range(len(strides))]
        options: Json = {"widths": widths, "strides": strides, "kernels": kernels}
    else:
        stem = next((s for s, least in _STEMS.items() if min(patch) >= least), "small")
        options = {"stem": stem}
        patch = [_up(size, _COARSEST[stem]) for size in patch]
        if name == "light-unet" and stem == "large" and channels in (1, 3) and dims == 2:
            network["weights"] = "imagenet"
            options["input_scale"] = INPUT_SCALE
    if name != "fcn":
        options["deep_supervision"] = True
    network["options"] = options
    kinds = found["modalities"]
    fine = np.flatnonzero(spacing < ANISOTROPIC * spacing.min()).tolist()
    batch = max(2, min(8, (4 if dims == 2 else 2) * limit // int(np.prod(patch))))
    return {
        "labels": list(labels.values()),
        "values": [int(value) for value in labels],
        "network": network,
        "color": color,
        "orientation": "RAS" if dims == 3 else "native",
        "spacing": [round(float(value), 4) for value in spacing],
        "patch": [int(size) for size in patch],
        "batch": batch,
        "forced_foreground": 1 / 3,
        "normalization": method_name(normalize),
        "augmentation": {
            "rotation": 180.0 if any_way_up(kinds, color=color) else 15.0,
            "scale": 0.2,
            "shift": 0.05,
            "flips": _flips(kinds, labels.values(), dims, color=color),
            "planes": [[a, b] for a in fine for b in fine if a < b],
            **value_changes(kinds, color=color),
        },
        "loss": "soft Dice over the batch plus cross-entropy",
        "optimizer": {
            "name": "AdamW",
            "lr": 2e-3,
            "weight_decay": 0.01,
            "clip_norm": 5.0,
            "ema": 0.99,
        },
        "overlap": 0.5,
        "max_epochs": MAX_EPOCHS,
        "precision": best_precision(),
        "budget": budget,
    }


def cache_bytes(found: Json, decisions: Json) -> int:
    """Return what the prepared training images and masks take on disk, about."""
    dims = found["spatial_dims"]
    extent = np.prod(np.array(found["median_shape"]) * found["median_spacing"])
    grid = [*decisions["spacing"], *found["median_spacing"][dims:]]
    bytes_each = 2 * decisions["network"]["in_channels"] + 1
    return int(1.2 * found["images"] * bytes_each * extent / np.prod(grid))


def _flips(modalities: Iterable[str], names: Iterable[str], dims: int, *, color: bool) -> list[int]:
    """Return the axes along which images may be mirrored: left and right unless names tell them."""
    if any_way_up(modalities, color=color):
        return list(range(dims))
    return [] if _sided(names) else [0]


def _sided(names: Iterable[str]) -> bool:
    """Return whether a structure is named by its side, so that a mirror image has another name."""
    return any(set(re.split(r"[^a-z]+", name.lower())) & _SIDES for name in names)


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _target_spacing(found: Json, dims: int) -> Array:
    spacing = np.array(found["median_spacing"][:dims])
    shape = np.array(found["median_shape"][:dims])
    worst = int(spacing.argmax())
    rest = np.delete(np.arange(dims), worst)
    if spacing[worst] > ANISOTROPIC * spacing[rest].max() and (
        shape[worst] * ANISOTROPIC < shape[rest].min()
    ):
        spacing[worst] = max(found["fine_spacing"][worst], spacing[rest].max())
    return spacing


def _topology(
    shape: Array, spacing: Array, limit: int
) -> tuple[list[int], list[list[int]], list[list[int]]]:
    """Return patch, strides and kernels: as much of the median image as the limit allows."""
    patch = np.maximum(shape, 2 * MIN_EDGE).astype(int)
    while True:
        strides, kernels = _levels(patch, spacing)
        multiple = np.prod(strides, axis=0)
        padded = -(-patch // multiple) * multiple
        if np.prod(padded) <= limit:
            return padded.tolist(), strides, kernels
        shrinkable = padded > 2 * MIN_EDGE
        widest = int(np.where(shrinkable, padded * spacing, 0).argmax())
        patch[widest] = (padded[widest] - 1) // multiple[widest] * multiple[widest]


def _levels(patch: Array, spacing: Array) -> tuple[list[list[int]], list[list[int]]]:
    """Halve each axis while it is long enough and not coarser than the others by 2."""
    size, step = patch.astype(float), spacing.astype(float)
    strides: list[list[int]] = [[1] * len(patch)]
    kernels = [_kernel(step)]
    while len(strides) < MOST_LEVELS:
        able = size >= 2 * MIN_EDGE
        if not able.any():
            break
        halve = able & (step < 2 * step[able].min())
        size, step = np.where(halve, size / 2, size), np.where(halve, step * 2, step)
        strides.append(np.where(halve, 2, 1).tolist())
        kernels.append(_kernel(step))
    return strides, kernels


def _kernel(step: Array) -> list[int]:
    return [3 if value < 2 * step.min() else 1 for value in step.tolist()]


def _grid(row: Json, *, reorder: bool) -> tuple[list[int], list[float]]:
    """Return `(shape, spacing)` along i, j, k, or along right, anterior, superior."""
    shape, spacing = list(row["shape"][1:]), list(row["spacing"])
    if not reorder or not row["affine"]:
        return shape, spacing
    codes = axis_codes(np.array(row["affine"], dtype=float).reshape(4, 4))
    world = ["LRPAIS".index(code) // 2 for code in codes]
    order = [world.index(axis) for axis in range(3)]
    return [shape[n] for n in order], [spacing[n] for n in order]


def _labels(cohort: Cohort, rows: list[Json]) -> tuple[dict[str, str], int]:
    """Return value -> name over training masks, and how many were read."""
    rng = np.random.default_rng(0)
    names: dict[int, str] = {}
    found: set[int] = set()
    read = 0
    for place in rng.permutation(len(rows))[:MASKS]:
        row = rows[place]
        for value, name in json.loads(row["mask_names"] or "{}").items():
            names.setdefault(int(value), str(name))
        try:
            mask = cohort.read_mask(row)
        except DataError:
            continue  # named when the image is prepared
        read += 1
        found |= {int(value) for value in np.unique(mask.data) if value != 0}
        for value, name in mask.names.items():
            names.setdefault(int(value), str(name))
    taken: set[str] = set()
    out: dict[str, str] = {}
    for value in sorted(found):
        name = names.get(value) or f"label-{value}"
        out[str(value)] = name if name not in taken else f"{name}-{value}"
        taken.add(name)
    return out, read
