# SPDX-License-Identifier: Apache-2.0
"""What training a retrieval run will do again and again, on random numbers of the plan's shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vesalius.flows.planning.trial import Trial, random_image, views_of_image
from vesalius.types import Json

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from vesalius.tasks.retrieve.pairs import Pairs


def retrieval_trials(found: Json, decisions: Json, train: int, val: int) -> list[Trial]:
    """Return the trials of the towers, and of the twin where the plan has one."""
    twins = [_twin(found, decisions, spec, train, val) for spec in decisions["networks"]]
    return [_towers(decisions), *twins]


def _towers(decisions: Json) -> Trial:
    import torch

    from vesalius.networks.sentence import WIDTH
    from vesalius.tasks.frozen import FrozenEncoder
    from vesalius.tasks.retrieve.tower_fit import Material, new_towers, step_loss_of
    from vesalius.training import device

    spec, words = decisions["tower"], decisions["words"]
    width = FrozenEncoder.width_of(decisions["frozen"])
    count = spec["batch"]
    texts = None
    if words is not None:
        texts = torch.randn(count, words["directions"] + WIDTH * bool(words["sentences"]))
    material = Material(torch.randn(count, width), texts, _pairs(decisions, count))
    fabric = device.start("32-true")
    loss = step_loss_of(material, decisions, 0, fabric)

    def step_loss(model: nn.Module, _where: torch.device) -> Tensor:
        return loss(model, 0)

    def check(model: nn.Module, where: torch.device) -> None:
        inner: Any = getattr(model, "module", model)  # a TwoTowers
        inner.vectors(material.features.to(where))

    return Trial(
        "towers",
        lambda: new_towers(material, decisions, 0),
        step_loss,
        check,
        checks=1,
        finals=spec["count"],
        most=spec["steps"],
        optimizer=spec["optimizer"],
    )


def _twin(found: Json, decisions: Json, spec: Json, train: int, val: int) -> Trial:
    import torch
    from torch.nn import functional

    from vesalius.tasks.retrieve.learning import image_loss
    from vesalius.tasks.retrieve.twin import JUDGED, VIEWS, new_twin
    from vesalius.training.augment import Augmentation, augment

    settings = Augmentation.from_json(spec["augmentation"])
    rng = np.random.default_rng(0)
    count, each = spec["batch"], min(VIEWS, views_of_image(found, decisions))
    views = torch.from_numpy(random_image(decisions, count * each).views.astype(np.float32))
    image = random_image(decisions, views_of_image(found, decisions))
    pairs = _pairs(decisions, count)

    def step_loss(model: nn.Module, where: torch.device) -> Tensor:
        moved, _ = augment(views.to(where), settings, rng)
        vectors = model(moved).unflatten(0, (count, each)).mean(1)
        unit = functional.normalize(vectors, dim=1)
        return image_loss(unit, pairs, np.arange(count), decisions["objective"])

    def check(model: nn.Module, _where: torch.device) -> None:
        inner: Any = getattr(model, "module", model)  # a Twin
        inner.encoder.images([image])

    judged = min(val, JUDGED)
    return Trial(
        spec["name"],
        lambda: new_twin(spec, 0),
        step_loss,
        check,
        checks=judged,
        finals=2 + (train + val) / max(1, judged),
        most=max(10, spec["max_epochs"] * train // spec["batch"]),
        optimizer=spec["optimizer"],
    )


def _pairs(decisions: Json, count: int) -> Pairs:
    """Return pairs of which every second image is alike, none of one patient."""
    from vesalius.tasks.retrieve.pairs import CAPTIONS, Pairs, Relation

    codes = np.arange(count) % 2
    kinds = [kind for kind in decisions["pairs"] if kind != CAPTIONS]
    relations = tuple(Relation(codes, False) for _ in kinds)
    words = tuple(str(n) for n in range(count)) if CAPTIONS in decisions["pairs"] else ()
    return Pairs(relations, np.arange(count), np.zeros(count, int), words)
