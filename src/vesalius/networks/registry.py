# SPDX-License-Identifier: Apache-2.0
"""The table of networks: name -> module and function, imported only when it is built."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vesalius.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from torch import nn

# name -> (module, function), of what builds an `image_network.ImageNetwork`
_IMAGE: dict[str, tuple[str, str]] = {
    "cnn": ("vesalius.networks.cnn", "PlainCNN"),
    "alexnet": ("vesalius.networks.alexnet", "AlexNet"),
    "vgg11": ("vesalius.networks.vgg", "vgg11"),
    "vgg16": ("vesalius.networks.vgg", "vgg16"),
    "resnet10": ("vesalius.networks.resnet", "resnet10"),
    "resnet18": ("vesalius.networks.resnet", "resnet18"),
    "resnet34": ("vesalius.networks.resnet", "resnet34"),
    "resnet50": ("vesalius.networks.resnet", "resnet50"),
    "efficientnet_lite0": ("vesalius.networks.efficientnet_lite", "efficientnet_lite0"),
}
# name -> (module, function), of what builds a `segmentation_network.SegmentationNetwork`
_SEGMENTATION: dict[str, tuple[str, str]] = {
    "unet": ("vesalius.networks.unet", "UNet"),
    "fcn": ("vesalius.networks.fcn", "FCN"),
    "resenc-unet": ("vesalius.networks.residual_unet", "ResidualUNet"),
    "light-unet": ("vesalius.networks.light_unet", "LightUNet"),
}
NETWORKS = {**_IMAGE, **_SEGMENTATION}
IMAGE_NETWORKS = tuple(_IMAGE)  # what can encode or classify images
SEGMENTATION_NETWORKS = tuple(_SEGMENTATION)  # what can label voxels
# what a segmentation network can stand on: `image_network.Encoder`
ENCODERS = ("vgg11", "vgg16", "resnet10", "resnet18", "resnet34", "resnet50", "efficientnet_lite0")
STEMS = ("small", "medium", "large")


def build(
    name: str, *, spatial_dims: int, in_channels: int, out_channels: int, **options: Any
) -> nn.Module:
    """Build the network `name` with random weights.

    Args:
        name: a key of `NETWORKS`.
        spatial_dims: 2 for input `(N, C, i, j)`, 3 for `(N, C, i, j, k)`.
        in_channels: C of the input.
        out_channels: logits per image (classifiers) or per voxel (segmentation networks); 0 builds
            one of `ENCODERS` without its classifier (`image_network.Encoder`).
        options: what the architecture's own function takes.

    Raises:
        UsageError: for an unknown name, another number of axes, no outputs, an unknown stem or no
            width.
    """
    if name not in NETWORKS:
        raise UsageError(
            f"model must be one of {', '.join(NETWORKS)}, got '{name}'."
            f"{did_you_mean(name, NETWORKS)}"
        )
    if spatial_dims not in (2, 3):
        raise UsageError(f"spatial_dims must be 2 or 3, got {spatial_dims}")
    if out_channels < (name not in ENCODERS):
        raise UsageError(f"out_channels must be at least 1, got {out_channels}")
    if options.get("stem", STEMS[0]) not in STEMS:
        raise UsageError(f"stem must be one of {', '.join(STEMS)}, got '{options['stem']}'")
    if options.get("width", 1) < 1:
        raise UsageError(f"width must be at least 1 channel, got {options['width']}")
    module, function = NETWORKS[name]
    network: nn.Module = getattr(importlib.import_module(module), function)(
        spatial_dims=spatial_dims, in_channels=in_channels, out_channels=out_channels, **options
    )
    return network
