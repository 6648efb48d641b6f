# SPDX-License-Identifier: Apache-2.0
"""Fingerprint of the images -> every decision of a retrieval run.

Settings of towers were chosen by cross-validation grouped by patient on CT and MR pictures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from vesalius.errors import CohortError, UsageError, did_you_mean
from vesalius.networks.pretrained import PRETRAINED
from vesalius.networks.sentence import has_sentences
from vesalius.tasks.augmentation import any_way_up, mirror_is_harmless, value_changes
from vesalius.tasks.cases import Case
from vesalius.tasks.normalizing import method_name
from vesalius.tasks.retrieve.pairs import CAPTIONS
from vesalius.training.device import best_precision
from vesalius.types import Json

LARGEST = 224  # pixels of the longest side that the frozen encoder sees
TRAINED, SMALL = 128, 48  # pixels that a twin is trained on; up to which it keeps full resolution
MODELS = ("auto", "frozen", "resnet18", *PRETRAINED)
TOWERS = 3  # of images, each from its own random weights; their cosines are averaged
TOWER_STEPS = 300
SLICES = 8
MAX_EPOCHS = 60


def fingerprint(train: Sequence[Case]) -> Json:
    """Return what the plan rests on: counts, shapes, modalities of the training images.

    Raises:
        CohortError: fewer than ten training images.
    """
    rows = [case.rows[0] for case in train]
    if len(rows) < 10:
        raise CohortError(
            f"the training subset holds {len(rows)} images, and pairs need ten at least; give more "
            "images, or check the split"
        )
    shapes = np.array([row["shape"] for row in rows])
    return {
        "images": len(rows),
        "patients": len({row["patient"] or row["key"] for row in rows}),
        "modalities": dict(sorted(Counter(row["modality"] or "" for row in rows).items())),
        "body_parts": dict(sorted(Counter(row.get("body_part") or "" for row in rows).items())),
        "volumes": int((shapes[:, 3] > 1).sum()),
        "color": int(((shapes[:, 0] >= 3) & (shapes[:, 3] == 1)).sum()),
        "median_side": float(np.median(shapes[:, 1:3].max(axis=1))),
        "worded": sum(bool((row["words"] or "").strip()) for row in rows),
    }


def decide(
    found: Json,
    *,
    kinds: Sequence[str],
    labels: Sequence[str],
    model: str,
    budget: Json,
    normalize: str = "auto",
) -> Json:
    """Return the decisions that follow from a fingerprint and from what is installed.

    Args:
        found: of `fingerprint`.
        kinds: of `pairs.PAIRS`.
        labels: that pairs share.
        model: `auto` (towers on frozen features, and a twin trained as a whole where there are
            pairs of images), `frozen` (towers alone), or the twin's network.
        budget: `{"minutes": m}` or `{"steps": n}`.
        normalize: an intensity method, or `auto`.

    Raises:
        UsageError: an unknown model.
    """
    if model not in MODELS:
        raise UsageError(
            f"model must be one of {', '.join(MODELS)}, got '{model}'.{did_you_mean(model, MODELS)}"
        )
    side = found["median_side"]
    size = 64 if side <= 64 else min(LARGEST, _up(side, 32))
    color = found["color"] == found["images"]
    channels = 3 if found["color"] else 1
    mirrored = mirror_is_harmless(found["modalities"], color=color)
    images = [kind for kind in kinds if kind != CAPTIONS]
    tower = {
        "count": TOWERS,
        "hidden": 512,
        "dimension": 64,
        "lost": 0.2,
        "dropout": 0.5,
        "batch": 192,
        "steps": TOWER_STEPS,
        "optimizer": _optimizer(1e-3, 0.1),
    }
    return {
        "pairs": list(kinds),
        "labels": list(labels),
        "input": {"size": size, "slices": SLICES, "spatial_dims": 2, "channels": channels},
        "normalization": method_name("display" if normalize == "auto" else normalize),
        "frozen": {
            "encoder": PRETRAINED[0],
            "size": size,
            "channels": channels,
            "volumes": False,
            "mirror": mirrored,
        },
        "objective": {"loss": "supcon", "temperature": 0.1, "margin": 0.5, "words": 1.0},
        "ridge": {"strength": 0.3, "attributes": 0.33, "directions": 128, "share": 0.5},
        "tower": tower,
        "words": _words(found) if CAPTIONS in kinds else None,
        "networks": [_twin(model, found, channels, mirrored, color=color)]
        if images and model != "frozen"
        else [],
        "precision": best_precision(),
        "budget": budget,
    }


def cache_bytes(found: Json, decisions: Json) -> int:
    """Return what prepared views and features of training and validation take on disk, about."""
    shown = decisions["input"]
    views = found["images"] + found["volumes"] * (shown["slices"] - 1)
    pixels = 2 * shown["channels"] * shown["size"] ** 2 if decisions["networks"] else 0
    return int(1.4 * (views * pixels + found["images"] * 4 * 1752))


def _words(found: Json) -> Json:
    return {
        "sentences": has_sentences(),
        "directions": min(256, max(8, found["worded"] // 4)),
        "hidden": 512,
        "dimension": 64,
        "lost": 0.3,
        "dropout": 0.5,
        "temperature": 0.08,
    }


def _twin(model: str, found: Json, channels: int, mirrored: bool, *, color: bool) -> Json:
    """Return the plan's entry of the network whose twins see two images."""
    kinds = found["modalities"]
    any_way = any_way_up(kinds, color=color)
    side = found["median_side"]
    tiny = side <= SMALL
    name = ("resnet18" if tiny else PRETRAINED[0]) if model == "auto" else model
    pretrained = name in PRETRAINED
    size = _up(side, 4) if tiny else min(TRAINED, _up(side, 16))
    stem = "large" if pretrained or size > 64 else "small" if size <= SMALL else "medium"
    width = {} if pretrained else {"width": 64 if stem == "large" else 32}
    return {
        "name": f"{name}-{size}",
        "network": {
            "name": name,
            "in_channels": channels,
            "options": {"stem": stem, **width},
            "weights": "imagenet" if pretrained else "random",
        },
        "size": max(size, 64) if pretrained else size,
        "dimension": 128,
        "mirror": mirrored,
        "augmentation": {
            "rotation": 180.0 if any_way else 15.0,
            "scale": 0.15,
            "shift": 0.08,
            "flips": [0, 1] if any_way else [0] if mirrored else [],
            **value_changes(kinds, color=color),
        },
        "batch": 64 if found["images"] >= 2000 and tiny else 32,
        "optimizer": _optimizer(3e-4 if pretrained else 1e-3, 0.02, ema=0.99),
        "max_epochs": MAX_EPOCHS,
    }


def _optimizer(lr: float, weight_decay: float, **more: float) -> Json:
    return {"name": "AdamW", "lr": lr, "weight_decay": weight_decay, "clip_norm": 5.0, **more}


def _up(value: float, multiple: int) -> int:
    return max(multiple, int(-(-value // multiple) * multiple))
