# SPDX-License-Identifier: Apache-2.0
"""Training towers on frozen features: images with images, images with words, in the same space."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vesalius.tasks.retrieve.learning import image_loss, image_scores, words_loss, words_score
from vesalius.tasks.retrieve.pairs import Pairs
from vesalius.tasks.retrieve.towers import Tower
from vesalius.training import budget
from vesalius.training.loop import Settings, StepLoss, Validate, fit
from vesalius.training.order import step_random
from vesalius.types import Array, Json, Progress

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class TwoTowers(nn.Module):
    """A tower of images, and one of words where these are learned from."""

    def __init__(self, features: int, words: int, decisions: Json) -> None:
        super().__init__()
        self.image = Tower(features, decisions["tower"])
        self.words = Tower(words, decisions["words"]) if words else None

    def vectors(self, features: Tensor) -> Tensor:
        """Return `(N, dimension)` of length one of images."""
        return functional.normalize(self.image(features), dim=1)

    def meanings(self, features: Tensor) -> Tensor:
        """Return `(N, dimension)` of length one of words."""
        if self.words is None:
            raise ValueError("these towers learned no words")
        return functional.normalize(self.words(features), dim=1)

    def forward(self, features: Tensor, words: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the vectors of images, and of words where there are some."""
        return self.vectors(features), None if words is None else self.meanings(words)


@dataclass(frozen=True, slots=True)
class Material:
    """What towers learn from.

    Attributes:
        features: `(n, F)` of images.
        words: `(n, W)` of their words; None where no words are learned from.
        pairs: what belongs together.
    """

    features: Tensor
    words: Tensor | None
    pairs: Pairs

    def some(self, places: Array) -> Material:
        """Return the same of some images."""
        words = None if self.words is None else self.words[places]
        return Material(self.features[places], words, self.pairs.some(places))


def new_towers(material: Material, decisions: Json, seed: int) -> TwoTowers:
    """Return towers with weights drawn from `seed`, standardized on their material."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        width = 0 if material.words is None else material.words.shape[1]
        towers = TwoTowers(material.features.shape[1], width, decisions)
    towers.image.standardize(material.features)
    if towers.words is not None and material.words is not None:
        bearing = torch.tensor([bool(text) for text in material.pairs.words])
        towers.words.standardize(material.words[bearing])
    return towers


def train_towers(
    material: Material,
    decisions: Json,
    measured: Json,
    *,
    seed: int,
    folder: Path,
    fabric: Fabric,
    judge: Validate | None = None,
    progress: Progress | None = None,
) -> TwoTowers:
    """Train towers, or go on after an interruption.

    Args:
        material: of the images to learn from.
        decisions: of the plan.
        measured: `steps`, and `stop_after` under minutes.
        seed: of weights and batches.
        folder: of checkpoints and log.
        fabric: device and precision.
        judge: of the best state, see `judge_on`; None: the last state is taken.
        progress: called as `progress(stage, done, total)`.
    """
    towers = new_towers(material, decisions, seed)
    checks = 1 if judge is None else budget.VALIDATIONS
    fit(
        towers,
        step_loss=step_loss_of(material, decisions, seed, fabric),
        validate=judge or (lambda _: {"score": 0.0}),
        settings=Settings.from_plan(decisions["tower"]["optimizer"], measured, checks),
        folder=folder,
        fabric=fabric,
        progress=progress,
    )
    return towers.eval()


def step_loss_of(material: Material, decisions: Json, seed: int, fabric: Fabric) -> StepLoss:
    """Return the loss of a step, a pure function of seed and step."""
    objective, batch = decisions["objective"], decisions["tower"]["batch"]
    temperature = decisions["words"]["temperature"] if decisions["words"] else 0.0

    def step_loss(model: nn.Module, step: int) -> Tensor:
        rng = step_random(seed, step)
        chosen = material.pairs.draw(rng, batch)
        words = None if material.words is None else material.words[chosen].to(fabric.device)
        torch.manual_seed(int(rng.integers(2**31)))  # dropout
        vectors, meanings = model(material.features[chosen].to(fabric.device), words)
        parts = []
        if material.pairs.relations:
            parts.append(image_loss(vectors, material.pairs, chosen, objective))
        if meanings is not None:
            found = words_loss(vectors, meanings, material.pairs, chosen, temperature)
            parts.append(objective["words"] * found)
        return torch.stack(parts).sum()

    return step_loss


def judge_on(material: Material, queries: Array) -> Validate:
    """Return the validation: images among all of the material, words among the queries alone.

    Args:
        material: of training and validation images.
        queries: places of the validation images.
    """
    words = material.pairs.words
    captions = [words[place] for place in queries] if words else []
    asked = sorted(set(captions) - {""})
    rows = [int(queries[captions.index(text)]) for text in asked]

    def validate(model: nn.Module) -> dict[str, float]:
        inner: Any = getattr(model, "module", model)  # a TwoTowers
        where = next(inner.parameters()).device
        vectors = inner.vectors(material.features.to(where)).cpu().numpy()
        scores = image_scores(vectors, queries, material.pairs)
        if asked and material.words is not None:
            texts = inner.meanings(material.words[rows].to(where)).cpu().numpy()
            scores.append(words_score(vectors[queries], texts, captions, asked))
        return {"score": float(np.mean(scores))}

    return validate
