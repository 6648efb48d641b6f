# SPDX-License-Identifier: Apache-2.0
"""Training a segmenter: patches from disk, the loop, whole volumes for validation."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from vesalius.errors import CohortError
from vesalius.tasks.cases import Case, Cases
from vesalius.tasks.normalizing import fitted_normalizer
from vesalius.tasks.run import Run
from vesalius.tasks.segment.above import labeler
from vesalius.tasks.segment.ensemble import Ensemble
from vesalius.tasks.segment.folds import Part, learned, parts, read_folds
from vesalius.tasks.segment.footprint import sums_bytes
from vesalius.tasks.segment.largest_choice import told
from vesalius.tasks.segment.locate import Locator
from vesalius.tasks.segment.locate_fit import fit_locator
from vesalius.tasks.segment.neighbors import neighbors
from vesalius.tasks.segment.objective import objective
from vesalius.tasks.segment.patches import Prepared, draw, prepare
from vesalius.tasks.segment.predict import Segmenter, new_model
from vesalius.tasks.segment.scoring import score_cases
from vesalius.tasks.segment.slide import lay_out, slide
from vesalius.tasks.segment.structures import Structures, answers
from vesalius.tasks.segment.warm_start import adopt_normalizer, begin_with, gained, same_answers
from vesalius.training import budget, checkpoint, device
from vesalius.training.augment import Augmentation, augment
from vesalius.training.channels import drop_channels
from vesalius.training.log import read_log
from vesalius.training.loop import LOG, Outcome, Settings, StepLoss, Validate, fit
from vesalius.training.order import batch_positions, step_random
from vesalius.types import Json, Progress

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from vesalius.cohorts import Cohort

CHECKED = 12  # validation images that the loop looks at; all of them are scored at the end


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lesson:
    """What one network is trained with: its place, images by key, and the folder of its state."""

    number: int
    name: str
    keys: Sequence[str]
    checked: Sequence[str]
    seed: int
    folder: Path


def train_run(
    run: Run,
    cohort: Cohort,
    cases: Cases,
    *,
    started: float,
    progress: Progress | None = None,
    origin: Run | None = None,
) -> Run:
    """Train until the plan's budget is used, or go on after an interruption; return the run.

    Args:
        run: with its plan and split written, and its folds where the plan has some.
        cohort: of the plan.
        cases: of the cohort.
        started: `time.monotonic()` when the user's minutes began.
        progress: called as `progress(stage, done, total)`.
        origin: a finished run to begin with, see `warm_start`.
    """
    decisions, subsets, folds = run.decisions, run.subsets(), read_folds(run)
    several = parts(cases, subsets, folds)
    if not all(part.val for part in several):
        raise CohortError("the split has no validation images; give a --split file that has")
    train = learned(cases, subsets, len(several))
    if origin is not None:
        run = run.note(adopt_normalizer(run, origin))
    marked = Structures.of(decisions).marked
    normalizer = fitted_normalizer(run, cohort, train, labelled=marked)
    checked = [checked_cases(part.val, int(run.plan["seed"])) for part in several]
    needed = {case.key: case for some in (train, *checked) for case in some}
    prepared = prepare(
        run.path / "cache", cohort, list(needed.values()), decisions, normalizer, progress
    )
    lessons = [
        _lesson(run, prepared, number, part, some)
        for number, (part, some) in enumerate(zip(several, checked, strict=True))
    ]
    scored = train if folds else several[0].val
    fabric = device.start(decisions["precision"])
    if not folds:
        run = fit_locator(
            run,
            prepared,
            lessons[0].keys,
            lessons[0].checked,
            step_loss_of=partial(_step_loss, seed=lessons[0].seed, where=fabric.device),
            validate_of=partial(validation_of, where=fabric.device),
            fabric=fabric,
            started=started,
            progress=progress,
        )
    run = _measured(run, prepared, lessons, len(scored), fabric, started)
    members = [
        _train(run, prepared, lesson, fabric, origin, _told(progress, lesson, len(lessons)))
        for lesson in lessons
    ]
    model = members[0][0]
    if folds:
        model = Ensemble([one for one, _ in members], regions=decisions.get("regions", False))
    outcomes = [outcome for _, outcome in members]
    record = {"plan": run.id, "step": [outcome.best_step for outcome in outcomes]}
    checkpoint.save_model(run.path / "model.safetensors", model, record)
    segmenter = Segmenter(model, decisions, normalizer, locator=Locator.load(run))
    score_cases(run, segmenter, cohort, scored, "val", folds=folds, progress=progress)
    shutil.rmtree(run.path / "cache", ignore_errors=True)
    notes = [f"image {k} could not be prepared: {why}" for k, why in prepared.failures.items()]
    notes += told(run)
    if origin is not None and same_answers(decisions, origin):
        notes += [gained(read_log(one.folder / LOG), one.name) for one in lessons]
    return run.note(*notes).measure(finished=True, **_done(lessons, outcomes))


def checked_cases(val: Sequence[Case], seed: int) -> list[Case]:
    """Return the validation images that the loop looks at."""
    chosen = np.random.default_rng(seed).permutation(len(val))[:CHECKED]
    return [val[place] for place in sorted(chosen)]


def _lesson(
    run: Run, prepared: Prepared, number: int, part: Part, checked: Sequence[Case]
) -> _Lesson:
    keys = [case.key for case in part.train if case.key in prepared.keys]
    if not keys:
        raise CohortError("no training image could be prepared; look at `vesalius check`")
    return _Lesson(
        number=number,
        name=part.name,
        keys=keys,
        checked=[case.key for case in checked],
        seed=int(run.plan["seed"]) + number,
        folder=run.path / "networks" / part.name if part.name else run.path,
    )


def _measured(
    run: Run,
    prepared: Prepared,
    lessons: Sequence[_Lesson],
    scored: int,
    fabric: Fabric,
    started: float,
) -> Run:
    """Return the run with the number of steps of each network; measured once for all of them.

    Args:
        run: with its plan.
        prepared: the images.
        lessons: of the networks.
        scored: images that are scored in the end.
        fabric: device and precision.
        started: `time.monotonic()` when the user's minutes began.
    """
    if "steps" in run.plan["measured"]:
        return run
    decisions, first, several = run.decisions, lessons[0], len(lessons)
    measured = budget.measure_steps(
        budget.share(decisions["budget"], started, several),
        new_model(decisions, 0),
        step_loss=_step_loss(decisions, prepared, first.keys, first.seed, fabric.device),
        validate=validation_of(decisions, prepared, first.checked, fabric.device),
        fabric=fabric,
        started=started,
        # with reading, resampling, surface distances
        finals=3 * scored / len(first.checked) / several,
        most=max(10, decisions["max_epochs"] * len(first.keys) // decisions["batch"]),
    )
    return run.measure(**measured)


def _train(
    run: Run,
    prepared: Prepared,
    lesson: _Lesson,
    fabric: Fabric,
    origin: Run | None,
    progress: Progress | None,
) -> tuple[nn.Module, Outcome]:
    """Return one network with the weights of its best validation."""
    decisions = run.decisions
    model = new_model(decisions, lesson.seed)
    if origin is not None:
        begin_with(model, decisions, origin, lesson.number)
    outcome = fit(
        model,
        step_loss=_step_loss(decisions, prepared, lesson.keys, lesson.seed, fabric.device),
        validate=validation_of(decisions, prepared, lesson.checked, fabric.device),
        settings=Settings.from_plan(
            decisions["optimizer"], run.plan["measured"], budget.VALIDATIONS
        ),
        folder=lesson.folder,
        fabric=fabric,
        judge_start=origin is not None and same_answers(decisions, origin),
        progress=progress,
    )
    return model, outcome


def _told(progress: Progress | None, lesson: _Lesson, several: int) -> Progress | None:
    """Return what is told of one network's training: which of several it is."""
    if progress is None or several == 1:
        return progress
    return lambda stage, done, total: progress(
        f"{stage} fold {lesson.number + 1} of {several}", done, total
    )


