# SPDX-License-Identifier: Apache-2.0
"""Layers chosen by the number of spatial axes, so that one definition serves 2D and 3D."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

# How fast a network's first layers shrink the image: "large" is the paper's own, "small" keeps
# the full resolution of inputs up to about 48 pixels, "medium" lies between.
Stem = Literal["small", "medium", "large"]


class Conv3d(nn.Conv3d):
    """PyTorch's convolution, in 32 bits where the kernel is deeper than the map.

    There, on CPUs that compute in bfloat16, torch 2.13 gives a gradient of the weights that is
    memory nobody wrote to (oneDNN; kernel 3 on a map of 2 x any x any).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map `(N, C, i, j, k)`."""
        if x.shape[2] >= self.kernel_size[0]:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.to(self.weight.dtype))


class InstanceNorm2d(nn.InstanceNorm2d):
    """PyTorch's instance normalization, of images, by its faster kernels."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize each channel of each item of `(N, C, i, j)`."""
        return super().forward(x) if torch.compiler.is_exporting() else _each_normalized(self, x)


class InstanceNorm3d(nn.InstanceNorm3d):
    """PyTorch's instance normalization, of volumes, by its faster kernels."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize each channel of each item of `(N, C, i, j, k)`."""
        return super().forward(x) if torch.compiler.is_exporting() else _each_normalized(self, x)


def _each_normalized(norm: nn.InstanceNorm2d | nn.InstanceNorm3d, x: Tensor) -> Tensor:
    """Normalize each channel of each item.

    Torch 2.13 copies what it normalizes so, unless each channel is called a group. With channels
    innermost, its groups add up a map's values one after the other, which 32 bits do not bear.
    """
    if x.stride(1) != 1 or x.shape[1] == 1 or torch.is_grad_enabled():
        return functional.group_norm(
            x.contiguous(), norm.num_features, norm.weight, norm.bias, norm.eps
        )
    rows = x.movedim(1, -1).flatten(1, -2)  # (N, voxels, C)
    mean = rows.sum(1, dtype=torch.float32) / rows.shape[1]
    square = (rows * rows).sum(1, dtype=torch.float32) / rows.shape[1]
    variance = (square - mean**2).clamp_min(0)
    items = [
        functional.batch_norm(item[None], mu, var, norm.weight, norm.bias, eps=norm.eps)
        for item, mu, var in zip(x, mean, variance, strict=True)
    ]
    return items[0] if len(items) == 1 else torch.cat(items)


Conv: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: Conv3d}
ConvTranspose: dict[int, type[nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BatchNorm: dict[int, type[nn.Module]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
InstanceNorm: dict[int, type[nn.Module]] = {2: InstanceNorm2d, 3: InstanceNorm3d}
MaxPool: dict[int, type[nn.Module]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
AvgPool: dict[int, type[nn.Module]] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
AdaptiveAvgPool: dict[int, type[nn.Module]] = {
    2: nn.AdaptiveAvgPool2d,
    3: nn.AdaptiveAvgPool3d,
}

_CELLS_K = 3  # at most, along the last axis of a volume


class FittingMaxPool(nn.Module):
    """Max pooling whose window never exceeds the map: small images and thin volumes pass too.

    Where the map is at least `size` wide it is the ordinary pooling without padding; a map of one
    voxel along an axis stays as it is there. Serves 2 and 3 spatial axes.
    """

    def __init__(self, size: int, stride: int) -> None:
        super().__init__()
        self.size, self.stride = size, stride

    def forward(self, x: Tensor) -> Tensor:
        """Pool `(N, C, ...)` along all spatial axes."""
        window = [min(self.size, length) for length in x.shape[2:]]
        pool = functional.max_pool2d if x.ndim == 4 else functional.max_pool3d
        pooled: Tensor = pool(x, window, self.stride)
        return pooled


class Dropped(nn.Module):
    """In the place of layers that an encoder does without: takes their weights and keeps none.

    So the state of a whole classifier loads, strictly, into an encoder of its class.
    """

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        """Let the weights of the layers that are not here pass."""


def enlarge(x: Tensor, factor: int) -> Tensor:
    """Return `(N, C, ...)` with each side `factor` times as long, interpolated linearly.

    Voxel centers keep their places (corners are not aligned). Serves 2 and 3 spatial axes.
    """
    mode = "bilinear" if x.ndim == 4 else "trilinear"
    return functional.interpolate(x, scale_factor=factor, mode=mode, align_corners=False)


def grid(dims: int, cells: int) -> tuple[int, ...]:
    """Return the cells an axis that maps are averaged to before fully connected layers.

    `(cells, cells)` for images; for volumes at most three along the last axis, since the weights
    that follow grow with the product.
    """
    return (cells, cells) if dims == 2 else (cells, cells, min(cells, _CELLS_K))


def initialize_plain(network: nn.Module) -> None:
    """Draw weights of convolutions and of hidden linear layers by He et al. 2015, biases zero.

    Keeps the scale of activations through ReLU layers (ICCV 2015, equation 14). The last layer,
    `network.head`, gets a standard deviation of 0.01, as Krizhevsky et al. 2012 gave theirs.
    """
    for module in network.modules():
        if not isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear):
            continue
        if module is network.head:
            nn.init.normal_(module.weight, std=0.01)
        else:
            nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def initialize_by_fan_out(network: nn.Module) -> None:
    """Draw weights of convolutions by He et al. 2015, from the outputs that an input goes to.

    Groups are counted: a depthwise filter goes to one channel alone.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            spread = (2 * module.groups / (module.weight[:, 0].numel())) ** 0.5
            nn.init.normal_(module.weight, std=spread)
