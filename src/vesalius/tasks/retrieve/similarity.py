# SPDX-License-Identifier: Apache-2.0
"""Which places of two images make them alike: the cosine of their vectors, place by place.

A feature is the mean of a map over its places, so what the features of one image give to the cosine
is a sum over places: the slope of the cosine with regard to each feature, times what the map holds
there beyond an image without anything to tell (as Zhou et al., CVPR 2016, do with the logit of a
class; Stylianou et al., WACV 2019, with similarity). Of a linear head the sum is exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vesalius.tasks.retrieve.model import Head
from vesalius.types import Array


def places(head: Head, maps: Sequence[Tensor], other: Array, size: int) -> Array:
    """Return `(M, size, size)`: what each place of an image's views gives to the cosine.

    Its mean over all views and places is, of a linear head whose center gives zero, the cosine.

    Args:
        head: of the model.
        maps: of the views, `(M, channels, i, j)` each.
        other: `(d,)` of length one, the vector that the image is compared with.
        size: pixels of the views.
    """
    maps = [one.clone() for one in maps]  # those of inference mode take no part in gradients
    counts = [one.shape[1] for one in maps]
    with torch.enable_grad():
        features = torch.cat([one.mean((0, 2, 3)) for one in maps]).requires_grad_(True)
        vector = head(features[None])[0]
        length = vector.detach().norm().clamp(min=1e-12)
        cosine = (vector / length) @ torch.from_numpy(np.ascontiguousarray(other))
        (slope,) = torch.autograd.grad(cosine, features)
    found = torch.zeros(len(maps[0]), 1, size, size)
    slopes, centers = torch.split(slope, counts), torch.split(head.center, counts)
    parts = zip(maps, slopes, centers, strict=True)
    for one, weights, center in parts:
        beyond = one - center[:, None, None]
        heat = (weights[:, None, None] * beyond).sum(1, keepdim=True)
        found += functional.interpolate(heat, (size, size), mode="bilinear", align_corners=False)
    return np.asarray(found[:, 0].numpy())