def _done(lessons: Sequence[_Lesson], outcomes: Sequence[Outcome]) -> Json:
    """Return what is measured of the trainings, by network where there are several."""
    each = [
        {
            "steps_done": outcome.steps,
            "best_step": outcome.best_step,
            "ended": outcome.ended,
            "training_seconds": round(outcome.seconds, 1),
        }
        for outcome in outcomes
    ]
    if len(each) == 1:
        return each[0]
    return {"networks": {one.name: done for one, done in zip(lessons, each, strict=True)}}


def _step_loss(
    decisions: Json, prepared: Prepared, keys: Sequence[str], seed: int, where: torch.device
) -> StepLoss:
    settings = Augmentation.from_json(decisions["augmentation"])
    batch, spacing = decisions["batch"], tuple(decisions["spacing"])
    structures, dropout = Structures.of(decisions), decisions.get("channel_dropout", 0.0)

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
        if dropout:
            x = drop_channels(x, dropout, rng, slices=1 + 2 * neighbors(decisions))
        return objective(model(x), y, structures)

    return step_loss


def validation_of(
    decisions: Json, prepared: Prepared, keys: Sequence[str], where: torch.device
) -> Validate:
    """Dice of whole images on the plan's grid, voxels of all images pooled per structure.

    Voxels that are to be ignored count nowhere.
    """
    served = [key for key in keys if key in prepared.keys]
    if not served:
        raise CohortError("no validation image could be prepared; look at `vesalius check`")
    structures = Structures.of(decisions)
    labels, room = decisions["labels"], sums_bytes(decisions, where)
    indices = range(1, 1 + len(labels))

    def validate(model: nn.Module) -> dict[str, float]:
        shared, total = np.zeros(len(labels)), np.zeros(len(labels))
        for key in served:
            image, truth = np.asarray(prepared.image(key)), np.asarray(prepared.label(key))
            i, j, k = truth.shape
            layout = lay_out((i, j, k), decisions, classes=answers(decisions), memory=room)
            found = np.zeros((structures.layers, i, j, k), np.uint8)
            labels_of = labeler(found, indices, layout.shape, regions=structures.regions)
            slide(lambda x: model(x.to(where)), image, layout, labels_of.take, device=where)
            if structures.ignored:
                found[:, structures.ignores(truth)] = 0
            for index in indices:
                a = found[index - 1 if structures.regions else 0] == index
                b = structures.members(truth, index)
                shared[index - 1] += np.count_nonzero(a & b)
                total[index - 1] += np.count_nonzero(a) + np.count_nonzero(b)
        dice = np.where(total > 0, 2 * shared / np.maximum(total, 1), 1.0)
        named = {f"dice_{name}": float(value) for name, value in zip(labels, dice, strict=True)}
        return {"score": float(dice.mean()), **named}

    return validate
