# SPDX-License-Identifier: Apache-2.0
"""A student: one small network that is taught by a mixture's answers, then a run like any other.

1. The views of training, validation, calibration and unlabeled images are written to its cache.
2. The teacher is asked about as many lessons as fit, see `student_lessons`.
3. The network goes through them again and again; the state with the least loss on validation cases
   is kept. What it lost against teacher and labels is `loss`.
4. `fit.train_run` finds a network that is trained, and does the rest as for every run: trust,
   scores and predictions. So nothing that takes a run needs to know of students.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor, nn

from vesalius.errors import CohortError
from vesalius.tasks.cases import Case, Cases
from vesalius.tasks.classify.batch import make_batch
from vesalius.tasks.classify.candidates import class_weights
from vesalius.tasks.classify.clock import Clock
from vesalius.tasks.classify.ensemble import losses
from vesalius.tasks.classify.fit import train_run
from vesalius.tasks.classify.model import new_model
from vesalius.tasks.classify.network import logits_of
from vesalius.tasks.classify.predict import Classifier
from vesalius.tasks.classify.store import Store, prepare
from vesalius.tasks.classify.student_lessons import Lessons, single_views
from vesalius.tasks.classify.student_teacher import ask
from vesalius.tasks.run import Run
from vesalius.tasks.targets import Target
from vesalius.training import budget, device, distill
from vesalius.training.loop import Settings, StepLoss, Validate, fit
from vesalius.types import Array, Json, Progress

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from vesalius.cohorts import Cohort
    from vesalius.tasks.classify.model import SetClassifier

TEMPERATURE = 2.0
TAUGHT = 0.8  # share of the teacher in the loss; the rest is for the labels
ASKING = 0.4  # of the time left that asking the teacher may take
_ASKED = 100  # epochs after which the lessons begin again in any case
_FINALS = 6.0  # the work after training, in validations
_ANSWERS = "taught.npy"


def train_student(
    run: Run,
    cohort: Cohort,
    cases: Cases,
    unlabeled: Sequence[Case],
    teacher: Run,
    *,
    started: float,
    progress: Progress | None = None,
) -> Run:
    """Train until the plan's budget is used, or go on after an interruption; return the run.

    Args:
        run: with its plan (of one network, and `teacher`), split and normalizer written.
        cohort: of the teacher.
        cases: of the cohort, with truths.
        unlabeled: cases that lie in no subset but training, and whose truth is not known.
        teacher: a finished run.
        started: `time.monotonic()` when the user's minutes began.
        progress: called as `progress(stage, done, total)`.

    Raises:
        CohortError: no image can be used. BudgetError: the minutes do not suffice.
    """
    subsets, decisions = run.subsets(), run.decisions
    parts = [cases.subset(subsets, name) for name in ("train", "val", "calibration")]
    clock = Clock.of(decisions["budget"], started, {})
    everything = [case for part in (*parts, unlabeled) for case in part]
    store = prepare(
        run.path / "cache", cohort, everything, decisions, run.normalizer(), clock, progress
    )
    train, val, strangers = (store.served(part) for part in (parts[0], parts[1], unlabeled))
    if not train or not val:
        raise CohortError("no image of training or of validation can be used: see `vesalius check`")
    (spec,) = decisions["networks"]
    lessons = Lessons(
        spec, store, train, strangers, Target.from_json(decisions["target"]),
        int(run.plan["seed"]), single_views(store, [*train, *strangers]),
    )  # fmt: skip
    fabric = device.start(decisions["precision"])
    if "networks" not in run.plan["measured"]:
        run = _ask_and_measure(run, lessons, val, teacher, clock, fabric, progress)
    taught = np.load(run.path / "cache" / _ANSWERS)
    model = new_model(spec, lessons.target.outputs, lessons.seed)
    fit(
        model,
        step_loss=_step_loss(lessons, taught, decisions, fabric.device),
        validate=_validation(store, val, lessons.target, fabric.device),
        settings=Settings.from_plan(
            spec["optimizer"], run.plan["measured"]["networks"][spec["name"]], budget.VALIDATIONS
        ),
        folder=run.path / "networks" / spec["name"],
        fabric=fabric,
        progress=progress,
    )
    return train_run(run, cohort, cases, started=started, progress=progress)


def loss(
    target: Target,
    logits: Tensor,
    taught: Tensor,
    told: Tensor,
    truth: Tensor,
    *,
    temperature: float,
    share: float,
    weights: Tensor | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """Return what a student lost on one lesson: against its teacher, and against the labels.

    Args:
        target: what is learned.
        logits: `(N, outputs)`.
        taught: the teacher's answers `(N, ...)`, in the form of `Target.probabilities`.
        told: Boolean `(N,)`, of cases whose truth is told.
        truth: of these alone, as `Target.encode` gives it.
        temperature: of both sides, see `training.distill`; of grades and numbers there is none.
        share: of the teacher; the labels have the rest, times the share of cases with a truth.
        weights, smoothing: of the labels, see `Target.loss`.
    """
    if target.kind == "regression":
        against = target.loss(logits, (taught[:, 0] - target.unit_mean) / target.unit_sd)
    elif target.kind == "ordinal":
        against = target.loss(logits, taught)
    elif target.kind == "multilabel":
        against = distill.taught_labels(logits, taught, temperature=temperature)
    else:
        against = distill.taught_classes(logits, taught, temperature=temperature)
    if not bool(told.any()):
        return share * against
    own = target.loss(logits[told], truth, weights, smoothing=smoothing)
    return share * against + (1 - share) * told.float().mean() * own


def _ask_and_measure(
    run: Run,
    lessons: Lessons,
    val: Sequence[Case],
    teacher: Run,
    clock: Clock,
    fabric: Fabric,
    progress: Progress | None,
) -> Run:
    """Ask the teacher, and return the run with its number of lessons and of steps."""
    spec, asked = lessons.spec, run.decisions["budget"]
    longest, most = spec["max_epochs"] * lessons.epoch, _ASKED * lessons.epoch
    until = clock.left * (1 - ASKING)
    taught = ask(
        run.path / "cache" / _ANSWERS,
        lessons,
        Classifier.load(teacher).mixture,
        most=min(most, asked.get("steps", most)),
        late=lambda: clock.minutes is not None and clock.left < until,
        progress=progress,
    )
    measured = budget.measure_steps(
        asked,
        new_model(spec, lessons.target.outputs, 0),
        step_loss=_step_loss(lessons, taught, run.decisions, fabric.device),
        validate=_validation(lessons.store, val, lessons.target, fabric.device),
        fabric=fabric,
        started=clock.started,
        finals=_FINALS,
        most=max(10, longest),
    )
    run = run.note(
        f"taught by {len(taught)} lessons of {spec['batch']} cases each: {len(lessons.labelled)} "
        f"with a label, {len(lessons.unlabeled)} without"
    )
    return run.measure(lessons=len(taught), networks={spec["name"]: measured})


def _step_loss(lessons: Lessons, taught: Array, decisions: Json, where: torch.device) -> StepLoss:
    weights = class_weights(decisions)
    weights = None if weights is None else weights.to(where)
    by = decisions["teacher"]

    def step_loss(model: nn.Module, step: int) -> Tensor:
        number = step % len(taught)
        told, truth = lessons.truths(number)
        batch = make_batch(lessons.images(number)).to(where)
        torch.manual_seed(lessons.seed + step)  # dropout
        return loss(
            lessons.target,
            model(batch),
            torch.from_numpy(taught[number]).to(where),
            torch.from_numpy(told).to(where),
            torch.as_tensor(truth, device=where),
            temperature=by["temperature"],
            share=by["share"],
            weights=weights,
            smoothing=lessons.spec["label_smoothing"],
        )

    return step_loss


def _validation(store: Store, val: Sequence[Case], target: Target, where: torch.device) -> Validate:
    codes = target.encode([case.truth for case in val])

    def validate(model: nn.Module) -> dict[str, float]:
        network = cast("SetClassifier", model)  # perhaps wrapped by Fabric
        logits = logits_of(network, [store.images(case) for case in val], where)
        mean = float(losses(target.probabilities(logits), codes, target).mean())
        return {"score": -mean, "loss": mean}

    return validate
