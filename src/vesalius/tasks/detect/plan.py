# SPDX-License-Identifier: Apache-2.0
"""Fingerprint of images and boxes -> every decision of a detection run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch

from vesalius.errors import CohortError, UsageError
from vesalius.networks.pretrained import INPUT_SCALE, PRETRAINED
from vesalius.tasks.augmentation import any_way_up, mirror_is_harmless, value_changes
from vesalius.tasks.cases import Case
from vesalius.tasks.detect.boxes import boxes_of
from vesalius.tasks.detect.cases import box_classes
from vesalius.tasks.normalizing import method_name
from vesalius.training.device import best_precision
from vesalius.types import Array, Json

LEAST_SIDE = 16.0  # pixels of the smallest class's median box that the network is to see
MOST_PIXELS = {False: 80_000, True: 640_000}  # of a training window, on a CPU and on a GPU
MULTIPLE = 32  # the encoder's deepest stride
ALWAYS = 0.9  # of training images that show a class …
MANY = 5  # … this many times in the median: then an image without it was not annotated for it
MAX_EPOCHS = 120


def fingerprint(train: Sequence[Case]) -> Json:
    """Return what the plan rests on: shapes, modalities, and the boxes of the training images.

    Sides of boxes are in millimeters, in pixels where an image states no spacing.

    Raises:
        CohortError: no training image, or none with a box.
    """
    rows = [row for case in train for row in case.rows]
    names = box_classes(train)
    if not names:
        raise CohortError(
            f"the training subset holds {len(rows)} images and no box; check the split"
        )
    classes = list(names)
    spacings = np.array([row["spacing"][:2] if row["calibrated"] else (1.0, 1.0) for row in rows])
    shapes = np.array([row["shape"][1:3] for row in rows])
    boxes = [boxes_of(row, classes) for row in rows]
    counts = np.array([found.count(len(classes)) for found in boxes])
    sides: list[list[float]] = [[] for _ in classes]
    for found, spacing in zip(boxes, spacings, strict=True):
        extents = (found.corners[:, 2:] - found.corners[:, :2]) * spacing
        for label, extent in zip(found.labels, extents, strict=True):
            sides[label].append(float(np.sqrt(extent.prod())))
    return {
        "images": len(rows),
        "modalities": dict(sorted(Counter(row["modality"] or "" for row in rows).items())),
        "color": int(sum(row["shape"][0] >= 3 for row in rows)),
        "calibrated": int(sum(bool(row["calibrated"]) for row in rows)),
        "median_shape": np.median(shapes, axis=0).round().astype(int).tolist(),
        "median_spacing": np.median(spacings, axis=0).round(4).tolist(),
        "classes": {
            name: {
                "boxes": int(counts[:, place].sum()),
                "images": int((counts[:, place] > 0).sum()),
                "median_count": float(np.median(counts[:, place])),
                "median_side": round(float(np.median(sides[place])), 2),
            }
            for place, name in enumerate(classes)
        },
    }


def decide(found: Json, *, model: str, budget: Json, normalize: str = "auto") -> Json:
    """Return the decisions that follow from a fingerprint and the device; a function of both.

    Args:
        found: of `fingerprint`.
        model: an encoder's name, or `auto`.
        budget: `{"minutes": m}` or `{"steps": n}`.
        normalize: an intensity method, or `auto`.
    """
    large = torch.cuda.is_available()
    smallest = min(one["median_side"] for one in found["classes"].values())
    fine = float(max(found["median_spacing"]))
    spacing = max(fine, smallest / LEAST_SIDE)
    extent = np.array(found["median_shape"]) * found["median_spacing"]
    window = _window(extent / spacing, MOST_PIXELS[large])
    color = found["color"] > found["images"] / 2
    kinds = found["modalities"]
    free = mirror_is_harmless(kinds, color=color)
    any_way = any_way_up(kinds, color=color)
    flips = [0, 1] if any_way else [0] if free else []
    encoder = "efficientnet_lite0" if model == "auto" else model
    return {
        "classes": list(found["classes"]),
        "always": [
            name
            for name, one in found["classes"].items()
            if one["images"] >= ALWAYS * found["images"] and one["median_count"] >= MANY
        ],
        "usual_count": {name: one["median_count"] for name, one in found["classes"].items()},
        "network": {
            "name": "center",
            "spatial_dims": 2,
            "in_channels": 3 if color else 1,
            "options": {"encoder": encoder, "width": 48, "stride": 4},
            "pretrained": encoder in PRETRAINED,
            "scale": INPUT_SCALE if encoder in PRETRAINED else 1.0,
        },
        "spacing": [round(spacing, 4)] * 2,
        "window": window,
        "batch": 8 if large else 4,
        "normalization": method_name(normalize),
        "augmentation": {
            "scale": 0.2,
            "stretch": 0.1,
            "shift": 0.1,
            "flips": flips,
            "transpose": any_way,
            "values": value_changes(kinds, color=color),
        },
        "loss": "focal loss of center heat maps, smooth L1 of size and offset",
        "optimizer": {"name": "AdamW", "lr": 1e-3, "weight_decay": 0.01, "clip_norm": 5.0},
        "mirrored_answers": flips,
        "overlap_sigma": 0.3,
        "max_epochs": MAX_EPOCHS,
        "precision": best_precision(),
        "budget": budget,
    }


def cache_bytes(found: Json, decisions: Json) -> int:
    """Return what the prepared training and validation images take on disk, about."""
    extent = np.prod(np.array(found["median_shape"]) * found["median_spacing"])
    pixels = extent / np.prod(decisions["spacing"])
    return int(1.5 * found["images"] * 2 * decisions["network"]["in_channels"] * pixels)


def _window(shape: Array, most: int) -> list[int]:
    """Return about the median image's shape, of at most `most` pixels, in whole deepest cells."""
    if most < MULTIPLE**2:
        raise UsageError(f"a window needs {MULTIPLE**2} pixels at least, got {most}")
    size = np.maximum(MULTIPLE, np.round(shape / MULTIPLE) * MULTIPLE).astype(int)
    while size.prod() > most:
        size[int(size.argmax())] -= MULTIPLE
    return [int(side) for side in size]
