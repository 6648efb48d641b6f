# SPDX-License-Identifier: Apache-2.0
"""A copy of a network for inference alone: normalization folded into the convolution before it.

In evaluation mode a batch normalization is an affine map of each channel, and so part of a
convolution's weights (Jacob et al., CVPR 2018, section 3.2). Channels lie innermost in memory, as
CPUs like them. Answers stay the same to rounding.
"""

from __future__ import annotations

import copy
import itertools

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fused(network: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode with every pair of neighbors in a `Sequential` folded."""
    copied = copy.deepcopy(network).eval()
    for module in list(copied.modules()):
        if not isinstance(module, nn.Sequential):
            continue
        names = list(module._modules)
        for first, second in itertools.pairwise(names):
            one, two = module._modules[first], module._modules[second]
            if isinstance(one, nn.Conv2d) and isinstance(two, nn.BatchNorm2d):
                module._modules[first] = fuse_conv_bn_eval(one, two)
                module._modules[second] = nn.Identity()
    return copied.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
