# SPDX-License-Identifier: Apache-2.0
"""Training a detector: windows from disk, the loop, rules of counting from validation rows."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from vesalius.errors import CohortError
from vesalius.files import write_json
from vesalius.metrics.detection import average_precision, match_images
from vesalius.tasks.cases import Cases
from vesalius.tasks.detect.boxes import Boxes
from vesalius.tasks.detect.counting import LEVEL, Evidence, fit_factors, fit_rules
from vesalius.tasks.detect.draw import draw
from vesalius.tasks.detect.images import Prepared, prepare
from vesalius.tasks.detect.predict import COUNTING, Detector, find_evidence, new_model
from vesalius.tasks.detect.score import score_cases
from vesalius.tasks.detect.targets import detection_loss, make_targets
from vesalius.tasks.normalizing import fitted_normalizer
from vesalius.tasks.run import Run
from vesalius.training import budget, checkpoint, device
from vesalius.training.augment import Augmentation, augment
from vesalius.training.loop import Settings, StepLoss, Validate, fit
from vesalius.training.order import batch_positions, step_random
from vesalius.types import Array, Json, Progress

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort

CHECKED = 24  # validation images that the loop looks at
HELD = 3  # of the validation images one in so many serves the intervals, and nothing else


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
    if len(val) < 2:
        raise CohortError(
            f"the split has {len(val)} validation images, and counting needs two at least; give a "
            "--split file that has more"
        )
    decisions, seed = run.decisions, int(run.plan["seed"])
    normalizer = fitted_normalizer(run, cohort, train)
    prepared = prepare(run.path / "cache", cohort, [*train, *val], decisions, normalizer, progress)
    keys = [case.key for case in train if case.key in prepared.boxes]
    choosing, held = _parts([case.key for case in val if case.key in prepared.boxes], seed)
    if not keys or not choosing:
        raise CohortError("no image could be prepared; look at `vesalius check`")
    model = new_model(decisions, seed)
    fabric = device.start(decisions["precision"])
    step_loss = _step_loss(decisions, prepared, keys, seed, fabric.device)
    validate = _validation(decisions, prepared, choosing[:CHECKED], fabric.device)
    if "steps" not in run.plan["measured"]:
        measured = budget.measure_steps(
            decisions["budget"],
            new_model(decisions, None),
            step_loss=step_loss,
            validate=validate,
            fabric=fabric,
            started=started,
            finals=8 * len(val) / len(choosing[:CHECKED]),  # mirrored, then from the files
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
    _write_rules(run, Detector(model, decisions, normalizer), prepared, choosing, held)
    score_cases(run, Detector.load(run), cohort, val, "val", progress=progress)
    shutil.rmtree(run.path / "cache", ignore_errors=True)
    lost = [f"image {k} could not be prepared: {why}" for k, why in prepared.failures.items()]
    served = (
        f"validation: {len(choosing)} images chose weights and thresholds, {len(held)} the width "
        "of the counts' intervals; scores of 'val' are therefore flattering"
    )
    return run.note(served, *lost).measure(
        finished=True,
        steps_done=outcome.steps,
        best_step=outcome.best_step,
        ended=outcome.ended,
        training_seconds=round(outcome.seconds, 1),
    )


def _parts(keys: Sequence[str], seed: int) -> tuple[list[str], list[str]]:
    """Return the validation images that choose, and those that serve the intervals alone."""
    order = [keys[place] for place in np.random.default_rng([seed, 3]).permutation(len(keys))]
    return order[len(order) // HELD :], order[: len(order) // HELD]


def annotated(boxes: Boxes, decisions: Json) -> Array:
    """Return which classes an image was annotated for, `(classes,)` Boolean.

    A class that nearly every training image shows many times, and this one not once, was left out.
    """
    counts = boxes.count(len(decisions["classes"]))
    always = np.isin(decisions["classes"], decisions["always"])
    return np.asarray(~always | (counts > 0))


def _step_loss(
    decisions: Json, prepared: Prepared, keys: Sequence[str], seed: int, where: torch.device
) -> StepLoss:
    # Where boxes lie is `draw`'s part.
    settings = Augmentation.from_json(
        {"rotation": 0.0, "scale": 0.0, "shift": 0.0, **decisions["augmentation"]["values"]}
    )
    batch, stride = decisions["batch"], decisions["network"]["options"]["stride"]
    known = {key: annotated(prepared.boxes[key], decisions) for key in keys}

    def step_loss(model: nn.Module, step: int) -> Tensor:
        rng = step_random(seed, step)
        chosen = [keys[place] for place in batch_positions(len(keys), batch, step, seed)]
        images, boxes = draw(prepared, chosen, decisions, rng)
        x, _ = augment(images.to(where), settings, rng)
        maps = model(x)
        table = np.stack([known[key] for key in chosen])
        targets = make_targets(boxes, table, (maps.shape[2], maps.shape[3]), stride)
        return detection_loss(maps, targets)

    return step_loss


def _validation(
    decisions: Json, prepared: Prepared, keys: Sequence[str], where: torch.device
) -> Validate:
    """Average precision of each class over whole images, not mirrored; their mean decides."""
    plain = {**decisions, "mirrored_answers": []}
    classes = decisions["classes"]

    def validate(model: nn.Module) -> dict[str, float]:
        found = [
            find_evidence(
                lambda x: model(x.to(where)).float(), prepared.image(key), plain
            ).candidates
            for key in keys
        ]
        truth = [prepared.boxes[key] for key in keys]
        scores = {}
        for label, name in enumerate(classes):
            matched = match_images(
                [(b.corners[b.labels == label], b.scores[b.labels == label]) for b in found],
                [b.corners[b.labels == label] for b in truth],
            )
            value = float(average_precision(matched)[0])
            if np.isfinite(value):
                scores[f"average_precision_{name}"] = value
        return {"score": float(np.mean([*scores.values()])) if scores else 0.0, **scores}

    return validate


def _write_rules(
    run: Run, detector: Detector, prepared: Prepared, choosing: Sequence[str], held: Sequence[str]
) -> None:
    classes = detector.classes
    found = {key: detector.evidence_of(prepared.image(key)) for key in [*choosing, *held]}

    def pairs(keys: Sequence[str]) -> tuple[list[Evidence], list[Boxes]]:
        return [found[key] for key in keys], [prepared.boxes[key] for key in keys]

    rules = fit_factors(fit_rules(*pairs(choosing), len(classes)), *pairs(held))
    write_json(
        run.path / COUNTING,
        {
            "level": LEVEL,
            "chose": len(choosing),
            "calibrated": len(held),
            "rules": {name: rule.to_json() for name, rule in zip(classes, rules, strict=True)},
        },
    )
