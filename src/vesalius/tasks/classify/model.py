# SPDX-License-Identifier: Apache-2.0
"""A classifier of sets: every view is encoded alone, a case is the weighted mean of its views.

Zaheer et al.: Deep Sets, NeurIPS 2017. The mean does not know an order, and takes whatever views
there are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from vesalius.errors import UsageError
from vesalius.networks import build
from vesalius.networks.resnet import ResNet
from vesalius.types import Array, Json


class SetClassifier(nn.Module):
    """Encoder, weighted mean over the views of each case, dropout and a linear layer."""

    def __init__(self, decisions: Json) -> None:
        super().__init__()
        network = decisions["network"]
        encoder = build(
            network["name"],
            spatial_dims=network["spatial_dims"],
            in_channels=network["in_channels"],
            out_channels=len(decisions["classes"]),
            **network["options"],
        )
        if not isinstance(encoder, ResNet):
            raise UsageError(
                f"a classifier's model must be one of resnet10, resnet18, resnet34, resnet50, got "
                f"'{network['name']}'"
            )
        self.encoder = encoder
        self.dropout = nn.Dropout(decisions["dropout"])

    def encode(self, views: Tensor) -> Tensor:
        """Return one embedding per view: `(M, C, ...)` -> `(M, features)`."""
        return self.encoder.encode(views)

    def classify(self, embeddings: Tensor, pooling: Tensor) -> Tensor:
        """Return logits `(N, classes)` from `(M, features)` and weights `(N, M)`."""
        logits: Tensor = self.encoder.head(self.dropout(pooling @ embeddings.float()))
        return logits

    def forward(self, views: Tensor, pooling: Tensor) -> Tensor:
        """Return logits `(N, classes)` of N cases.

        Args:
            views: `(M, C, ...)` of all cases together.
            pooling: `(N, M)`, each row the weights of one case's views, summing to 1.
        """
        return self.classify(self.encode(views), pooling)


def pooling_weights(counts: Sequence[Sequence[int]]) -> Array:
    """Return `(cases, views)` weights from the number of views of each image of each case.

    Every image of a case weighs the same, and so does every view of an image.
    """
    total = sum(sum(case) for case in counts)
    out = np.zeros((len(counts), total), np.float32)
    place = 0
    for row, case in enumerate(counts):
        for views in case:
            out[row, place : place + views] = 1 / (views * len(case))
            place += views
    return out


def new_model(decisions: Json, seed: int) -> SetClassifier:
    """Return a model with weights drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SetClassifier(decisions)
