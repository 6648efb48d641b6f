# SPDX-License-Identifier: Apache-2.0
"""Why a case was answered as it was: the influence of each image, and where a network looked.

Influence is measured by leaving an image out: by how much the predicted answer then falls. Maps are
Grad-CAM (Selvaraju et al., ICCV 2017): channels of the last maps that are fine enough, weighted
by the mean gradient of the predicted answer's logit (a grade's log-probability).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vesalius.tasks.classify.batch import Batch, Image, make_batch
from vesalius.tasks.classify.embeddings import embedded
from vesalius.tasks.classify.members import HeadMember, NetworkMember
from vesalius.tasks.classify.predict import Classifier
from vesalius.training.loss import ordinal_log_probabilities
from vesalius.types import Array

_FINEST = 4  # cells along a side that a map must have to tell a place


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why one case was answered as it was.

    Attributes:
        influence: `(images,)`; how much the predicted probability (a regression: the value) falls
            without this image; NaN where there is only one image.
        heat: for each image `(views, ...)` in 0 to 1 on its views' grid; empty where the member
            that weighs most sees no picture of its own grid.
        member: whose maps these are.
    """

    influence: Array
    heat: tuple[Array, ...]
    member: str


def explain(classifier: Classifier, images: Sequence[Image]) -> Explanation:
    """Explain the answer to one case."""
    table = classifier.probabilities([images])[0]
    column = int(table.argmax())
    if len(images) == 1:
        influence = np.array([np.nan])
    else:
        others = [[*images[:n], *images[n + 1 :]] for n in range(len(images))]
        influence = table[column] - classifier.probabilities(others)[:, column]
    heaviest = int(np.argmax(classifier.mixture.weights))
    member = classifier.mixture.members[heaviest]
    classes = len(table)
    heat: tuple[Array, ...] = ()
    if isinstance(member, NetworkMember):
        batch = make_batch([images]).to(next(member.module.parameters()).device)
        heat = _split(
            _grad_cam(member.module.encoder, _network(member, batch), batch.views, column, classes),
            images,
        )
    elif isinstance(member, HeadMember):
        encoder = classifier.mixture.encoders[member.encoder]
        if not encoder.volumes and isinstance(encoder.encoder, nn.Module):
            batch = make_batch([images])
            answer = _head(member, lambda v: encoder.encode_once(v, encoder.encoder), images)
            heat = _split(_grad_cam(encoder.encoder, answer, batch.views, column, classes), images)
    return Explanation(np.asarray(influence), heat, member.name)


def _network(member: NetworkMember, batch: Batch) -> Callable[[Tensor], Tensor]:
    def answer(views: Tensor) -> Tensor:
        moved = batch.with_views(views)
        logits: Tensor = member.module(moved)
        return logits

    return answer


def _head(
    member: HeadMember, encode: Callable[[Tensor], Tensor], images: Sequence[Image]
) -> Callable[[Tensor], Tensor]:
    counts = [len(image.views) for image in images]

    def answer(views: Tensor) -> Tensor:
        vectors = [part.mean(0) for part in torch.split(encode(views), counts)]
        case = [(v, image.facts) for v, image in zip(vectors, images, strict=True)]
        found: Tensor = member.module(embedded([case]))
        return found

    return answer


def _grad_cam(
    network: nn.Module,
    answer: Callable[[Tensor], Tensor],
    views: Tensor,
    column: int,
    classes: int,
) -> Array:
    """Return `(M, ...)` heat of views `(M, C, ...)`, the greatest of all 1."""
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _given: object, out: Tensor) -> None:
        if out.ndim > 3 and (min(out.shape[2:]) >= _FINEST or not kept):
            kept.append(out)

    blocks = [module for module in network.modules() if hasattr(module, "shortcut")]
    inside = {id(part) for block in blocks for part in block.modules() if part is not block}
    hooks = [  # what all later maps rest on: blocks as a whole, and rectified maps between them
        module.register_forward_hook(keep)
        for module in network.modules()
        if id(module) not in inside
        and (hasattr(module, "shortcut") or isinstance(module, nn.ReLU | nn.ReLU6))
    ]
    try:
        with torch.enable_grad():
            given = views.clone().requires_grad_(True)
            found = answer(given)
            if found.shape[1] < classes:  # logits of grades tell what lies above
                found = ordinal_log_probabilities(found)
            maps = kept[-1]
            (slope,) = torch.autograd.grad(found[0, column], maps)
    finally:
        for hook in hooks:
            hook.remove()
    axes = tuple(range(2, maps.ndim))
    heat = torch.relu((slope.mean(axes, keepdim=True) * maps).sum(1, keepdim=True)).detach()
    mode = "trilinear" if maps.ndim == 5 else "bilinear"
    heat = functional.interpolate(heat, tuple(views.shape[2:]), mode=mode, align_corners=False)
    top = float(heat.max())
    return np.asarray((heat / top if top > 0 else heat)[:, 0].cpu().numpy())


def _split(heat: Array, images: Sequence[Image]) -> tuple[Array, ...]:
    ends = np.cumsum([len(image.views) for image in images])[:-1]
    return tuple(np.split(heat, ends))
