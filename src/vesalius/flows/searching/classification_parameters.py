# SPDX-License-Identifier: Apache-2.0
"""What is searched of a classifier: for which data it exists, what it changes in a plan."""

from __future__ import annotations

import json
from collections.abc import Sequence

from vesalius.flows.searching.editing import (
    SMALLEST_BATCH,
    augmented,
    edit_optimizer,
    normalizations,
    strength,
)  # fmt: skip
from vesalius.tuning.space import FORMAT, Space
from vesalius.types import Json

NAMES = (
    "model", "normalization", "frozen_size", "size_factor", "width", "pooling", "batch", "lr",
    "weight_decay", "ema", "dropout", "label_smoothing", "augmentation",
)  # fmt: skip
MIXED = "+frozen"  # after a network's name: mixed with heads on frozen features
_FROZEN_SIZES = (64, 96, 128, 160, 192, 224)
_NETWORKS = ("cnn", "resnet10", "resnet18")
_OF_PICTURES = ("alexnet", "vgg11", "resnet34", "efficientnet_lite0:imagenet")
_OF_VOLUMES = ("resnet18:acs",)
_LARGEST = 224  # pixels of the longest side of an image


def candidate_models(decisions: Json) -> list[str]:
    """Return the models that make sense for some data, the cheapest first.

    Args:
        decisions: of the plan for them with the model `auto`.
    """
    whole = decisions["input"]["spatial_dims"] == 3
    mixed = [
        network["name"] + (":imagenet" if network["weights"] == "imagenet" else "") + MIXED
        for network in (spec["network"] for spec in decisions["networks"])
    ]
    names = [*_NETWORKS, *(_OF_VOLUMES if whole else _OF_PICTURES)]
    return ["frozen", "auto", *names, *mixed]


def declare(found: Json, decisions: Json, models: Sequence[str]) -> Space:
    """Return the space of a classifier, narrowed to what its data allow.

    Args:
        found: fingerprint of the training cases.
        decisions: of the plan for them with the model `auto`.
        models: that there is time for.
    """
    whole = decisions["input"]["spatial_dims"] == 3
    nets = [name for name in models if name not in ("frozen", "auto")]
    embedding = [name for name in models if name not in nets or name.endswith(MIXED)]
    held: Json = {"model": {"kind": "choice", "values": list(models)}}
    if not whole:  # values with a physical unit keep their window whatever the method
        held["normalization"] = normalizations(decisions["normalization"])
    if embedding and decisions["frozen"]:
        planned = decisions["frozen"][0]["size"]
        sizes = [planned, *(n for n in _FROZEN_SIZES if n != planned and n <= 2.5 * planned)]
        held["frozen_size"] = {"kind": "choice", "values": sizes, "when": {"model": embedding}}
    if nets:
        held |= {name: {**entry, "when": {"model": nets}} for name, entry in _of_networks(
            found, decisions, whole
        ).items()}  # fmt: skip
        residual = [name for name in nets if name.startswith("resnet")]
        if residual:
            held["width"] = {
                "kind": "choice", "values": [32, 16, 64], "when": {"model": residual},
            }  # fmt: skip
    return Space.from_json({"format": FORMAT, "parameters": held}, known=NAMES)


