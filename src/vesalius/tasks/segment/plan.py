# SPDX-License-Identifier: Apache-2.0
"""Fingerprint of images and masks -> every decision of a segmentation run.

The rules follow Isensee et al.: nnU-Net, Nature Methods 2021 (median spacing, patch shaped like
the median image, pooling per axis by spacing), cut down to what the machine at hand can train.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from vesalius.errors import BudgetError, UsageError, did_you_mean
from vesalius.networks import SEGMENTATION_NETWORKS
from vesalius.networks.pretrained import INPUT_SCALE
from vesalius.tasks.augmentation import any_way_up, segmentation_changes
from vesalius.tasks.normalizing import method_name
from vesalius.tasks.segment.choice import choose
from vesalius.tasks.segment.fingerprint import fingerprint as fingerprint
from vesalius.tasks.segment.footprint import training_bytes
from vesalius.tasks.segment.locate_plan import plan_locator
from vesalius.tasks.segment.neighbors import image_channels, plan_neighbors
from vesalius.tasks.segment.objective import described
from vesalius.tasks.segment.structures import Structures
from vesalius.training.device import best_precision
from vesalius.types import Array, Json

ANISOTROPIC = 3.0  # times coarser than the other axes
MIN_EDGE = 4  # voxels left at the coarsest level
MOST_LEVELS = 5
MOST_WIDTH = 256
MAX_EPOCHS = 400
LEAST_BATCH = 2
CHANNEL_DROPOUT = 0.1  # probability that a channel among several is left out of a patch
_STEMS = {"large": 128, "medium": 32}  # stem of an encoder -> shortest side of the patch for it
_PRETRAINED_CHANNELS = (1, 3)
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
_LIGHT_LIMIT = (2**16, 1)  # of a light network on a CPU, whose step costs a fraction


def decide(
    found: Json,
    *,
    model: str,
    budget: Json,
    normalize: str = "auto",
    labels: str = "",
    ignore: str = "",
    memory: int | None = None,
) -> Json:
    """Return the decisions that follow from a fingerprint and the device; a function of both.

    Args:
        found: of `fingerprint`.
        model: one of `SEGMENTATION_NETWORKS`, or `auto`.
        budget: `{"minutes": m}` or `{"steps": n}`.
        normalize: an intensity method, or `auto`.
        labels, ignore: what is to be learned and what counts nowhere, see `choice.choose`.
        memory: bytes that training may take; the patch, and the batch, shrink until it does.

    Raises:
        UsageError: an unknown model or label. BudgetError: the memory does not suffice.
    """
    if model not in ("auto", *SEGMENTATION_NETWORKS):
        raise UsageError(
            f"model must be auto or one of {', '.join(SEGMENTATION_NETWORKS)} for segment, got "
            f"'{model}'.{did_you_mean(model, ('auto', *SEGMENTATION_NETWORKS))}"
        )
    chosen = choose(found["labels"], found.get("overlaps", ()), labels=labels, ignore=ignore)
    dims, large = found["spatial_dims"], torch.cuda.is_available()
    color = dims == 2 and found["channels"] >= 3
    channels = 3 if color else found["channels"]
    beside = plan_neighbors(found, color=color)
    kinds = found["modalities"]
    inputs = channels * (1 + 2 * beside)
    name = _network(found, inputs, large=large) if model == "auto" else model
    limit, windows = _limits(name, dims, large=large)
    shape, spacing = _grid(found, dims, limit, windows)
    fine = np.flatnonzero(spacing < ANISOTROPIC * spacing.min()).tolist()
    decisions = {
        **chosen,
        "shares": _shares(found, chosen) if chosen["regions"] else [],
        "network": {
            "name": name,
            "spatial_dims": dims,
            "in_channels": inputs,
        },
        "neighbors": beside,
        "color": color,
        "channels": [] if color else found.get("channel_names", []),
        "channel_dropout": CHANNEL_DROPOUT if channels > 1 and not color else 0.0,
        "orientation": "RAS" if dims == 3 else "native",
        "spacing": [round(float(value), 4) for value in spacing],
        "patch": [],
        "batch": 0,
        "memory": memory,
        "forced_foreground": 1 / 3,
        "normalization": method_name(normalize),
        "augmentation": {
            "rotation": 180.0 if any_way_up(kinds, color=color) else 15.0,
            "scale": 0.2,
            "shift": 0.05,
            "flips": _flips(kinds, chosen["labels"], dims, color=color),
            "planes": [[a, b] for a in fine for b in fine if a < b],
            **segmentation_changes(kinds, color=color),
        },
        "loss": described(Structures.of(chosen)),
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
    whole = decisions | _network_and_patch(decisions, shape, spacing, limit, large=large)
    if memory is not None:
        whole = _within_memory(whole, shape, spacing, limit, large=large)
    return whole | {"locator": plan_locator(whole, shape, spacing, _topology)}


def _network(found: Json, channels: int, *, large: bool) -> str:
    """Return the network of `auto`: on a CPU, wide pictures begin with ImageNet's weights.

    Args:
        found: of `fingerprint`.
        channels: of the network's input.
        large: whether there is a GPU.
    """
    if large or found["spatial_dims"] != 2 or channels not in _PRETRAINED_CHANNELS:
        return "unet"
    limit, windows = _limits("light-unet", 2, large=large)
    shape, _ = _grid(found, 2, limit, windows)
    return "light-unet" if _stem(shape.tolist()) == "large" else "unet"


def _limits(name: str, dims: int, *, large: bool) -> tuple[int, int]:
    """Return the voxels of a patch, and the patches that the median image may be worth."""
    return (
        _LIGHT_LIMIT if name == "light-unet" and dims == 2 and not large else _LIMITS[dims, large]
    )


def _stem(patch: Sequence[int]) -> str:
    """Return the stem of an encoder for patches of that size."""
    return next((stem for stem, least in _STEMS.items() if min(patch) >= least), "small")


def _within_memory(whole: Json, shape: Array, spacing: Array, limit: int, *, large: bool) -> Json:
    """Return the decisions with the largest patch, then the largest batch, that the memory holds.

    Raises:
        BudgetError: the smallest patch does not fit.
    """
    memory, least = whole["memory"], (2 * MIN_EDGE) ** len(shape)
    while True:
        needed = training_bytes(whole | {"batch": LEAST_BATCH})
        if needed <= memory:
            break
        if limit <= least:
            raise BudgetError(
                f"training takes at least {needed / 1e9:.2f} GB, with patches of "
                f"{'x'.join(map(str, whole['patch']))} voxels, allowed are {memory / 1e9:.2f} GB; "
                "give more --memory, or a lighter --model (light-unet)"
            )
        limit = max(least, int(0.8 * limit))
        whole = whole | _network_and_patch(whole, shape, spacing, limit, large=large)
    while training_bytes(whole) > memory:
        whole = whole | {"batch": whole["batch"] - 1}
    return whole


def _network_and_patch(
    decisions: Json, shape: Array, spacing: Array, limit: int, *, large: bool
) -> Json:
    """Return `network`, `patch` and `batch` for patches of at most `limit` voxels, about."""
    name, dims = decisions["network"]["name"], len(shape)
    channels = decisions["network"]["in_channels"]
    patch, strides, kernels = _topology(shape, spacing, limit)
    weights = "random"
    if name in ("unet", "resenc-unet"):
        base = 32 if large else 16
        widths = [min(MOST_WIDTH, base * 2**level) for level in range(len(strides))]
        options: Json = {"widths": widths, "strides": strides, "kernels": kernels}
    else:
        stem = _stem(patch)
        options = {"stem": stem}
        patch = [_up(size, _COARSEST[stem]) for size in patch]
        if (
            name == "light-unet"
            and stem == "large"
            and channels in _PRETRAINED_CHANNELS
            and dims == 2
        ):
            weights = "imagenet"
            options["input_scale"] = INPUT_SCALE
    if name != "fcn":
        options["deep_supervision"] = True
    batch = (4 if dims == 2 else 2) * limit // int(np.prod(patch))
    return {
        "network": {
            "name": name,
            "spatial_dims": dims,
            "in_channels": channels,
            "weights": weights,
            "options": options,
        },
        "patch": [int(size) for size in patch],
        "batch": max(LEAST_BATCH, min(8, batch)),
    }


def cache_bytes(found: Json, decisions: Json) -> int:
    """Return what the prepared training images and masks take on disk, about."""
    dims = found["spatial_dims"]
    extent = np.prod(np.array(found["median_shape"]) * found["median_spacing"])
    grid = [*decisions["spacing"], *found["median_spacing"][dims:]]
    bytes_each = 2 * image_channels(decisions) + Structures.of(decisions).code_dtype.itemsize
    return int(1.2 * found["images"] * bytes_each * extent / np.prod(grid))


def _grid(found: Json, dims: int, limit: int, windows: int) -> tuple[Array, Array]:
    """Return shape and spacing of the median image on the plan's grid.

    Args:
        found: of `fingerprint`.
        dims: axes of the network.
        limit: voxels of a patch.
        windows: patches that the image may be worth.
    """
    spacing = _target_spacing(found, dims)
    extent = np.array(found["median_shape"][:dims]) * found["median_spacing"][:dims]
    while np.prod(extent / spacing) > windows * limit:  # coarsen the finer axes first
        spacing = np.where(spacing < 0.5 * spacing.max(), spacing * 1.03, spacing)
        if (spacing >= 0.5 * spacing.max()).all():
            spacing = spacing * 1.03
    shape = np.maximum(1, np.round(extent / spacing)).astype(int)
    while windows == 1 and (shape > _topology(shape, spacing, limit)[0]).any():
        spacing = spacing * 1.02  # a patch is to see the whole image
        shape = np.maximum(1, np.round(extent / spacing)).astype(int)
    return shape, spacing


def _shares(found: Json, chosen: Json) -> list[float]:
    """Return the share of the training images' voxels that each structure has."""
    shares = found["shares"]
    each = [sum(shares[str(v)] for v in values) for values in chosen["structures"].values()]
    return [round(min(1.0, share), 6) for share in each]


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
