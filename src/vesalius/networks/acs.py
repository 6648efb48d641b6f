# SPDX-License-Identifier: Apache-2.0
"""2D networks made to read volumes: axial, coronal and sagittal convolutions (ACS).

Yang, Huang, He, Xu, Yang, Xu, Ni: Reinventing 2D Convolutions for 3D Images, IEEE Journal of
Biomedical and Health Informatics 2021. The output channels of each convolution are split in
three; one third filters in the plane (i, j), one in (i, k), one in (j, k). The weights stay those
of the 2D network, name by name and shape by shape, so pretrained ones load and nothing is added.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vesalius.errors import UsageError

_THIN_AXES = (2, 1, 0)  # the axis across axial (i, j), coronal (i, k) and sagittal (j, k) planes


class AcsConv(nn.Module):
    """A 2D convolution's weights over `(N, C, i, j, k)`, a third of the outputs in each plane.

    Equal to a 3D convolution whose cubic kernels hold the 2D ones in their middle slice, at the
    cost of the flat ones. Grouped convolutions are split group by group from three groups on
    (depthwise ones therefore by channels), and within each group below.

    Raises:
        UsageError: kernel, stride, padding or dilation differ between the two axes, which leaves
            the third undefined; or padding is neither zeros nor of a fixed width.
    """

    def __init__(self, flat: nn.Conv2d) -> None:
        super().__init__()
        if flat.padding_mode != "zeros" or flat.padding == "same":
            raise UsageError(
                f"an ACS convolution pads with a fixed number of zeros, got {flat}: give padding "
                "as a number"
            )
        padding = 0 if isinstance(flat.padding, str) else flat.padding  # "valid"
        self.kernel = _cubic(flat.kernel_size, "kernel_size", flat)
        self.stride = _cubic(flat.stride, "stride", flat)
        self.padding = _cubic(padding, "padding", flat)
        self.dilation = _cubic(flat.dilation, "dilation", flat)
        self.groups = flat.groups
        self.weight = flat.weight
        self.bias = flat.bias

    def forward(self, x: Tensor) -> Tensor:
        """Map `(N, inputs, i, j, k)` to `(N, outputs, i', j', k')`."""
        if self.kernel == 1:  # the three planes are one point
            weight = self.weight[..., None]
            return functional.conv3d(
                x, weight, self.bias, self.stride, self.padding, groups=self.groups
            )
        parts: list[Tensor] = []
        for axis, inputs, outputs, groups in _shares(
            self.groups, self.weight.shape[1], self.weight.shape[0]
        ):
            parts.append(self._plane(x[:, inputs], axis, outputs, groups))
        return torch.cat(parts, dim=1)

    def _plane(self, x: Tensor, axis: int, outputs: slice, groups: int) -> Tensor:
        """Convolve in the plane across `axis`, on the middle voxel of each window along it.

        Planes are images of one batch: 2D convolutions are several times as fast on a CPU as flat
        3D ones.
        """
        pads = [0] * 6  # for `pad`: the last axis first, both ends of each
        place = 2 * (2 - axis)
        pads[place : place + 2] = self._middle(x.shape[2 + axis])
        planes = functional.pad(x, pads).movedim(2 + axis, 1)[:, :: self.stride]  # (N, p, C, a, b)
        found = functional.conv2d(
            planes.flatten(0, 1).contiguous(memory_format=torch.channels_last),
            self.weight[outputs],
            None if self.bias is None else self.bias[outputs],
            self.stride,
            self.padding,
            self.dilation,
            groups,
        )
        return found.reshape(*planes.shape[:2], *found.shape[1:]).movedim(1, 2 + axis)

    def _middle(self, length: int) -> list[int]:
        """Return what to add (or cut, below zero) so that steps start and end mid-window."""
        reach = self.dilation * (self.kernel - 1)
        steps = (length + 2 * self.padding - reach - 1) // self.stride  # after the first window
        before = self.padding - self.dilation * (self.kernel // 2)
        return [before, steps * self.stride + 1 - length - before]

    def extra_repr(self) -> str:
        """Show shape and steps as the layer that it replaces does."""
        outputs, inputs = self.weight.shape[:2]
        return (
            f"{inputs * self.groups}, {outputs}, kernel={self.kernel}, stride={self.stride}, "
            f"padding={self.padding}, groups={self.groups}"
        )


def to_acs(network_2d: nn.Module) -> nn.Module:
    """Return a copy of `network_2d` that takes `(N, C, i, j, k)`.

    Its `state_dict` has the names and shapes of the 2D network's, so the one's weights load into
    the other. Adaptive pooling to a grid (a, b) averages over all of k, so that the linear layers
    that follow fit.

    Raises:
        UsageError: the network holds a 2D layer that has no counterpart here.
    """
    return _converted(copy.deepcopy(network_2d))


def _converted(module: nn.Module) -> nn.Module:
    for kind, convert in _COUNTERPARTS.items():
        if type(module) is kind:
            new: nn.Module = convert(module)
            return new.train(module.training)
    if type(module).__module__.startswith("torch.nn") and type(module).__name__.endswith("2d"):
        raise UsageError(
            f"{type(module).__name__} has no counterpart among ACS layers: use one of "
            f"{', '.join(kind.__name__ for kind in _COUNTERPARTS)}, or inflate the weights instead"
        )
    for name, child in module.named_children():
        setattr(module, name, _converted(child))
    return module


def _batch_norm(flat: nn.BatchNorm2d) -> nn.Module:
    norm = nn.BatchNorm3d(
        flat.num_features, flat.eps, flat.momentum, flat.affine, flat.track_running_stats
    )
    for name, parameter in flat.named_parameters(recurse=False):
        setattr(norm, name, parameter)
    for name, buffer in flat.named_buffers(recurse=False):
        setattr(norm, name, buffer)
    return norm


def _max_pool(flat: nn.MaxPool2d) -> nn.Module:
    return nn.MaxPool3d(
        **_sizes(flat),
        dilation=_cubic(flat.dilation, "dilation", flat),
        ceil_mode=flat.ceil_mode,
        return_indices=flat.return_indices,
    )


def _average_pool(flat: nn.AvgPool2d) -> nn.Module:
    if flat.divisor_override is not None:
        raise UsageError(f"an average over volumes has its own divisor, got {flat}")
    return nn.AvgPool3d(
        **_sizes(flat), ceil_mode=flat.ceil_mode, count_include_pad=flat.count_include_pad
    )


def _adaptive(kind: type[nn.Module]) -> Callable[[Any], nn.Module]:
    def convert(flat: Any) -> nn.Module:
        size = flat.output_size
        return kind((*((size, size) if isinstance(size, int) else size), 1))

    return convert


def _dropout(flat: nn.Dropout2d) -> nn.Module:
    return nn.Dropout3d(flat.p, flat.inplace)


_COUNTERPARTS: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    nn.Conv2d: AcsConv,
    nn.BatchNorm2d: _batch_norm,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _average_pool,
    nn.AdaptiveAvgPool2d: _adaptive(nn.AdaptiveAvgPool3d),
    nn.AdaptiveMaxPool2d: _adaptive(nn.AdaptiveMaxPool3d),
    nn.Dropout2d: _dropout,
}


def _sizes(pool: nn.Module) -> dict[str, int]:
    names = ("kernel_size", "stride", "padding")
    return {name: _cubic(getattr(pool, name), name, pool) for name in names}


def _cubic(sizes: int | tuple[int, ...], name: str, layer: nn.Module) -> int:
    if isinstance(sizes, int):
        return sizes
    if len(set(sizes)) > 1:
        raise UsageError(f"{name} must be one number for all axes, got {sizes} in {layer}")
    return sizes[0]


def _thirds(count: int) -> list[slice]:
    """Split `count` into three runs, the first ones longer by one where it does not divide."""
    ends = [0]
    for part in range(3):
        ends.append(ends[-1] + count // 3 + (part < count % 3))
    return [slice(start, end) for start, end in pairwise(ends)]


def _shares(groups: int, inputs: int, outputs: int) -> list[tuple[int, slice, slice, int]]:
    """Return (thin axis, input channels, output channels, groups) of each plane, in order.

    `inputs` counts the channels of one group, `outputs` those of all.
    """
    each = outputs // groups
    shares: list[tuple[int, slice, slice, int]] = []
    if groups >= 3:
        for axis, run in zip(_THIN_AXES, _thirds(groups), strict=True):
            ins = slice(run.start * inputs, run.stop * inputs)
            outs = slice(run.start * each, run.stop * each)
            shares.append((axis, ins, outs, run.stop - run.start))
        return shares
    for group in range(groups):
        ins = slice(group * inputs, (group + 1) * inputs)
        for axis, run in zip(_THIN_AXES, _thirds(each), strict=True):
            outs = slice(group * each + run.start, group * each + run.stop)
            if run.stop > run.start:
                shares.append((axis, ins, outs, 1))
    return shares
