# SPDX-License-Identifier: Apache-2.0
"""Heads on frozen embeddings: nearest neighbors, a linear layer, small networks over sets.

Embeddings of a case's images are computed once; a head is trained on them in seconds. The linear
head is the mode of a Gaussian prior on its weights (L2), found by L-BFGS (Liu & Nocedal 1989) on
standardized features; its strength is chosen by cross-validation, see `crossfit`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vesalius.errors import UsageError
from vesalius.networks.pooling import build_pooling
from vesalius.tasks.classify.batch import pad
from vesalius.tasks.targets import Target
from vesalius.types import Array, Json

_STEPS = 120  # of L-BFGS
_EPOCHS, _BATCH, _RATE, _DECAY = 10, 32, 1e-3, 0.5
_HIDDEN = 128
_LOST = 0.3  # chance of a training case to lose one of its modalities, or some images
_UNTOLD = 0.2  # ... to come without its facts
_FAR = 5.0  # standard deviations beyond which a feature counts as so far


@dataclass(frozen=True, slots=True)
class Embedded:
    """Embeddings of some cases.

    Attributes:
        items: `(I, F)` of all images, case after case.
        facts: `(I, facts)` codes of `batch.fact_codes`.
        lengths: images of each case.
    """

    items: Tensor
    facts: Tensor
    lengths: tuple[int, ...]

    def take(self, places: Sequence[int] | Array) -> Embedded:
        """Return some of the cases, in the order of `places`."""
        if max(self.lengths) == 1:
            chosen = torch.as_tensor(np.asarray(places, np.int64))
            return Embedded(self.items[chosen], self.facts[chosen], (1,) * len(chosen))
        starts = torch.tensor((0, *self.lengths)).cumsum(0)
        rows = torch.cat([torch.arange(int(starts[p]), int(starts[p + 1])) for p in places])
        return Embedded(
            self.items[rows], self.facts[rows], tuple(self.lengths[int(p)] for p in places)
        )

    def padded(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return items `(N, L, F)`, facts `(N, L, facts)` and what is present `(N, L)`."""
        places, present = pad(self.lengths)
        return self.items[places], self.facts[places], present


class KnnHead(nn.Module):
    """Votes of the nearest training cases, by the cosine of their mean embeddings.

    As Caron et al. (DINO, ICCV 2021): each of the `k` nearest votes with `exp(cosine / 0.07)`.
    """

    bank: Tensor
    votes: Tensor
    center: Tensor

    def __init__(self, spec: Json, features: int, outputs: int) -> None:
        super().__init__()
        self.k = int(spec["k"])
        self.register_buffer("bank", torch.zeros(0, features))
        self.register_buffer("votes", torch.zeros(0, outputs))
        self.register_buffer("center", torch.zeros(features))

    def forward(self, cases: Embedded) -> Tensor:
        """Return mean votes `(N, ...)` in the form of `Target.probabilities`."""
        return self.on(*cases.padded())

    def on(self, items: Tensor, facts: Tensor, present: Tensor) -> Tensor:  # noqa: ARG002
        """Return the same from what `Embedded.padded` gives."""
        near = self.look(items, present) @ self.bank.T
        strength, place = near.topk(min(self.k, near.shape[1]), dim=1)
        weight = torch.softmax(strength / 0.07, dim=1)
        return torch.einsum("nk,nkc->nc", weight, self.votes[place])

    def look(self, items: Tensor, present: Tensor) -> Tensor:
        """Return the direction `(N, F)` of each case from the training mean."""
        return functional.normalize(_means(items, present) - self.center, dim=1)


