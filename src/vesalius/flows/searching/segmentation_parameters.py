# SPDX-License-Identifier: Apache-2.0
"""What is searched of a segmentation: for which data it exists, what it changes in a plan."""

from __future__ import annotations

import json
from collections.abc import Sequence

from vesalius.flows.searching.editing import (
    augmented,
    edit_optimizer,
    normalizations,
    strength,
)  # fmt: skip
from vesalius.networks import SEGMENTATION_NETWORKS
from vesalius.tuning.space import FORMAT, Space
from vesalius.types import Json

NAMES = (
    "model", "normalization", "width", "overlap", "batch", "lr", "weight_decay", "ema",
    "augmentation", "forced_foreground",
)  # fmt: skip
_WIDENED = ("unet", "resenc-unet")  # whose plan states the channels of each level
_MULTIPLE = 8  # of channels


def candidate_models(decisions: Json) -> list[str]:
    """Return the networks, the one that is planned by itself first."""
    planned = decisions["network"]["name"]
    return [planned, *(name for name in SEGMENTATION_NETWORKS if name != planned)]


def declare(found: Json, decisions: Json, models: Sequence[str]) -> Space:  # noqa: ARG001 - as of every task
    """Return the space of a segmentation, narrowed to what its data allow; see `SearchedTask`."""
    optimizer = decisions["optimizer"]
    batches = sorted({2, 4, 8, decisions["batch"]})
    held: Json = {
        "model": {"kind": "choice", "values": list(models)},
        "normalization": normalizations(decisions["normalization"]),
        "lr": {
            "kind": "float", "low": 2e-4, "high": 1e-2, "log": True, "default": optimizer["lr"],
        },
        "weight_decay": {
            "kind": "float", "low": 1e-3, "high": 0.1, "log": True,
            "default": optimizer["weight_decay"],
        },
        "ema": {"kind": "choice", "values": [0.99, 0.9, 0.998]},
        "batch": {"kind": "choice", "values": batches, "default": decisions["batch"]},
        "augmentation": strength(),
        "forced_foreground": {"kind": "choice", "values": [1 / 3, 0.1, 2 / 3]},
        "overlap": {"kind": "choice", "values": [0.5, 0.25]},
    }  # fmt: skip
    widened = [name for name in models if name in _WIDENED]
    if widened:
        held["width"] = {
            "kind": "choice", "values": [1.0, 0.5, 1.5], "when": {"model": widened},
        }  # fmt: skip
    return Space.from_json({"format": FORMAT, "parameters": held}, known=NAMES)


def planned_model(parameters: Json) -> str:
    """Return the `model` that `vesalius plan` is asked for."""
    return str(parameters["model"])


def edited(decisions: Json, parameters: Json) -> Json:
    """Return a plan's decisions with a point's values in them; see `SearchedTask`."""
    held: Json = json.loads(json.dumps(decisions))
    for name in ("normalization", "batch", "forced_foreground", "overlap"):
        held[name] = parameters.get(name, held[name])
    edit_optimizer(held["optimizer"], parameters, ("lr", "weight_decay", "ema"))
    held["augmentation"] = augmented(held["augmentation"], parameters)
    factor = parameters.get("width", 1.0)
    if factor != 1:
        options = held["network"]["options"]
        options["widths"] = [
            max(_MULTIPLE, round(width * factor / _MULTIPLE) * _MULTIPLE)
            for width in options["widths"]
        ]
    return held


def smaller(parameters: Json) -> Json | None:
    """Return a point that takes less memory, None where there is none."""
    if parameters.get("batch", 0) > 2:
        return {**parameters, "batch": parameters["batch"] // 2}
    if parameters.get("width", 0.0) > 0.5:
        return {**parameters, "width": 0.5}
    return None


def like(parameters: Json) -> str:
    """Return a text that is equal where trials take about as long."""
    return " ".join(str(parameters.get(name, "")) for name in ("model", "width", "batch"))


def lowest(parameters: Json, top: int) -> int:  # noqa: ARG001 - as of every task
    """Return the first rung at which a point makes sense."""
    return 0


def first(models: Sequence[str]) -> list[tuple[str, bool, str]]:
    """Return what is known to be good, in order: model, whether in full, and why."""
    planned, *others = models
    usual = [(name, False, "usual values") for name in others]
    return [(planned, True, "what train does by itself"), *usual]