def _of_networks(found: Json, decisions: Json, whole: bool) -> Json:
    """Return the parameters of any network that is trained."""
    spec = decisions["networks"][0]
    most = max(16, min(128, found["cases"] // 2))
    batches = sorted({n for n in (8, 16, 32, 64, 128) if n <= most} | {spec["batch"]})
    held: Json = {
        "lr": {"kind": "float", "low": 1e-4, "high": 1e-2, "log": True},
        "weight_decay": {
            "kind": "float", "low": 1e-3, "high": 0.3, "log": True,
            "default": spec["optimizer"]["weight_decay"],
        },
        "batch": {"kind": "choice", "values": batches, "default": spec["batch"]},
        "dropout": {"kind": "float", "low": 0.0, "high": 0.6, "default": spec["dropout"]},
        "augmentation": strength(),
        "ema": {"kind": "choice", "values": [0.99, 0.9, 0.998]},
    }  # fmt: skip
    if decisions["target"]["kind"] != "regression":
        held["label_smoothing"] = {
            "kind": "float", "low": 0.0, "high": 0.2, "default": spec["label_smoothing"],
        }  # fmt: skip
    if not whole:
        held["size_factor"] = {"kind": "choice", "values": [1.0, 0.75, 1.5]}
    if found["images_per_case"] > 1.2:
        values = ["attention", "mean", "max", "transformer"]
        held["pooling"] = {"kind": "choice", "values": values}
    return held


def planned_model(parameters: Json) -> str:
    """Return the `model` that `vesalius plan` is asked for."""
    name: str = parameters["model"]
    return "auto" if name.endswith(MIXED) else name


def edited(decisions: Json, parameters: Json) -> Json:
    """Return a plan's decisions with a point's values in them.

    Args:
        decisions: of the plan with the model `planned_model`.
        parameters: a point of the space.
    """
    held: Json = json.loads(json.dumps(decisions))
    model = parameters["model"]
    if model.endswith(MIXED):
        held["networks"] = [n for n in held["networks"] if _is(n, model.removesuffix(MIXED))]
    if "normalization" in parameters:
        held["normalization"] = parameters["normalization"]
    for encoder in held["frozen"]:
        encoder["size"] = parameters.get("frozen_size", encoder["size"])
    if model not in ("frozen", "auto"):
        for spec in held["networks"]:
            _edit_network(spec, parameters)
    return held


def _is(spec: Json, model: str) -> bool:
    """Return whether a plan's network is the one that a model's name means."""
    name, _, way = model.partition(":")
    return bool(spec["network"]["name"] == name) and (way == "imagenet") == (
        spec["network"]["weights"] == "imagenet"
    )


def _edit_network(spec: Json, parameters: Json) -> None:
    for name in ("batch", "dropout", "label_smoothing", "pooling"):
        spec[name] = parameters.get(name, spec[name])
    edit_optimizer(spec["optimizer"], parameters, ("lr", "weight_decay", "ema"))
    if "width" in parameters:
        spec["network"]["options"]["width"] = parameters["width"]
    factor = parameters.get("size_factor", 1.0)
    if factor != 1:
        multiple = 4 if spec["size"] * factor <= 48 else 16
        size = round(spec["size"] * factor / multiple) * multiple
        spec["size"] = min(_LARGEST, max(multiple, size))
    spec["augmentation"] = augmented(spec["augmentation"], parameters)


def smaller(parameters: Json) -> Json | None:
    """Return a point that takes less memory, None where there is none."""
    if parameters.get("batch", 0) >= 2 * SMALLEST_BATCH:
        return {**parameters, "batch": parameters["batch"] // 2}
    if parameters.get("size_factor", 0.75) > 0.75:
        return {**parameters, "size_factor": 0.75}
    if parameters.get("frozen_size", _FROZEN_SIZES[0]) > _FROZEN_SIZES[0]:
        return {**parameters, "frozen_size": _FROZEN_SIZES[0]}
    return None


def like(parameters: Json) -> str:
    """Return a text that is equal where trials take about as long."""
    names = ("model", "size_factor", "width", "batch", "frozen_size")
    return " ".join(str(parameters.get(name, "")) for name in names)


def lowest(parameters: Json, top: int) -> int:
    """Return the first rung at which a point makes sense: frozen features take no steps."""
    return top if parameters["model"] == "frozen" else 0


def first(models: Sequence[str]) -> list[tuple[str, bool, str]]:
    """Return what is known to be good, in order: model, whether in full, and why."""
    known = [("frozen", True, "cheap"), ("auto", True, "what train does by itself")]
    usual = [name for name in models if name.endswith(MIXED) or name == "resnet18"]
    return [
        *(one for one in known if one[0] in models),
        *((name, False, "usual values") for name in usual),
    ]