class LinearHead(nn.Module):
    """A linear layer on the pooled embedding of a case and the shares of its images' facts."""

    center: Tensor
    width: Tensor

    def __init__(self, spec: Json, features: int, facts: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.pooling, self.sizes = spec["pooling"], tuple(facts)
        wide = features * (2 if self.pooling == "mean+max" else 1) + sum(facts)
        self.register_buffer("center", torch.zeros(wide))
        self.register_buffer("width", torch.ones(wide))
        self.layer = nn.Linear(wide, outputs)

    def forward(self, cases: Embedded) -> Tensor:
        """Return logits `(N, outputs)`."""
        return self.on(*cases.padded())

    def on(self, items: Tensor, facts: Tensor, present: Tensor) -> Tensor:
        """Return the same from what `Embedded.padded` gives."""
        table = self.table(items, facts, present)
        logits: Tensor = self.layer(_standard(table, self))
        return logits

    def table(self, items: Tensor, facts: Tensor, present: Tensor) -> Tensor:
        """Return `(N, columns)` of all cases."""
        parts = []
        if self.pooling in ("mean", "mean+max"):
            parts.append(_means(items, present))
        if self.pooling in ("max", "mean+max"):
            parts.append(items.masked_fill(~present[..., None], -torch.inf).amax(1))
        for column, size in enumerate(self.sizes):
            hot = functional.one_hot(facts[..., column], size + 1)[..., 1:] * present[..., None]
            parts.append(hot.sum(1) / present.sum(1, keepdim=True))
        return torch.cat(parts, dim=1)


class SetHead(nn.Module):
    """Project each image, add what it is, pool the set, and one hidden layer."""

    center: Tensor
    width: Tensor

    def __init__(self, spec: Json, features: int, facts: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(features))
        self.register_buffer("width", torch.ones(features))
        self.project = nn.Linear(features, _HIDDEN)
        self.facts = nn.ModuleList(nn.Embedding(size + 1, _HIDDEN, padding_idx=0) for size in facts)
        for table in self.facts:
            nn.init.zeros_(table.weight)  # type: ignore[arg-type]
        self.pooling = build_pooling(spec["pooling"], _HIDDEN)
        self.dropout = nn.Dropout(spec["dropout"])
        self.layer = nn.Linear(_HIDDEN, outputs)

    def forward(self, cases: Embedded) -> Tensor:
        """Return logits `(N, outputs)`."""
        return self.on(*cases.padded())

    def on(self, items: Tensor, facts: Tensor, present: Tensor) -> Tensor:
        """Return the same from what `Embedded.padded` gives."""
        hidden = self.project(self.dropout(_standard(items, self)))
        for column, table in enumerate(self.facts):
            hidden = hidden + table(facts[..., column])
        pooled, _ = self.pooling(torch.relu(hidden), present)
        logits: Tensor = self.layer(self.dropout(pooled))
        return logits


HEADS = ("knn", "logistic", "mlp")


def new_head(spec: Json, features: int, facts: Sequence[int], target: Target) -> nn.Module:
    """Return an untrained head.

    Args:
        spec: `{"head": one of HEADS, "pooling": ..., ...}`.
        features: numbers of an embedding.
        facts: for each of `batch.FACTS`, how many values are known.
        target: what is learned.
    """
    if spec["head"] not in HEADS:
        raise UsageError(f"a head must be one of {', '.join(HEADS)}, got '{spec['head']}'")
    if spec["head"] == "knn":
        return KnnHead(spec, features, max(1, len(target.classes)))
    kind = LinearHead if spec["head"] == "logistic" else SetHead
    return kind(spec, features, facts, target.outputs)


def fit_head(
    head: nn.Module,
    spec: Json,
    cases: Embedded,
    truths: Sequence[str],
    target: Target,
    weights: Tensor | None,
    seed: int,
) -> nn.Module:
    """Train a head in place and return it.

    Args:
        head: of `new_head`.
        spec: its `penalty` (logistic), `k` (knn), `dropout` (mlp).
        cases: training cases.
        truths: of the cases.
        target: of the truths.
        weights: of `balance.balancing`, or None.
        seed: of weights, order and dropout (mlp).
    """
    truth = torch.from_numpy(target.encode(truths))
    if isinstance(head, KnnHead):
        _remember(head, cases, truth, target)
    elif isinstance(head, LinearHead):
        _solve(head, cases, truth, target, weights, float(spec["penalty"]))
    elif isinstance(head, SetHead):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            head.pooling = build_pooling(spec["pooling"], _HIDDEN)
            _train(head, cases, truth, target, weights)
    return head.eval()


def _remember(head: KnnHead, cases: Embedded, truth: Tensor, target: Target) -> None:
    items, _, present = cases.padded()
    head.center = _means(items, present).mean(0)
    head.bank = head.look(items, present)
    if target.kind == "regression":
        head.votes = (truth * target.unit_sd + target.unit_mean)[:, None]
    elif target.kind == "multilabel":
        head.votes = torch.where(truth.isnan(), truth.nanmean(0).nan_to_num(0.5), truth)
    else:
        head.votes = functional.one_hot(truth, len(target.classes)).float()


def _solve(
    head: LinearHead,
    cases: Embedded,
    truth: Tensor,
    target: Target,
    weights: Tensor | None,
    penalty: float,
) -> None:
    table = head.table(*cases.padded())
    head.center, head.width = table.mean(0), _width(table)
    table = _standard(table, head)
    nn.init.zeros_(head.layer.weight)
    nn.init.zeros_(head.layer.bias)
    optimizer = torch.optim.LBFGS(
        head.layer.parameters(), max_iter=_STEPS, history_size=10, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = target.loss(head.layer(table), truth, weights)
        loss = loss + 0.5 * penalty * head.layer.weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]


def _train(
    head: SetHead, cases: Embedded, truth: Tensor, target: Target, weights: Tensor | None
) -> None:
    head.center, head.width = cases.items.mean(0), _width(cases.items)
    for module in (head.project, head.layer):
        module.reset_parameters()
    optimizer = torch.optim.AdamW(head.parameters(), lr=_RATE, weight_decay=_DECAY)
    count = len(cases.lengths)
    steps = _EPOCHS * -(-count // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps + 1)
    head.train()
    done = 0
    while done < steps:
        for part in torch.split(torch.randperm(count), _BATCH):
            drawn = _thinned(cases.take(part.tolist()))
            smoothing = 0.0 if target.kind == "regression" else 0.05
            loss = target.loss(head(drawn), truth[part], weights, smoothing=smoothing)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            done += 1
            if done == steps:
                break


def _thinned(cases: Embedded) -> Embedded:
    """Return the cases, some without a modality, some of their images, or their facts."""
    told = torch.rand(len(cases.lengths)) >= _UNTOLD
    rows = torch.repeat_interleave(told, torch.tensor(cases.lengths))
    cases = Embedded(cases.items, cases.facts * rows[:, None], cases.lengths)
    if max(cases.lengths) == 1:
        return cases
    keep: list[Tensor] = []
    lengths = []
    start = 0
    for length in cases.lengths:
        rows = torch.arange(start, start + length)
        start += length
        if length > 1 and float(torch.rand(1)) < _LOST:
            modality = cases.facts[rows, 0]
            lost = modality[torch.randint(length, (1,))]
            stay = modality != lost
            if not bool(stay.any()):
                stay = torch.rand(length) < 0.5
            rows = rows[stay] if bool(stay.any()) else rows[:1]
        keep.append(rows)
        lengths.append(len(rows))
    chosen = torch.cat(keep)
    return Embedded(cases.items[chosen], cases.facts[chosen], tuple(lengths))


def _standard(table: Tensor, head: LinearHead | SetHead) -> Tensor:
    """Return features in standard deviations of training, those far out drawn in.

    Many features of an encoder are nearly always 0; one that is not, once, must not shout.
    """
    return ((table - head.center) / head.width).clamp(-_FAR, _FAR)


def _width(table: Tensor) -> Tensor:
    """Return the standard deviation of each column; 1 of one that never varied in training."""
    width = table.std(0)
    return torch.where(width > 1e-5 * table.abs().mean(0).clamp_min(0.1), width, 1.0)


def _means(items: Tensor, present: Tensor) -> Tensor:
    """Return the mean `(N, F)` of each case's items."""
    weights = present / present.sum(1, keepdim=True)
    return torch.einsum("nl,nlf->nf", weights.to(items.dtype), items)
