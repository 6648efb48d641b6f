# SPDX-License-Identifier: Apache-2.0
"""Training a segmenter: patches from disk, the loop, whole volumes for validation."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from vesalius.errors import CohortError
from vesalius.tasks.cases import Cases
from vesalius.tasks.normalizing import fitted_normalizer
from vesalius.tasks.run import Run
from vesalius.tasks.segment.argmax import Argmax
from vesalius.tasks.segment.patches import Prepared, draw, prepare
from vesalius.tasks.segment.predict import Segmenter, new_model
from vesalius.tasks.segment.scoring import score_cases
from vesalius.tasks.segment.slide import lay_out, quarter_of, slide
from vesalius.training import budget, checkpoint, device
from vesalius.training.augment import Augmentation, augment
from vesalius.training.loop import Settings, StepLoss, Validate, fit
from vesalius.training.loss import deep_supervision_loss, dice_cross_entropy
from vesalius.training.order import batch_positions, step_random
from vesalius.types import Json, Progress

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort

CHECKED = 12  # validation images that the loop looks at; all of them are scored at the end


def train_run(
    run: Run,
    cohort: Cohort,
    cases: Cases,
    *,
    started: float,
    progress: Progress | None = None,
) -> Run:
    """Train until the plan's budget is used, or go on after an interruption; return the run.

    Args:
        run: with its plan and split written.
        cohort: of the plan.
        cases: of the cohort.
        started: `time.monotonic()` when the user's minutes began.
        progress: called as `progress(stage, done, total)`.
    """
    subsets = run.subsets()
    train, val = cases.subset(subsets, "train"), cases.subset(subsets, "val")
    if not val:
        raise CohortError("the split has no validation images; give a --split file that has")
    decisions, seed = run.decisions, int(run.plan["seed"])
    normalizer = fitted_normalizer(run, cohort, train, labelled=True)
    chosen = np.random.default_rng(seed).permutation(len(val))[:CHECKED]
    checked = [val[place] for place in sorted(chosen)]
    prepared = prepare(
        run.path / "cache", cohort, [*train, *checked], decisions, normalizer, progress
    )
    keys = [case.key for case in train if case.key in prepared.keys]
    if not keys:
        raise CohortError("no training image could be prepared; look at `vesalius check`")
    model = new_model(decisions, seed)
    fabric = device.start(decisions["precision"])
    step_loss = _step_loss(decisions, prepared, keys, seed, fabric.device)
    validate = _validation(decisions, prepared, [c.key for c in checked], fabric.device)
    if "steps" not in run.plan["measured"]:
        measured = budget.measure_steps(
            decisions["budget"],
            new_model(decisions, 0),
            step_loss=step_loss,
            validate=validate,
            fabric=fabric,
            started=started,
            finals=3 * len(val) / len(checked),  # with reading, resampling, surface distances
            most=max(10, decisions["max_epochs"] * len(train) // decisions["batch"]),
        )
        run = run.measure(**measured)
    outcome = fit(
        model,
        step_loss=step_loss,
        validate=validate,
        settings=Settings.from_plan(
            decisions["optimizer"], run.plan["measured"], budget.VALIDATIONS
        ),
        folder=run.path,
        fabric=fabric,
        progress=progress,
    )
    record = {"plan": run.id, "step": outcome.best_step}
    checkpoint.save_model(run.path / "model.safetensors", model, record)
    segmenter = Segmenter(model, decisions, normalizer)
    score_cases(run, segmenter, cohort, val, "val", progress=progress)
    shutil.rmtree(run.path / "cache", ignore_errors=True)
    lost = [f"image {k} could not be prepared: {why}" for k, why in prepared.failures.items()]
    return run.note(*lost).measure(
        finished=True,
        steps_done=outcome.steps,
        best_step=outcome.best_step,
        ended=outcome.ended,
        training_seconds=round(outcome.seconds, 1),
    )


def _step_loss(
    decisions: Json, prepared: Prepared, keys: Sequence[str], seed: int, where: torch.device
) -> StepLoss:
    settings = Augmentation.from_json(decisions["augmentation"])
    batch, spacing = decisions["batch"], tuple(decisions["spacing"])

    def step_loss(model: nn.Module, step: int) -> Tensor:
        rng = step_random(seed, step)
        chosen = [keys[place] for place in batch_positions(len(keys), batch, step, seed)]
        images, labels = draw(prepared, chosen, decisions, step * batch, rng)
        x, y = augment(
            torch.from_numpy(images).to(where),
            settings,
            rng,
            labels=torch.from_numpy(labels).to(where),
            spacing=spacing,
        )
        assert y is not None  # noqa: S101 - labels were given
        logits = model(x)
        if isinstance(logits, list):
            return deep_supervision_loss(dice_cross_entropy, logits, y)
        return dice_cross_entropy(logits, y)

    return step_loss


def _validation(
    decisions: Json, prepared: Prepared, keys: Sequence[str], where: torch.device
) -> Validate:
    """Dice of whole images on the plan's grid, voxels of all images pooled per label."""
    served = [key for key in keys if key in prepared.keys]
    if not served:
        raise CohortError("no validation image could be prepared; look at `vesalius check`")
    labels = decisions["labels"]

    def validate(model: nn.Module) -> dict[str, float]:
        shared, total = np.zeros(len(labels)), np.zeros(len(labels))
        for key in served:
            image, truth = np.asarray(prepared.image(key)), np.asarray(prepared.label(key))
            i, j, k = truth.shape
            layout = lay_out(
                (i, j, k), decisions, classes=1 + len(labels), memory=quarter_of(where)
            )
            found = np.zeros_like(truth)
            largest = Argmax(found, range(layout.classes), layout.shape)
            slide(lambda x: model(x.to(where)), image, layout, largest.take, device=where)
            for index in range(len(labels)):
                a, b = found == index + 1, truth == index + 1
                shared[index] += np.count_nonzero(a & b)
                total[index] += np.count_nonzero(a) + np.count_nonzero(b)
        dice = np.where(total > 0, 2 * shared / np.maximum(total, 1), 1.0)
        named = {f"dice_{name}": float(value) for name, value in zip(labels, dice, strict=True)}
        return {"score": float(dice.mean()), **named}

    return validate
