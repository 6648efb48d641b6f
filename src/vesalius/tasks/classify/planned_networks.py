# SPDX-License-Identifier: Apache-2.0
"""The networks of a classifier's plan: which are trained, on what size, how."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vesalius.errors import UsageError, did_you_mean
from vesalius.networks import IMAGE_NETWORKS
from vesalius.networks.pretrained import PRETRAINED
from vesalius.tasks.targets import Target
from vesalius.types import Json

SMALL = 48  # pixels up to which a network keeps full resolution in its first layers
TRAINED = 128  # pixels of the longest side that a network is trained on
VOLUMETRIC = 40  # voxels up to which a volume is seen whole, by 3D convolutions
VIEWS = 8  # of one case in one training step
MAX_EPOCHS = 100
WAYS = ("imagenet", "inflate", "acs", "slices")


def networks_to_train(name: str, ways: Sequence[str], common: Json, target: Target) -> list[Json]:
    """Return the plan's entry of each network that is trained end to end.

    Args:
        name: of the model that is asked for: `auto`, `frozen` or a network's.
        ways: of `WAYS`, what follows the name.
        common: what `plan.decide` found for all networks.
        target: what is learned.

    Raises:
        UsageError: an unknown name or way, or one that these images do not allow.
    """
    if name == "frozen":
        return []
    if name != "auto":
        return [_network(name, ways, common, target)]
    own = _network("resnet18", [], common, target)
    if common["size"] <= SMALL or common["whole"]:
        return [own]
    # Which is better depends on how much the images resemble photographs: validation tells.
    return [_network(PRETRAINED[0], ["imagenet"], common, target), own]


def _network(name: str, ways: Sequence[str], common: Json, target: Target) -> Json:
    if name not in IMAGE_NETWORKS:
        raise UsageError(
            f"model must be auto, frozen or one of {', '.join(IMAGE_NETWORKS)}, got '{name}'."
            f"{did_you_mean(name, ('auto', 'frozen', *IMAGE_NETWORKS))}"
        )
    strange = sorted(set(ways) - set(WAYS)) or len(set(ways)) < len(ways)
    if strange or ("inflate" in ways and "imagenet" not in ways):
        raise UsageError(
            f"after a network's name may stand {', '.join(':' + way for way in WAYS)} (inflate "
            f"with imagenet), got '{':'.join((name, *ways))}'"
        )
    if "imagenet" in ways and name not in PRETRAINED:
        raise UsageError(f"pretrained weights exist for {', '.join(PRETRAINED)}, not for '{name}'")
    if "slices" in ways and not common["volumes"]:
        raise UsageError(":slices is for volumes, and these images have one slice each")
    if {"inflate", "acs"} & set(ways) and not common["whole"]:
        raise UsageError(
            f":inflate and :acs are for volumes of at most {VOLUMETRIC} voxels a side; others are "
            "seen as slices"
        )
    pretrained = "imagenet" in ways
    size = common["size"]
    if not common["whole"]:
        size = min(size, TRAINED)
        if pretrained:
            size = max(size, 64)
    stem = "small" if size <= SMALL else "medium" if size <= 64 else "large"
    if common["whole"]:
        stem = "medium"  # "large" leaves one voxel of 28, on which batches cannot be normalized
    elif pretrained:
        stem = "large"
    options: Json = {"stem": stem}
    if name.startswith("resnet"):
        options["width"] = _width(stem)
    return {
        "name": f"{name}-{size}",
        "network": {
            "name": name,
            "spatial_dims": 3 if common["whole"] else 2,
            "in_channels": common["channels"],
            "options": options,
            "weights": "imagenet" if pretrained else "random",
            "volumes": next((way for way in ("inflate", "acs") if way in ways), ""),
        },
        "size": size,
        "pooling": common["pooling"],
        "facts": common["facts"],
        "mirror": common["mirrored"],
        "views": VIEWS,
        "dropout": 0.2,
        "augmentation": common["augmentation"],
        "batch": 8 if common["several"] else 64 if common["cases"] >= 2000 else 32,
        "optimizer": {
            "name": "AdamW",
            "lr": 3e-4 if pretrained and not common["whole"] else 1e-3,
            "weight_decay": 0.02,
            "clip_norm": 5.0,
            "ema": 0.99,
        },
        "label_smoothing": 0.0 if target.kind == "regression" else 0.05,
        "max_epochs": MAX_EPOCHS,
    }


def _width(stem: str) -> int:
    """Return the first stage's channels: half where it runs at full resolution on a CPU."""
    return 64 if torch.cuda.is_available() or stem == "large" else 32
