# SPDX-License-Identifier: Apache-2.0
"""How much memory training will take, reckoned before it: what decides patch and batch.

The network is walked once on tensors without memory, and what its backward pass needs is counted.
The same decisions give the same number on every machine.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vesalius.networks import build
from vesalius.tasks.segment.objective import objective
from vesalius.tasks.segment.slide import quarter_of
from vesalius.tasks.segment.structures import Structures, answers
from vesalius.types import Json

# Measured on CPUs: U-Nets with and without residual blocks, 2D and 3D, in bfloat16 and float32.
_PROCESS = 800 << 20  # PyTorch, its libraries, the cohort, the report
_PER_WEIGHT = 24  # bytes: weight, gradient, two moments, mean of the weights, and its half
# What is kept for the backward pass, counted in float32, is taken so often at the peak.
_TIMES = {"32-true": 2.4}
_TIMES_HALF = 2.0


def sums_bytes(decisions: Json, device: torch.device) -> int:
    """Return what sums over windows may take: a quarter of the device's memory, or the plan's."""
    allowed: int | None = decisions.get("memory")
    return quarter_of(device) if allowed is None else min(allowed // 4, quarter_of(device))


def training_bytes(decisions: Json) -> int:
    """Return the most memory that training by a plan will take, all in all, about.

    Of a GPU's plan it is the GPU's memory, and as much of the machine's.
    """
    network = decisions["network"]
    kept: dict[int, tuple[int, object]] = {}  # storages are held, so that none has another's place
    with torch.device("meta"):
        model = build(
            network["name"],
            spatial_dims=network["spatial_dims"],
            in_channels=network["in_channels"],
            out_channels=answers(decisions),
            **network["options"],
        )
        images = torch.empty(decisions["batch"], network["in_channels"], *decisions["patch"])
        codes = torch.empty(decisions["batch"], *decisions["patch"], dtype=torch.int64)
    own = {tensor.untyped_storage()._cdata for tensor in model.state_dict().values()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes(), storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        objective(model(images), codes, Structures.of(decisions))
    weights = sum(parameter.numel() for parameter in model.parameters())
    times = _TIMES.get(decisions["precision"], _TIMES_HALF)
    activations = sum(count for count, _ in kept.values())
    return _PROCESS + _PER_WEIGHT * weights + int(times * activations)
