# SPDX-License-Identifier: Apache-2.0
"""Fingerprint of the cases -> every decision of a classification run."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vesalius.errors import CohortError, UsageError
from vesalius.networks.onnx_encoder import OnnxEncoder
from vesalius.networks.pooling import POOLINGS
from vesalius.networks.pretrained import PRETRAINED
from vesalius.tasks.augmentation import any_way_up, mirror_is_harmless, value_changes
from vesalius.tasks.balance import balancing, case_counts
from vesalius.tasks.cases import Case
from vesalius.tasks.classify.batch import FACTS
from vesalius.tasks.classify.planned_networks import SMALL, VOLUMETRIC, networks_to_train
from vesalius.tasks.normalizing import method_name
from vesalius.tasks.slices import depth_axis, slices_to_show
from vesalius.tasks.targets import Target
from vesalius.training.device import best_precision
from vesalius.types import Json, PathLike

LARGEST = 224  # pixels of the longest side that is kept of an image
# Pictures are taken as a viewer shows them: of MAD, own range and display, the last had the best
# cross-validated loss on frozen features of CT and MR pictures, ultrasound and stained cells, and
# an equal one on fundus. Of volumes seen whole, MAD has: a mean along an axis is no picture.
VALUES = "display"
_COUNTED = dict(zip(FACTS, ("modalities", "planes", "scanners"), strict=True))
_KNOWN = 10  # images that a fact's value needs to be told apart


def fingerprint(train: Sequence[Case], target: Target) -> Json:
    """Return what the plan rests on: counts, shapes, facts of the training images.

    Raises:
        CohortError: no training case, or a single answer among them.
    """
    rows = [row for case in train for row in case.rows]
    found = {case.truth for case in train}
    if len(found) < 2:
        raise CohortError(
            f"the training subset holds {len(train)} cases of {len(found)} class(es); it needs "
            "two classes at least: check the labels and the split"
        )
    shapes = np.array([row["shape"] for row in rows])
    return {
        "cases": len(train),
        "images": len(rows),
        "images_per_case": float(np.mean([len(case.rows) for case in train])),
        "cases_per_class": case_counts(target, [case.truth for case in train]),
        **{name: _count(rows, fact) for fact, name in _COUNTED.items()},
        "volumes": int((shapes[:, 3] > 1).sum()),
        "color": int(((shapes[:, 0] >= 3) & (shapes[:, 3] == 1)).sum()),
        "median_depth": _depth(rows),
        "median_side": float(np.median(shapes[:, 1:3].max(axis=1))),
        "median_longest_side": float(np.median(shapes[:, 1:].max(axis=1))),
    }


def decide(
    found: Json,
    target: Target,
    truths: Sequence[str],
    *,
    model: str,
    budget: Json,
    case: str,
    normalize: str = "auto",
    encoder: Json | None = None,
) -> Json:
    """Return the decisions that follow from a fingerprint; a pure function.

    Args:
        found: of `fingerprint`.
        target: with the scale of the training truths.
        truths: of the training cases, for the balance of classes.
        model: `auto` (frozen features and a network, mixed), `frozen` (features alone: seconds to
            train), or a name of `networks.IMAGE_NETWORKS`; after it `:imagenet` asks for
            pretrained weights, and of volumes that are seen whole `:inflate` or `:acs` for a 3D
            network made of a 2D one, `:slices` for a 2D network on slices.
        budget: `{"minutes": m}` or `{"steps": n}`.
        case: what one label applies to.
        normalize: an intensity method, or `auto`.
        encoder: a file of the user's in place of the pretrained encoder, see
            `describe_encoder`.

    Raises:
        UsageError: an unknown model, or an encoder that cannot see these images.
    """
    name, *ways = model.split(":")
    if name in ("auto", "frozen") and ways:
        raise UsageError(f"ways belong to one network's name, got '{model}'; leave ':…' out")
    if name not in ("auto", "frozen") and encoder is not None:
        raise UsageError(f"an encoder is used by the models auto and frozen, not by '{name}'")
    volumes = found["volumes"] == found["images"]
    whole = volumes and found["median_longest_side"] <= VOLUMETRIC and "slices" not in ways
    side = found["median_longest_side"] if whole else found["median_side"]
    size = _up(side, 4) if side <= SMALL else min(LARGEST, _up(side, 16))
    channels = 3 if found["color"] and not whole else 1
    facts = {
        fact: [value for value, count in found[_COUNTED[fact]].items() if value and count >= _KNOWN]
        for fact in FACTS
    }
    facts = {fact: values if len(values) > 1 else [] for fact, values in facts.items()}
    several = found["images_per_case"] > 1.2
    kinds, color = found["modalities"], found["color"] == found["images"]
    mirrored = mirror_is_harmless(kinds, color=color)
    any_way = any_way_up(kinds, color=color)
    weights = balancing(target, truths)
    common = {
        "facts": facts,
        "pooling": "attention" if several else "mean",
        "several": several or (found["volumes"] > 0 and not whole),
        "mirrored": mirrored,
        "augmentation": {
            "rotation": 180.0 if any_way else 15.0,
            "scale": 0.15,
            "shift": 0.08,
            "flips": [0, 1] if any_way else [0] if mirrored else [],
            **value_changes(kinds, color=color),
        },
        "whole": whole,
        "volumes": found["volumes"] > 0,
        "cases": found["cases"],
        "size": size,
        "channels": channels,
    }
    return {
        "case": case,
        "target": target.to_json(),
        "classes": list(target.classes),
        "class_weights": weights,
        "facts": facts,
        "input": {
            "size": size,
            "slices": slices_to_show(found, size=size, channels=channels, budget=budget),
            "spatial_dims": 3 if whole else 2,
            "channels": channels,
        },
        "normalization": method_name(VALUES if normalize == "auto" and not whole else normalize),
        "frozen": _frozen(common, encoder) if name in ("auto", "frozen") else [],
        "networks": networks_to_train(name, ways, common, target),
        "precision": best_precision(),
        "budget": budget,
    }


def cache_bytes(found: Json, decisions: Json) -> int:
    """Return what the prepared views of training and validation take on disk, about."""
    side, dims = decisions["input"]["size"], decisions["input"]["spatial_dims"]
    view = 2 * decisions["input"]["channels"] * side**dims
    flat = found["images"] - (found["volumes"] if dims == 2 else 0)
    views = flat + (found["images"] - flat) * decisions["input"]["slices"]
    return int(1.4 * view * views)  # validation is about a third of training


def describe_encoder(path: PathLike) -> Json:
    """Return what a plan says of an encoder's file: its kind, digest, channels, axes and size.

    Raises what `networks.external.load_encoder` raises.
    """
    from vesalius.networks.external import load_encoder

    source = Path(path)
    network = load_encoder(source)
    if isinstance(network, OnnxEncoder):
        axes, channels, sizes = network.spatial_dims, network.in_channels, network.size
    else:
        first = next(p for p in network.parameters() if p.ndim > 3)  # type: ignore[attr-defined]
        axes, channels, sizes = first.ndim - 2, int(first.shape[1]), ()
    return {
        "file": f"encoder{source.suffix.lower()}",
        "digest": hashlib.sha256(source.read_bytes()).hexdigest()[:16],
        "spatial_dims": axes,
        "channels": channels,
        "size": next((int(n) for n in sizes if n), None),
    }


def _frozen(common: Json, encoder: Json | None) -> list[Json]:
    """Return the pretrained encoders that are not trained, and the heads to try on each."""
    size = 64 if common["size"] <= 64 else min(LARGEST, _up(common["size"], 32))
    heads: list[Json] = [
        {"name": "logistic-mean", "head": "logistic", "pooling": "mean"},
        {"name": "knn", "head": "knn", "pooling": "mean"},
        {"name": "mlp", "head": "mlp", "pooling": "mean", "dropout": 0.5},
    ]
    if common["pooling"] == "attention":
        heads += [
            {"name": "logistic-mean+max", "head": "logistic", "pooling": "mean+max"},
            *(
                {"name": f"mlp-{pooling}", "head": "mlp", "pooling": pooling, "dropout": 0.5}
                for pooling in POOLINGS
                if pooling != "mean"
            ),
        ]
    if encoder is not None:
        return [_from_file(encoder, common, heads)]
    return [
        {
            "encoder": PRETRAINED[0],
            "size": size,
            "channels": common["channels"],
            "volumes": common["whole"],
            "mirror": common["mirrored"],
            "heads": heads,
        }
    ]


def _from_file(encoder: Json, common: Json, heads: list[Json]) -> Json:
    """Return the plan's entry of a user's encoder; raise where it cannot see the images."""
    if encoder["channels"] != common["channels"]:
        raise UsageError(
            f"the encoder takes {encoder['channels']} channels, and the images have "
            f"{common['channels']}; give one that fits"
        )
    if encoder["spatial_dims"] == 3 and not common["whole"]:
        raise UsageError("the encoder takes volumes, and the plan shows these images in 2D")
    return {
        "encoder": "file",
        "file": encoder["file"],
        "digest": encoder["digest"],
        "size": encoder["size"] or common["size"],
        "channels": encoder["channels"],
        "volumes": common["whole"] and encoder["spatial_dims"] == 2,
        "mirror": common["mirrored"],
        "heads": heads,
    }


def _depth(rows: Sequence[Json]) -> float:
    """Return the median number of slices of the volumes among rows; 0 where there are none."""
    found = [
        row["shape"][1 + depth_axis(np.array(row["spacing"]), calibrated=row["calibrated"])]
        for row in rows
        if row["shape"][3] > 1
    ]
    return float(np.median(found)) if found else 0.0


def _count(rows: Sequence[Json], fact: str) -> dict[str, int]:
    return dict(sorted(Counter(row[fact] or "" for row in rows).items()))


def _up(value: float, multiple: int) -> int:
    return max(multiple, int(-(-value // multiple) * multiple))
