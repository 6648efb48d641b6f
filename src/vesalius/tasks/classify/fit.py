# SPDX-License-Identifier: Apache-2.0
"""Training a classifier: views on disk, batches of cases, the loop, the final validation."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from vesalius.errors import CohortError, DataError
from vesalius.files import fsync_file, read_json, write_json
from vesalius.metrics import classification_scores
from vesalius.normalization import Normalizer
from vesalius.tasks.cases import Case, Cases
from vesalius.tasks.classify.model import new_model, pooling_weights
from vesalius.tasks.classify.predict import Answer, Classifier, write_scores
from vesalius.tasks.classify.views import make_views
from vesalius.tasks.normalizing import fitted_normalizer
from vesalius.tasks.run import Run
from vesalius.training import budget, checkpoint, device
from vesalius.training.augment import Augmentation, augment
from vesalius.training.loop import Settings, StepLoss, Validate, fit
from vesalius.training.loss import cross_entropy
from vesalius.training.order import batch_positions, step_random
from vesalius.types import Array, Json, Progress

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort

_CASES_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Views:
    """The prepared views of all training and validation images, in one memory-mapped file."""

    array: Array  # (views, C, ...) float16, on disk
    places: dict[str, tuple[int, int]]  # image key -> first view, number of views
    failures: dict[str, str]  # image key -> why it could not be prepared

    def of(self, key: str) -> Array:
        """Return the views of one image."""
        start, count = self.places[key]
        return np.asarray(self.array[start : start + count])


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
        raise CohortError("the split has no validation cases; give a --split file that has")
    decisions, seed = run.decisions, int(run.plan["seed"])
    normalizer = fitted_normalizer(run, cohort, train)
    views = _prepare(run, cohort, [*train, *val], normalizer, progress)
    train = [case for case in train if any(row["key"] in views.places for row in case.rows)]
    model = new_model(decisions, seed)
    fabric = device.start(decisions["precision"])
    step_loss = _step_loss(decisions, views, train, seed, fabric.device)
    validate = _validation(decisions, views, val, fabric.device)
    if "steps" not in run.plan["measured"]:
        measured = budget.measure_steps(
            decisions["budget"],
            new_model(decisions, 0),
            step_loss=step_loss,
            validate=validate,
            fabric=fabric,
            started=started,
            finals=4,  # in 32 bit, with scores and report
            most=max(10, decisions["max_epochs"] * len(train) // decisions["batch"]),
        )
        run = run.measure(**measured)
    settings = Settings.from_plan(decisions["optimizer"], run.plan["measured"], budget.VALIDATIONS)
    outcome = fit(
        model,
        step_loss=step_loss,
        validate=validate,
        settings=settings,
        folder=run.path,
        fabric=fabric,
        progress=progress,
    )
    record = {"plan": run.id, "step": outcome.best_step}
    checkpoint.save_model(run.path / "model.safetensors", model, record)
    classifier = Classifier(model, decisions, normalizer)
    write_scores(run, val, list(_answers(classifier, views, val)), "val")
    shutil.rmtree(run.path / "cache", ignore_errors=True)
    lost = [f"image {key} could not be prepared: {why}" for key, why in views.failures.items()]
    return run.note(*lost).measure(
        finished=True,
        steps_done=outcome.steps,
        best_step=outcome.best_step,
        ended=outcome.ended,
        training_seconds=round(outcome.seconds, 1),
    )


def _prepare(
    run: Run,
    cohort: Cohort,
    cases: Sequence[Case],
    normalizer: Normalizer,
    progress: Progress | None,
) -> Views:
    """Write the views of every image to the run's cache, one image in memory at a time."""
    folder = run.path / "cache"
    index = folder / "views.json"
    if index.exists():
        held = read_json(index)
        shape, places = held["shape"], {k: (a, n) for k, (a, n) in held["places"].items()}
        failures = held["failures"]
    else:
        folder.mkdir(parents=True, exist_ok=True)
        places, failures, shape = {}, {}, []
        rows = [row for case in cases for row in case.rows]
        total = 0
        with (folder / "views.f16").open("wb") as stream:
            for done, row in enumerate(rows, 1):
                try:
                    views = make_views(cohort.read(row), run.decisions, normalizer)
                except DataError as error:
                    failures[row["key"]] = str(getattr(error, "reason", error))
                    continue
                stream.write(np.ascontiguousarray(views).tobytes())
                places[row["key"]] = (total, len(views))
                total += len(views)
                shape = [total, *views.shape[1:]]
                if progress is not None:
                    progress("preparing images", done, len(rows))
        if not places:
            raise CohortError(
                f"none of the {len(rows)} images can be used; the first says: "
                f"{next(iter(failures.values()))}"
            )
        fsync_file(folder / "views.f16")
        write_json(index, {"shape": shape, "places": places, "failures": failures})
    array = np.memmap(folder / "views.f16", np.float16, "r", shape=tuple(shape))
    return Views(array, places, failures)


