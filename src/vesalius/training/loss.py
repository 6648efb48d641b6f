# SPDX-License-Identifier: Apache-2.0
"""Losses of classes, label sets, grades, numbers and voxels, and the weights that balance them.

Every loss of cases is a sum over the batch divided by its number of cases, whatever classes or
unknown labels it happens to hold: a case counts the same whichever batch it falls into, and the
expected gradient of a batch is that of all training cases.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from vesalius.types import Json

MOST = 10.0  # times that a label's rarer answer may outweigh its commoner one


def class_weights(counts: Sequence[int], *, power: float = 0.5) -> list[float]:
    """Return one weight per class, `count ** -power`, scaled to mean 1 over the cases."""
    raw = [max(1, count) ** -power for count in counts]
    mean = sum(w * n for w, n in zip(raw, counts, strict=True)) / max(1, sum(counts))
    return [w / mean for w in raw] if mean else [1.0] * len(raw)


def label_weights(
    counts: Sequence[tuple[int, int]], *, power: float = 0.5, most: float = MOST
) -> list[tuple[float, float]]:
    """Return the weights of absent and of present, for each label of a multi-label target.

    Args:
        counts: for each label, the cases without it and the cases with it.
        power: of the ratio of the two counts.
        most: bound of the ratio of the two weights: a label that one case in a thousand bears
            must not make that case outweigh its batch.

    The two weights of a label have mean 1 over the cases that it is known of.
    """
    out = []
    for absent, present in counts:
        ratio = (max(1, absent) / max(1, present)) ** power
        ratio = min(max(ratio, 1 / most), most)
        mean = (absent + present * ratio) / (absent + present) if absent + present else 1.0
        out.append((1 / mean, ratio / mean))
    return out


def imbalance(counts: Mapping[str, int], *, power: float = 0.5) -> Json:
    """Return how uneven classes are, and what balances them, for the audit.

    Returns:
        `counts`; `majority`, the share of the largest class, which is the accuracy of always
        answering it; `ratio` of the largest to the smallest count (None where a class has no
        case); `effective_classes`, the exponential of the entropy of the shares (Hill, Ecology
        54, 1973): the number of even classes that would be as diverse; `weights`, those of
        `class_weights`.
    """
    total = sum(counts.values())
    shares = [count / max(1, total) for count in counts.values()]
    entropy = -sum(share * math.log(share) for share in shares if share)
    least = min(counts.values(), default=0)
    weights = class_weights(list(counts.values()), power=power)
    return {
        "counts": dict(counts),
        "majority": round(max(shares, default=0.0), 6),
        "ratio": round(max(counts.values()) / least, 6) if least else None,
        "effective_classes": round(math.exp(entropy), 6) if total else 0.0,
        "weights": {name: round(w, 6) for name, w in zip(counts, weights, strict=True)},
    }


def cross_entropy(
    logits: Tensor, truth: Tensor, weights: Tensor | None = None, *, smoothing: float = 0.0
) -> Tensor:
    """Return the mean weighted cross-entropy.

    Args:
        logits: `(N, classes)`.
        truth: `(N,)` indices, or `(N, classes)` probabilities (of mixed or of taught cases).
        weights: `(classes,)`; each case's loss is multiplied by its class's.
        smoothing: share of the truth that is spread over all classes.
    """
    wanted = truth.float() if truth.is_floating_point() else truth
    losses = functional.cross_entropy(
        logits.float(), wanted, weights, reduction="none", label_smoothing=smoothing
    )
    return losses.mean()


def binary_cross_entropy(
    logits: Tensor, truth: Tensor, weights: Tensor | None = None, *, smoothing: float = 0.0
) -> Tensor:
    """Return the mean over cases and labels of the cross-entropy of each label alone.

    Args:
        logits: `(N, labels)`.
        truth: `(N, labels)` in 0 to 1, NaN where it is unknown: such an entry adds nothing.
        weights: `(labels, 2)` of absent and of present (`label_weights`).
        smoothing: share of each truth that is spread over absent and present.
    """
    logits, truth = logits.float(), truth.float()
    known = ~truth.isnan()
    present = torch.where(known, truth, 0.0) * (1 - smoothing) + smoothing / 2
    absent = 1 - present
    if weights is not None:
        absent, present = weights[:, 0] * absent, weights[:, 1] * present
    losses = absent * functional.softplus(logits) + present * functional.softplus(-logits)
    return torch.where(known, losses, 0.0).mean()


def ordinal_log_probabilities(logits: Tensor) -> Tensor:
    """Return the logarithms `(N, grades)` of the probabilities that `(N, grades - 1)` logits mean.

    Logit k is that of a grade above k among the cases of grade k or above, as in CORN (Shi, Cao
    and Raschka: Deep neural networks for rank-consistent ordinal regression based on conditional
    probabilities, Pattern Analysis and Applications 26, 2023), which is the continuation-ratio
    model (Fienberg 1980). The chance of a grade above k is the product of the first k + 1 of
    these probabilities: it never grows with k, so that no grade has a negative probability,
    whatever the logits.
    """
    logits = logits.float()
    above = functional.logsigmoid(logits).cumsum(dim=1)
    here = functional.logsigmoid(-logits)
    start = torch.zeros_like(logits[:, :1])
    return torch.cat([start, above], dim=1) + torch.cat([here, start], dim=1)


def ordinal_cross_entropy(
    logits: Tensor, truth: Tensor, weights: Tensor | None = None, *, smoothing: float = 0.0
) -> Tensor:
    """Return the mean weighted negative log-likelihood of grades.

    Args:
        logits: `(N, grades - 1)`, see `ordinal_log_probabilities`.
        truth: `(N,)` indices, or `(N, grades)` probabilities.
        weights: `(grades,)`, of each case by its grade.
        smoothing: share of the truth that is spread over all grades.

    A case's sum of CORN's conditional losses is this likelihood. CORN divides the batch's sum by
    the number of conditional losses, which grows with the grades in it; here it is divided by the
    number of cases.
    """
    return cross_entropy(ordinal_log_probabilities(logits), truth, weights, smoothing=smoothing)


def huber(
    values: Tensor, truth: Tensor, weights: Tensor | None = None, *, delta: float = 1.0
) -> Tensor:
    """Return the mean Huber loss (Huber, Ann. Math. Statist. 35, 1964).

    Args:
        values: `(N, 1)` or `(N,)`, standardized (mean 0, standard deviation 1 in training).
        truth: `(N,)`, on the same scale.
        weights: `(N,)`, of each case.
        delta: error, in standard deviations, up to which the loss is half its square; beyond, it
            grows in a line, so that a gross error of measurement does not lead the fit.
    """
    losses = functional.huber_loss(
        values.float().reshape(-1), truth.float(), reduction="none", delta=delta
    )
    return (losses if weights is None else losses * weights).mean()


def dice_cross_entropy(logits: Tensor, truth: Tensor, *, ignored: int | None = None) -> Tensor:
    """Return soft Dice loss plus cross-entropy.

    Args:
        logits: `(N, labels, ...)`, background first.
        truth: `(N, ...)` label indices.
        ignored: in the place of an index, of voxels that add nothing to the loss.

    The Dice of each structure is taken over the whole batch (Milletari et al.: V-Net, 3DV 2016),
    so that patches without the structure do not dominate.
    """
    logits = logits.float()
    known: Tensor | None = None
    if ignored is None:
        entropy = functional.cross_entropy(logits, truth)
    else:
        known = truth != ignored
        entropy = functional.cross_entropy(logits, truth, ignore_index=ignored, reduction="sum")
        entropy = entropy / known.sum().clamp(min=1)
        truth = torch.where(known, truth, 0)
    probability = torch.softmax(logits, dim=1)[:, 1:]
    hot = functional.one_hot(truth, logits.shape[1]).movedim(-1, 1)[:, 1:].to(probability.dtype)
    if known is not None:
        probability = probability * known[:, None]
    return entropy + _soft_dice(probability, hot)


def dice_binary_cross_entropy(logits: Tensor, codes: Tensor) -> Tensor:
    """Return soft Dice loss plus binary cross-entropy, of structures that may overlap.

    Args:
        logits: `(N, structures, ...)`, of each structure alone.
        codes: `(N, ...)` integers: bit n says that the voxel lies in structure n, from 1 on; where
            bit 0 is set, the voxel adds nothing to the loss.
    """
    logits = logits.float()
    bits = torch.arange(1, 1 + logits.shape[1], device=codes.device)
    bits = bits.view(1, -1, *[1] * (codes.ndim - 1))
    known = (codes[:, None] & 1 == 0).to(logits.dtype)
    hot = ((codes[:, None] >> bits) & 1).to(logits.dtype) * known
    losses = functional.binary_cross_entropy_with_logits(logits, hot, reduction="none")
    entropy = (losses * known).sum() / (logits.shape[1] * known.sum()).clamp(min=1)
    return entropy + _soft_dice(torch.sigmoid(logits) * known, hot)


def deep_supervision_loss(
    loss: Callable[[Tensor, Tensor], Tensor], outputs: Sequence[Tensor], labels: Tensor
) -> Tensor:
    """Return the weighted mean of the losses of several levels, as in nnU-Net.

    Args:
        loss: of logits and labels, for one level: `dice_cross_entropy`.
        outputs: logits `(N, labels, ...)` of each level, finest first; level n weighs half as
            much as level n - 1.
        labels: `(N, ...)` label indices or codes, on the grid of the finest; for the others, the
            label at the center of each voxel is taken (of two as near, the farther along the axis).

    Isensee et al.: nnU-Net, Nature Methods 2021: weights 1, 1/2, 1/4, ... over their sum.
    """
    weights = [0.5**level for level in range(len(outputs))]
    losses = [
        weight * loss(logits, _nearest(labels, logits.shape[2:]))
        for weight, logits in zip(weights, outputs, strict=True)
    ]
    return torch.stack(losses).sum() / sum(weights)


def _soft_dice(probability: Tensor, hot: Tensor) -> Tensor:
    """Return one less the mean Dice of structures `(N, structures, ...)`, over the whole batch."""
    axes = (0, *range(2, probability.ndim))
    shared = (probability * hot).sum(axes)
    total = probability.sum(axes) + hot.sum(axes)
    return 1 - ((2 * shared + 1) / (total + 1)).mean()


def _nearest(labels: Tensor, shape: Sequence[int]) -> Tensor:
    """Return `(N, ...)` on a grid of `shape` over the same field of view, by nearest neighbor."""
    for axis, size in enumerate(shape, 1):
        length = labels.shape[axis]
        if size != length:
            places = (2 * torch.arange(size, device=labels.device) + 1) * length // (2 * size)
            labels = labels.index_select(axis, places)
    return labels
