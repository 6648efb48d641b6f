# SPDX-License-Identifier: Apache-2.0
"""Fingerprint of the cases -> every decision of a classification run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch

from vesalius.errors import CohortError
from vesalius.tasks.cases import Case, class_order, mirror_is_harmless
from vesalius.tasks.normalizing import method_name
from vesalius.training.device import best_precision
from vesalius.training.loss import class_weights
from vesalius.types import Json

SMALL = 48  # pixels up to which the network keeps full resolution in its first layers
LARGEST = 128  # pixels of the longest side that the network sees
VOLUMETRIC = 40  # voxels up to which a volume is seen whole, by 3D convolutions
SLICES = 8  # of a larger volume
VIEWS = 8  # of one case in one training step
MAX_EPOCHS = 100


def fingerprint(train: Sequence[Case]) -> Json:
    """Return what the plan rests on: counts, shapes, modalities of the training images.

    Raises:
        CohortError: no training case, or a single class among them.
    """
    rows = [row for case in train for row in case.rows]
    classes = Counter(case.truth for case in train)
    if len(classes) < 2:
        raise CohortError(
            f"the training subset holds {len(train)} cases of {len(classes)} class(es); it needs "
            "two classes at least: check the labels and the split"
        )
    shapes = np.array([row["shape"] for row in rows])
    return {
        "cases": len(train),
        "images": len(rows),
        "images_per_case": float(np.median([len(case.rows) for case in train])),
        "cases_per_class": {name: classes[name] for name in class_order(classes)},
        "modalities": dict(sorted(Counter(row["modality"] or "" for row in rows).items())),
        "volumes": int((shapes[:, 3] > 1).sum()),
        "color": int(((shapes[:, 0] >= 3) & (shapes[:, 3] == 1)).sum()),
        "median_side": float(np.median(shapes[:, 1:3].max(axis=1))),
        "median_longest_side": float(np.median(shapes[:, 1:].max(axis=1))),
    }


def decide(
    found: Json,
    classes: Sequence[str],
    *,
    model: str,
    budget: Json,
    case: str,
    normalize: str = "auto",
) -> Json:
    """Return the decisions that follow from a fingerprint; a pure function.

    Args:
        found: of `fingerprint`.
        classes: in order, from all labelled cases.
        model: a name of `networks.NETWORKS`, or `auto`.
        budget: `{"minutes": m}` or `{"steps": n}`.
        case: what one label applies to.
        normalize: an intensity method, or `auto`.
    """
    whole = found["volumes"] == found["images"] and found["median_longest_side"] <= VOLUMETRIC
    dims = 3 if whole else 2
    side = found["median_longest_side"] if whole else found["median_side"]
    size = _up(side, 4) if side <= SMALL else min(LARGEST, _up(side, 16))
    stem = "medium" if whole or SMALL < size <= 64 else "small" if size <= SMALL else "large"
    several = found["images_per_case"] > 1 or (found["volumes"] > 0 and not whole)
    mirrored = mirror_is_harmless(found["modalities"])
    counts = [found["cases_per_class"].get(name, 0) for name in classes]
    return {
        "case": case,
        "classes": list(classes),
        "class_weights": [round(weight, 6) for weight in class_weights(counts)],
        "network": {
            "name": "resnet18" if model == "auto" else model,
            "spatial_dims": dims,
            "in_channels": 3 if found["color"] and not whole else 1,
            "options": {"stem": stem, "width": _width(stem)},
        },
        "input": {"size": size, "slices": SLICES, "views": VIEWS},
        "pooling": "mean of a volume's slices, then mean of a case's images",
        "normalization": method_name(normalize),
        "augmentation": {
            "rotation": 15.0,
            "scale": 0.15,
            "shift": 0.08,
            "flips": [0] if mirrored else [],
        },
        "batch": 8 if several else 32,
        "optimizer": {"name": "AdamW", "lr": 1e-3, "weight_decay": 0.02, "clip_norm": 5.0},
        "label_smoothing": 0.05,
        "dropout": 0.2,
        "max_epochs": MAX_EPOCHS,
        "precision": best_precision(),
        "budget": budget,
    }


def cache_bytes(found: Json, decisions: Json) -> int:
    """Return what the prepared views of training and validation take on disk, about."""
    side, dims = decisions["input"]["size"], decisions["network"]["spatial_dims"]
    view = 2 * decisions["network"]["in_channels"] * side**dims
    flat = found["images"] - (found["volumes"] if dims == 2 else 0)
    views = flat + (found["images"] - flat) * decisions["input"]["slices"]
    return int(1.4 * view * views)  # validation is about a third of training


def _width(stem: str) -> int:
    """Return the first stage's channels: half where it runs at full resolution on a CPU."""
    return 64 if torch.cuda.is_available() or stem == "large" else 32


def _up(value: float, multiple: int) -> int:
    return max(multiple, int(-(-value // multiple) * multiple))
