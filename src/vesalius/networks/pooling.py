# SPDX-License-Identifier: Apache-2.0
"""Pooling of sets: from the embeddings of a case's images to one, whatever their order and number.

Mean and maximum: Zaheer et al., Deep Sets, NeurIPS 2017. Gated attention: Ilse, Tomczak, Welling,
Attention-based Deep Multiple Instance Learning, ICML 2018. Attention between the images: Lee et
al., Set Transformer, ICML 2019 (one self-attention block, then pooling by one learned seed).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vesalius.errors import UsageError

POOLINGS = ("mean", "max", "attention", "transformer")


class MeanPooling(nn.Module):
    """The mean: every image weighs the same."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features

    def forward(self, items: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Return `(N, features)` and each item's weight `(N, L)`.

        Args:
            items: `(N, L, features)`, rows padded at their end.
            present: `(N, L)`, False where there is padding.
        """
        weights = present / present.sum(1, keepdim=True)
        return _mix(weights.to(items.dtype), items), weights


class MaxPooling(nn.Module):
    """The maximum of each feature; an item's weight is the share of the features that it gives."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features

    def forward(self, items: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Return `(N, features)` and `(N, L)`, as `MeanPooling.forward` does."""
        lowest = torch.finfo(items.dtype).min
        masked = items.masked_fill(~present[..., None], lowest)
        pooled, place = masked.max(1)
        weights = torch.zeros_like(present, dtype=torch.float32)
        weights.scatter_add_(1, place, torch.ones_like(place, dtype=torch.float32))
        return pooled, weights / items.shape[2]


class GatedAttention(nn.Module):
    """A weighted mean whose weights a small gated network gives to each item."""

    def __init__(self, features: int, hidden: int = 64) -> None:
        super().__init__()
        self.features = features
        self.content = nn.Linear(features, hidden)
        self.gate = nn.Linear(features, hidden)
        self.score = nn.Linear(hidden, 1)
        nn.init.zeros_(self.score.weight)  # begins as the mean

    def forward(self, items: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Return `(N, features)` and `(N, L)`, as `MeanPooling.forward` does."""
        hidden = torch.tanh(self.content(items)) * torch.sigmoid(self.gate(items))
        scores = self.score(hidden)[..., 0].float().masked_fill(~present, -torch.inf)
        weights = torch.softmax(scores, dim=1)
        return _mix(weights.to(items.dtype), items), weights


class SetTransformer(nn.Module):
    """Items look at each other once; then one learned seed looks at all of them."""

    def __init__(self, features: int, heads: int = 4) -> None:
        super().__init__()
        self.features = features
        self.between = _Attention(features, heads)
        self.seed = nn.Parameter(torch.zeros(1, 1, features))
        nn.init.normal_(self.seed, std=features**-0.5)
        self.pool = _Attention(features, heads)

    def forward(self, items: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Return `(N, features)` and `(N, L)`, as `MeanPooling.forward` does."""
        items, _ = self.between(items, items, present)
        seeds = self.seed.expand(items.shape[0], -1, -1)  # `len` would fix it in an export
        pooled, weights = self.pool(seeds, items, present)
        return pooled[:, 0], weights[:, 0]


class _Attention(nn.Module):
    """Multi-head attention block of the paper: residual, normalization, a feed-forward layer."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(features, heads, batch_first=True)
        self.first, self.second = nn.LayerNorm(features), nn.LayerNorm(features)
        self.forward_layer = nn.Sequential(nn.Linear(features, features), nn.ReLU())

    def forward(self, queries: Tensor, items: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        found, weights = self.attention(queries, items, items, key_padding_mask=~present)
        hidden = self.first(queries + found)
        return self.second(hidden + self.forward_layer(hidden)), weights


def build_pooling(name: str, features: int) -> nn.Module:
    """Return the pooling `name` over items of `features` numbers.

    Raises:
        UsageError: an unknown name.
    """
    kinds = dict(
        zip(POOLINGS, (MeanPooling, MaxPooling, GatedAttention, SetTransformer), strict=True)
    )
    if name not in kinds:
        raise UsageError(f"pooling must be one of {', '.join(POOLINGS)}, got '{name}'")
    module: nn.Module = kinds[name](features)
    return module


def _mix(weights: Tensor, items: Tensor) -> Tensor:
    return torch.einsum("nl,nlf->nf", weights, items)