def _step_loss(
    decisions: Json, views: Views, train: Sequence[Case], seed: int, where: torch.device
) -> StepLoss:
    settings = Augmentation(
        rotation=decisions["augmentation"]["rotation"],
        scale=decisions["augmentation"]["scale"],
        shift=decisions["augmentation"]["shift"],
        flips=tuple(decisions["augmentation"]["flips"]),
    )
    classes = {name: index for index, name in enumerate(decisions["classes"])}
    weights = torch.tensor(decisions["class_weights"], device=where)
    most = decisions["input"]["views"]

    def step_loss(model: nn.Module, step: int) -> Tensor:
        rng = step_random(seed, step)
        chosen = [train[p] for p in batch_positions(len(train), decisions["batch"], step, seed)]
        drawn = [_draw(case, views, most, rng) for case in chosen]
        batch = np.concatenate([part for case in drawn for part in case]).astype(np.float32)
        moved, _ = augment(torch.from_numpy(batch).to(where), settings, rng)
        pooling = torch.from_numpy(pooling_weights([[len(p) for p in case] for case in drawn]))
        truth = torch.tensor([classes[case.truth] for case in chosen], device=where)
        torch.manual_seed(int(rng.integers(2**31)))  # dropout
        logits = model(moved, pooling.to(where))
        return cross_entropy(logits, truth, weights, smoothing=decisions["label_smoothing"])

    return step_loss


def _draw(case: Case, views: Views, most: int, rng: np.random.Generator) -> list[Array]:
    """Return at most about `most` views of a case, spread over its images."""
    keys = [row["key"] for row in case.rows if row["key"] in views.places]
    if len(keys) > most:
        keys = [keys[place] for place in rng.choice(len(keys), most, replace=False)]
    each = max(1, most // len(keys))
    out = []
    for key in keys:
        held = views.of(key)
        if len(held) > each:
            held = held[np.sort(rng.choice(len(held), each, replace=False))]
        out.append(held)
    return out


def _validation(
    decisions: Json, views: Views, val: Sequence[Case], where: torch.device
) -> Validate:
    classes = decisions["classes"]
    served = [c for c in val if any(row["key"] in views.places for row in c.rows)]
    truth = np.array([classes.index(case.truth) for case in served])

    def validate(model: nn.Module) -> dict[str, float]:
        logits = []
        for start in range(0, len(served), 16):
            held = [
                [views.of(row["key"]) for row in case.rows if row["key"] in views.places]
                for case in served[start : start + 16]
            ]
            batch = np.concatenate([part for case in held for part in case]).astype(np.float32)
            pooling = torch.from_numpy(pooling_weights([[len(p) for p in c] for c in held]))
            logits.append(model(torch.from_numpy(batch).to(where), pooling.to(where)).cpu())
        table = torch.softmax(torch.cat(logits).double(), dim=1).numpy()
        patients = [case.patient for case in served]
        scores = classification_scores(truth, table, classes, patients, draws=1)
        found = {s.name: s.value for s in scores if not s.label}
        loss = float(-np.log(np.maximum(table[np.arange(len(truth)), truth], 1e-12)).mean())
        auc = found.get("auc")
        # The loss breaks ties between equal areas, and decides where the area is undefined.
        return {
            "score": (auc or 0.0) - 1e-3 * loss,
            "loss": loss,
            **({} if auc is None else {"auc": auc}),
        }

    return validate


def _answers(classifier: Classifier, views: Views, cases: Sequence[Case]) -> Iterator[Answer]:
    """Yield the answers for prepared cases, in order, some at a time."""
    for start in range(0, len(cases), _CASES_AT_ONCE):
        part = cases[start : start + _CASES_AT_ONCE]
        held = [[views.of(k) for k in _keys(case) if k in views.places] for case in part]
        served = [images for images in held if images]
        answers: Array = classifier.probabilities(served) if served else np.empty((0, 0))
        table = iter(answers)
        for case, images in zip(part, held, strict=True):
            lost = [f"image {k}: {views.failures[k]}" for k in _keys(case) if k in views.failures]
            yield Answer(next(table) if images else None, "; ".join(lost))


def _keys(case: Case) -> list[str]:
    return [row["key"] for row in case.rows]
