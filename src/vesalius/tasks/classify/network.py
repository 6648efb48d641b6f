# SPDX-License-Identifier: Apache-2.0
"""Training one network of the plan on sets of views, end to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from vesalius.tasks.cases import Case
from vesalius.tasks.classify.batch import Image, make_batch
from vesalius.tasks.classify.ensemble import losses
from vesalius.tasks.classify.model import SetClassifier, new_model
from vesalius.tasks.classify.store import Store
from vesalius.tasks.classify.warm_start import begin_with
from vesalius.tasks.targets import Target
from vesalius.training import budget
from vesalius.training.augment import Augmentation, augment
from vesalius.training.loop import Outcome, Settings, StepLoss, Validate, fit
from vesalius.training.order import batch_positions, step_random
from vesalius.types import Array, Json, Progress

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_CASES_AT_ONCE = 16
_TRIED = _CASES_AT_ONCE  # cases, about, that tell how long a validation takes
_LOST = 0.25  # chance of a training case of several modalities to come without one of them
_UNTOLD = 0.2  # chance of a training case to come without its facts: what it is stays unsaid


@dataclass(frozen=True, slots=True)
class Lesson:
    """What one network is trained with."""

    spec: Json
    store: Store
    train: Sequence[Case]
    val: Sequence[Case]
    target: Target
    weights: Tensor | None
    seed: int
    start: dict[str, Tensor] | None = None  # weights to begin with, see `warm_start`


def train_network(
    lesson: Lesson,
    folder: Path,
    measured: Json,
    fabric: Fabric,
    progress: Progress | None,
) -> tuple[SetClassifier, Outcome]:
    """Train, or go on after an interruption; return the network of the best validation.

    Args:
        lesson: what to learn.
        folder: of checkpoints and log.
        measured: steps, see `measure`.
        fabric: device and precision.
        progress: called as `progress(stage, done, total)`.
    """
    spec = lesson.spec
    model = new_model(spec, lesson.target.outputs, lesson.seed)
    if lesson.start is not None:
        begin_with(model, lesson.start)
    settings = Settings.from_plan(spec["optimizer"], measured, budget.VALIDATIONS)
    outcome = fit(
        model,
        step_loss=_step_loss(lesson, fabric.device),
        validate=_validation(lesson, fabric.device),
        settings=settings,
        folder=folder,
        fabric=fabric,
        progress=progress,
    )
    return model.eval(), outcome


def measure(lesson: Lesson, asked: Json, fabric: Fabric, started: float, finals: float) -> Json:
    """Return the steps that fit, see `budget.measure_steps`."""
    spec = lesson.spec
    few = lesson.val[:: max(1, len(lesson.val) // _TRIED)]
    return budget.measure_steps(
        asked,
        new_model(spec, lesson.target.outputs, 0),
        step_loss=_step_loss(lesson, fabric.device),
        validate=_validation(replace(lesson, val=few), fabric.device),
        checks=len(lesson.val) / len(few),
        fabric=fabric,
        started=started,
        finals=finals,
        most=max(10, spec["max_epochs"] * len(lesson.train) // spec["batch"]),
    )


def logits_of(model: SetClassifier, cases: Sequence[Sequence[Image]], where: torch.device) -> Array:
    """Return logits `(cases, outputs)`, some cases at a time, in 32 bit."""
    found = []
    with torch.inference_mode():
        for start in range(0, len(cases), _CASES_AT_ONCE):
            batch = make_batch(cases[start : start + _CASES_AT_ONCE]).to(where)
            found.append(model(batch).double().cpu().numpy())
    return np.concatenate(found)


def _step_loss(lesson: Lesson, where: torch.device) -> StepLoss:
    spec, train, target = lesson.spec, lesson.train, lesson.target
    settings = Augmentation.from_json(spec["augmentation"])
    truths = target.encode([case.truth for case in train])
    weights = None if lesson.weights is None else lesson.weights.to(where)
    smoothing = spec["label_smoothing"]

    def step_loss(model: nn.Module, step: int) -> Tensor:
        rng = step_random(lesson.seed, step)
        chosen = batch_positions(len(train), spec["batch"], step, lesson.seed)
        drawn = [draw_images(lesson.store.images(train[p]), spec["views"], rng) for p in chosen]
        batch = make_batch(drawn).to(where)
        moved, _ = augment(batch.views, settings, rng)
        batch = batch.with_views(moved)
        truth = torch.as_tensor(truths[chosen], device=where)
        torch.manual_seed(int(rng.integers(2**31)))  # dropout
        return target.loss(model(batch), truth, weights, smoothing=smoothing)

    return step_loss


def draw_images(images: list[Image], most: int, rng: np.random.Generator) -> list[Image]:
    """Return at most about `most` views of a case, spread over its images; some modality lost."""
    modalities = {image.facts[0] for image in images}
    if len(modalities) > 1 and rng.random() < _LOST:
        lost = rng.choice(sorted(modalities))
        images = [image for image in images if image.facts[0] != lost]
    if len(images) > most:
        images = [images[place] for place in rng.choice(len(images), most, replace=False)]
    each = max(1, most // len(images))
    told = rng.random() >= _UNTOLD
    out = []
    for image in images:
        views = image.views
        if len(views) > each:
            views = views[np.sort(rng.choice(len(views), each, replace=False))]
        out.append(Image(views, image.facts if told else (0,) * len(image.facts)))
    return out


def _validation(lesson: Lesson, where: torch.device) -> Validate:
    cases, target = lesson.val, lesson.target
    codes = target.encode([case.truth for case in cases])

    def validate(model: nn.Module) -> dict[str, float]:
        found = []
        for start in range(0, len(cases), _CASES_AT_ONCE):
            held = [lesson.store.images(case) for case in cases[start : start + _CASES_AT_ONCE]]
            found.append(model(make_batch(held).to(where)).double().cpu().numpy())
        table = target.probabilities(np.concatenate(found))
        loss = float(losses(table, codes, target).mean())
        auc = _mean_auc(table, codes, target)
        # The loss breaks ties between equal areas, and decides where the area is undefined.
        return {
            "score": (auc or 0.0) - (1e-3 if auc is not None else 1.0) * loss,
            "loss": loss,
            **({} if auc is None else {"auc": auc}),
        }

    return validate


def _mean_auc(table: Array, codes: Array, target: Target) -> float | None:
    """Return the mean one-versus-rest area, None for a regression or where no class has one."""
    from scipy.stats import rankdata

    if target.kind == "regression":
        return None
    areas = []
    for column in range(table.shape[1]):
        truth = codes[:, column] if target.kind == "multilabel" else (codes == column).astype(float)
        known = np.isfinite(truth)
        positive = truth[known] == 1
        several = positive.sum() * (~positive).sum()
        if several:
            ranks = rankdata(table[known, column])[positive].sum()
            areas.append((ranks - positive.sum() * (positive.sum() + 1) / 2) / several)
    return float(np.mean(areas)) if areas else None
