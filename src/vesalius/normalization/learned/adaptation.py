# SPDX-License-Identifier: Apache-2.0
"""Adapt MADNorm to a new kind of images without labels, the task network held fixed.

`fingerprint` describes how the task network sees an image: mean and log standard deviation of
each convolution's channels, and the log share of each class in its answer. `measure` keeps the
mean m and standard deviation d of a case's fingerprint over the training cases. For n new cases
with mean fingerprint f, `adapt` lowers, over the normalizer's CNN, gains and shifts,

    mean huber(z of features) + prior * mean huber(z of shares)

with z = (f - m) / (d sqrt(1/n + 1/N)), N the number of training cases. It is the mean over the
cases that is compared, so cases may differ among themselves as those of training did.

Restored features: Eastwood et al., ICLR 2022; Mirza et al.: ActMAD, CVPR 2023. Class ratio:
Bateson et al., Medical Image Analysis 82:102617, 2022 (their entropy term changed nothing on
validation cases and was left out).

A lower objective is no proof of a better answer: where the new kind had not harmed the answers,
adapting can cost some of their quality. What is promised: cases that already look as
familiar as 95 % of equally large groups of training cases change nothing; otherwise the weights
of the lowest objective are kept, and the first ones where none was lower or something turned
non-finite.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from vesalius.errors import RunError, UsageError
from vesalius.normalization.learned.network import Normalized
from vesalius.types import Json

PRIOR = 0.1
LEARNING_RATE = 3e-3
STEPS = 20
GROUP = 8  # cases at a time when `familiar` is measured
_DRAWS = 200  # groups of training cases
_FAMILIAR = 0.95  # share of them that counts as familiar
_TINY = 1e-6  # added where a logarithm is taken
_FLOOR = 0.05  # least standard deviation of a fingerprint's entry between cases


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """What training cases look like to the task network. It holds no single case.

    Attributes:
        mean, sd: of each entry of the fingerprint over the training cases, `(entries,)`.
        familiar: distance of features below which 95 % of the groups of training cases lie.
        classes: how many of the entries, the last ones, are log shares of classes.
        cases: how many training cases were measured.
    """

    mean: Tensor
    sd: Tensor
    familiar: float
    classes: int
    cases: int

    def to_tensors(self) -> dict[str, Tensor]:
        """Return all of it as tensors, as safetensors takes them."""
        scalars = torch.tensor([self.familiar, self.classes, self.cases], dtype=torch.float64)
        return {"mean": self.mean, "sd": self.sd, "scalars": scalars}

    @classmethod
    def from_tensors(cls, held: dict[str, Tensor]) -> Self:
        """Return what `to_tensors` gave."""
        familiar, classes, cases = held["scalars"].tolist()
        return cls(held["mean"], held["sd"], familiar, int(classes), int(cases))


@dataclass(frozen=True, slots=True)
class Adaptation:
    """What one adaptation did.

    Attributes:
        before, after: objective with the first weights and with those that were kept.
        objectives: objective before each step, and after the last.
        kept: step whose weights were kept; 0 means that nothing was changed.
        reason: `familiar`, `lower`, `not-lower` or `non-finite`.
    """

    before: float
    after: float
    objectives: tuple[float, ...]
    kept: int
    reason: str

    def to_json(self) -> Json:
        """Return the record; a non-finite objective is None."""
        return {
            "before": _finite(self.before),
            "after": _finite(self.after),
            "objectives": [_finite(value) for value in self.objectives],
            "kept": self.kept,
            "reason": self.reason,
        }


def fingerprint(
    network: Normalized,
    images: Tensor,
    *,
    modality: Tensor | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return how the task network sees each image, `(N, entries)`, and its logits.

    Args:
        network: normalization and a task network that answers with logits `(N, classes, ...)`.
        images, modality, mask: as in `MADNorm.forward`.

    Raises:
        UsageError: the task network has no convolution.
    """
    entries: list[Tensor] = []

    def note(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        flat = output.flatten(2)  # (N, channels, V)
        entries.append(flat.mean(-1))
        entries.append((flat.var(-1, correction=0) + _TINY).log() / 2)

    layers = [
        m for m in network.model.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    ]
    if not layers:
        raise UsageError("the task network must hold convolutions: their features are compared")
    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        logits = network(images, modality, mask)
    finally:
        for hook in hooks:
            hook.remove()
    shares = logits.softmax(1).reshape(*logits.shape[:2], -1).mean(-1)
    return torch.cat([*entries, (shares + _TINY).log()], dim=1), logits


def measure(
    network: Normalized,
    cases: Iterable[Tensor | tuple[Tensor, Tensor]],
    *,
    modality: Sequence[str] = (),
    seed: int = 0,
) -> Source:
    """Return the statistics of training cases.

    Args:
        network: as trained; it is left as it was.
        cases: images of one case at a time, `(images, C, i, j[, k])`, or these and their masks
            as in `MADNorm.forward`.
        modality: one name a case; default generic.
        seed: of the groups that are drawn for `familiar`.

    Raises:
        UsageError: fewer than two cases, or another number of names than of cases.
    """
    prints: list[Tensor] = []
    logits = torch.empty(0, 0)
    names = iter(modality)
    with torch.no_grad(), _still(network):
        for case in cases:
            images, mask = (case, None) if isinstance(case, Tensor) else case
            rows = network.norm.index([next(names, "")] * len(images))
            entries, logits = fingerprint(network, images, modality=rows, mask=mask)
            prints.append(entries.mean(0))
    if len(prints) < 2 or (modality and len(modality) != len(prints)):
        raise UsageError(
            "measure needs at least two training cases, and one modality a case where they are "
            f"named, got {len(prints)} case(s) and {len(modality)} name(s)"
        )
    seen = torch.stack(prints)
    source = Source(
        seen.mean(0), seen.std(0).clamp(min=_FLOOR), math.inf, logits.shape[1], len(seen)
    )
    generator = torch.Generator().manual_seed(seed)
    size = min(GROUP, len(seen) // 2)
    groups = (torch.randperm(len(seen), generator=generator)[:size] for _ in range(_DRAWS))
    spread = math.sqrt(1 / size - 1 / len(seen))  # these groups are part of what is the mean
    away = [_distances(seen[rows], spread, source)[0] for rows in groups]
    return replace(source, familiar=float(torch.stack(away).quantile(_FAMILIAR)))


def adapt(
    network: Normalized,
    images: Tensor,
    source: Source,
    *,
    cases: int | None = None,
    steps: int = STEPS,
    lr: float = LEARNING_RATE,
    prior: float = PRIOR,
    modality: Tensor | None = None,
    mask: Tensor | None = None,
) -> Adaptation:
    """Change the normalizer's CNN, gains and shifts in place so that new cases look familiar.

    Nothing is drawn at random: the same call gives the same weights. The task network, its
    buffers, and all gradients are left as they were.

    Args:
        network: as trained.
        images: of cases of one new kind, for example one scanner, `(N, C, i, j[, k])`. About
            eight cases tell a new kind from the differences between patients; one hardly does.
        source: `measure` of the same network on its training cases.
        cases: how many cases the images are from, each with as many; default one each.
        steps, lr: of Adam.
        prior: weight of the class shares.
        modality, mask: as in `MADNorm.forward`.

    Raises:
        UsageError: no image, or a number out of range.
        RunError: the source was measured on another network.
    """
    n = len(images) if cases is None else cases
    if not 1 <= n <= len(images) or steps < 1 or not 0 < lr < math.inf or prior < 0:
        raise UsageError(
            "adapt needs images, 1 <= cases <= images, steps >= 1, lr > 0 and prior >= 0, got "
            f"{len(images)} image(s), {cases=}, {steps=}, {lr=}, {prior=}"
        )
    spread = math.sqrt(1 / n + 1 / source.cases)
    cnn = network.norm.cnn
    weights = [
        network.norm.raw_gain,
        network.norm.shift,
        *(() if cnn is None else cnn.parameters()),
    ]
    wanted = [weight.requires_grad for weight in weights]
    copies = [weight.detach().clone() for weight in weights]
    optimizer = torch.optim.Adam(copies, lr=lr)
    first = best = _values(weights)
    objectives: list[float] = []
    kept, reason = 0, "not-lower"
    try:
        for weight in weights:
            weight.requires_grad_(True)
        for step in range(steps + 1):
            with torch.enable_grad(), _still(network):
                entries, logits = fingerprint(network, images, modality=modality, mask=mask)
                features, shares = _distances(entries, spread, source, logits.shape[1])
                objective = features + prior * shares
            objectives.append(float(objective.detach()))
            if not math.isfinite(objectives[-1]):
                kept, best, reason = 0, first, "non-finite"
                break
            if step == 0 and float(features.detach()) <= source.familiar:
                reason = "familiar"
                break
            if objectives[-1] < objectives[kept]:
                kept, best, reason = step, _values(weights), "lower"
            if step < steps:
                gradients = torch.autograd.grad(objective, weights, allow_unused=True)
                for copy, gradient in zip(copies, gradients, strict=True):
                    copy.grad = gradient
                optimizer.step()
                _set(weights, copies)
    finally:
        _set(weights, best)
        for weight, want in zip(weights, wanted, strict=True):
            weight.requires_grad_(want)
    return Adaptation(objectives[0], objectives[kept], tuple(objectives), kept, reason)


def _distances(
    entries: Tensor, spread: float, source: Source, classes: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return how far the mean fingerprint is from the source: its features, its class shares.

    `spread` is the deviation of a mean fingerprint in units of that of a single case.
    """
    if entries.shape[1] != len(source.mean) or classes not in (None, source.classes):
        raise RunError(
            f"the source holds {len(source.mean)} entries of {source.classes} classes, this "
            f"network gives {entries.shape[1]} of {classes}: measure it anew"
        )
    away = (entries.mean(0) - source.mean) / (source.sd * spread)
    distance = functional.huber_loss(away, torch.zeros_like(away), reduction="none")
    return distance[: -source.classes].mean(), distance[-source.classes :].mean()


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _values(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in tensors]


def _set(weights: Iterable[Tensor], values: Iterable[Tensor]) -> None:
    with torch.no_grad():
        for weight, value in zip(weights, values, strict=True):
            weight.copy_(value)


@contextmanager
def _still(network: nn.Module) -> Iterator[None]:
    """Hold every module in evaluation mode, and give each its own mode back."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
