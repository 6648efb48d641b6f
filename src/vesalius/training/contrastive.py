# SPDX-License-Identifier: Apache-2.0
"""Losses of twins: what belongs together is drawn near, what does not is pushed away.

All take vectors of length one, and which pairs of a batch count: `positive`, `(N, M)` weights above
0 for pairs that belong together, and `counted`, `(N, M)`, False for pairs of which nothing is to
be learned (an image with itself, images of one patient).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def contrastive(a: Tensor, b: Tensor, positive: Tensor, counted: Tensor, margin: float) -> Tensor:
    """Return the loss of pairs: squared distance, or what is lacking to `margin`, squared.

    Hadsell, Chopra, LeCun: Dimensionality Reduction by Learning an Invariant Mapping, CVPR 2006;
    positive and negative pairs weigh alike, however many there are.

    Args:
        a, b: `(N, d)`, `(M, d)` of length one.
        positive: `(N, M)`, above 0 where a pair belongs together.
        counted: `(N, M)`, which pairs count.
        margin: distance that strangers are to keep, up to 2.
    """
    distance = _distances(a, b)
    near = (positive > 0) & counted
    far = (positive <= 0) & counted
    drawn = distance.square()[near]
    pushed = functional.relu(margin - distance).square()[far]
    return 0.5 * (_mean(drawn) + _mean(pushed))


def triplet(a: Tensor, b: Tensor, positive: Tensor, counted: Tensor, margin: float) -> Tensor:
    """Return the loss of triplets with semi-hard negatives, in squared distances.

    Schroff, Kalenichenko, Philbin: FaceNet, CVPR 2015: for each anchor and positive the nearest
    negative that is farther than the positive; where there is none, the farthest one.

    Args:
        a, b, positive, counted: as of `contrastive`.
        margin: by which a negative is to be farther, squared distance.
    """
    distance = _distances(a, b).square()
    near = ((positive > 0) & counted).nonzero()
    strangers = (positive <= 0) & counted
    anchors, partners = near[:, 0], near[:, 1]
    usable = strangers[anchors].any(1)
    anchors, partners = anchors[usable], partners[usable]
    if not len(anchors):
        return distance.sum() * 0
    own = distance[anchors, partners][:, None]
    table, open_to = distance[anchors], strangers[anchors]
    beyond = open_to & (table > own)
    nearest = table.masked_fill(~beyond, torch.inf).amin(1)
    farthest = table.masked_fill(~open_to, -torch.inf).amax(1)
    chosen = torch.where(beyond.any(1), nearest, farthest)
    return functional.relu(own[:, 0] - chosen + margin).mean()


def supcon(
    a: Tensor, b: Tensor, positive: Tensor, counted: Tensor, temperature: float | Tensor
) -> Tensor:
    """Return how surprising each anchor's positives are among all that count, in nats.

    With one positive each this is InfoNCE (van den Oord, Li, Vinyals, arXiv 1807.03748); with
    several, `L_out` of Khosla et al., Supervised Contrastive Learning, NeurIPS 2020, each positive
    by its weight. Anchors without a positive take no part.

    Args:
        a, b, positive, counted: as of `contrastive`.
        temperature: by which cosines are divided.
    """
    logits = (a @ b.T / temperature).masked_fill(~counted, -torch.inf)
    weights = positive * counted
    total = weights.sum(1)
    used = total > 0
    if not used.any():
        return (a.sum() + b.sum()) * 0
    surprise = -functional.log_softmax(logits[used], dim=1).masked_fill(~counted[used], 0.0)
    return ((surprise * weights[used]).sum(1) / total[used]).mean()


def pairs_of_words(
    images: Tensor, words: Tensor, positive: Tensor, temperature: float | Tensor
) -> Tensor:
    """Return InfoNCE both ways between images and words (Radford et al., CLIP, ICML 2021).

    Args:
        images, words: `(N, d)`, `(M, d)` of length one.
        positive: `(N, M)`, above 0 where words belong to an image.
        temperature: by which cosines are divided.
    """
    everyone = torch.ones_like(positive, dtype=torch.bool)
    there = supcon(images, words, positive, everyone, temperature)
    return (there + supcon(words, images, positive.T, everyone.T, temperature)) / 2


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Return Euclidean distances, with a slope at 0."""
    return (2 - 2 * a @ b.T).clamp(min=1e-8).sqrt()


def _mean(values: Tensor) -> Tensor:
    return values.mean() if values.numel() else values.sum()
