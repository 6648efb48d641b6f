# SPDX-License-Identifier: Apache-2.0
"""Layers chosen by the number of spatial axes, so that one definition serves 2D and 3D."""

from __future__ import annotations

from torch import nn

Conv: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
ConvTranspose: dict[int, type[nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BatchNorm: dict[int, type[nn.Module]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
InstanceNorm: dict[int, type[nn.Module]] = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
MaxPool: dict[int, type[nn.Module]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
