# SPDX-License-Identifier: Apache-2.0
"""Names of tensors in published ResNet, VGG and AlexNet weights, and what they are called here.

The published names are those of the torchvision package (timm and MONAI share them for residual
networks): `layer1.0.conv2.weight`, `features.3.bias`, `classifier.6.weight`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# Within a residual block: the n-th convolution and normalization, in steps of three layers.
_BLOCK = re.compile(r"layer(\d)\.(\d+)\.(conv|bn|downsample)\.?(\d)\.(\w+)")
_RESNET = {"conv1.": "stem.0.", "bn1.": "stem.1.", "fc.": "head."}
# The layers' numbers are the same; the last one is `head`.
_PLAIN = {"features.": "convolutions.", "classifier.6.": "head.", "classifier.": "hidden."}


def own_names(network: str, published: Iterable[str]) -> dict[str, str]:
    """Return this package's name for each tensor name of a published file of `network`.

    Names that are no published ones keep themselves, so a file of this package passes unchanged.
    """
    names = list(published)
    if network.startswith("resnet"):
        return _resnet(names)
    if network.startswith("vgg") or network == "alexnet":
        return {name: _renamed(name, _PLAIN) for name in names}
    return {name: name for name in names}


def _renamed(name: str, prefixes: dict[str, str]) -> str:
    for old, new in prefixes.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _resnet(names: list[str]) -> dict[str, str]:
    blocks = sorted({(int(m[1]), int(m[2])) for m in map(_BLOCK.fullmatch, names) if m})
    own: dict[str, str] = {}
    for name in names:
        match = _BLOCK.fullmatch(name)
        if not match:
            own[name] = _renamed(name, _RESNET)
            continue
        stage, block, kind, number, tensor = match.groups()
        place = blocks.index((int(stage), int(block)))
        if kind == "downsample":
            layer = f"shortcut.{number}"
        else:
            layer = f"branch.{3 * (int(number) - 1) + (kind == 'bn')}"
        own[name] = f"stages.{place}.{layer}.{tensor}"
    return own
