# SPDX-License-Identifier: Apache-2.0
"""Probabilities of new cases from a run: the one way, used by evaluation, predict and serving."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import torch

from vesalius.errors import DataError, RunError
from vesalius.metrics import classification_summary
from vesalius.normalization import Normalizer
from vesalius.tasks.cases import Case
from vesalius.tasks.classify.model import SetClassifier, new_model, pooling_weights
from vesalius.tasks.classify.views import make_views
from vesalius.tasks.run import Run
from vesalius.training import device
from vesalius.types import Array, Json, Progress
from vesalius.volume import Volume

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort

_VIEWS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Answer:
    """What a classifier says of one case: probabilities `(classes,)`, or why it cannot."""

    probabilities: Array | None
    reason: str = ""  # of a failure, or of images that were left out


class Classifier:
    """A trained model with its normalizer, in evaluation mode, 32 bit."""

    def __init__(self, model: SetClassifier, decisions: Json, normalizer: Normalizer) -> None:
        self.decisions = decisions
        self.normalizer = normalizer
        fabric = device.start()
        self.device = fabric.device
        self.model = model.to(self.device).eval()

    @classmethod
    def load(cls, run: Run) -> Self:
        """Load a run's weights; nothing is unpickled.

        Raises:
            RunError: the run is of another task, or incomplete.
        """
        if run.task != "classify":
            raise RunError(f"the run must be of the task 'classify', got '{run.task}'")
        model = new_model(run.decisions, 0)
        model.load_state_dict(run.weights())
        return cls(model, run.decisions, run.normalizer())

    @property
    def classes(self) -> list[str]:
        """Class names, in the order of the probabilities."""
        return list(self.decisions["classes"])

    def views(self, volume: Volume) -> Array:
        """Return the views of one image."""
        return make_views(volume, self.decisions, self.normalizer)

    def probabilities(self, cases: Sequence[Sequence[Array]]) -> Array:
        """Return `(cases, classes)` from the views of each image of each case."""
        pooled = pooling_weights([[len(views) for views in images] for images in cases])
        flat = np.concatenate([views for images in cases for views in images])
        with torch.inference_mode():
            encoded = [
                self.model.encode(torch.from_numpy(part.astype(np.float32)).to(self.device))
                for part in np.array_split(flat, -(-len(flat) // _VIEWS_AT_ONCE))
            ]
            weights = torch.from_numpy(pooled).to(self.device)
            logits = self.model.classify(torch.cat(encoded), weights)
        return torch.softmax(logits.double(), dim=1).cpu().numpy()

    def predict(self, images: Iterable[Volume]) -> Array:
        """Return the probabilities `(classes,)` of one case, in whatever order its images come.

        Raises:
            DataError: no image, or one that cannot be normalized.
        """
        views = [self.views(volume) for volume in images]
        if not views:
            raise DataError("a case needs at least one image, got none")
        return np.asarray(self.probabilities([views])[0])

    def answer(self, cohort: Cohort, cases: Sequence[Case]) -> Iterator[Answer]:
        """Yield an answer for each case, reading from the cohort a few cases at a time."""
        waiting: list[tuple[list[Array], str]] = []
        for case in cases:
            waiting.append(self._read(cohort, case))
            if sum(len(v) for views, _ in waiting for v in views) >= _VIEWS_AT_ONCE:
                yield from self._flush(waiting)
                waiting = []
        yield from self._flush(waiting)

    def _read(self, cohort: Cohort, case: Case) -> tuple[list[Array], str]:
        """Return the views of the images that can be read, and why others cannot."""
        views, reasons = [], []
        for row in case.rows:
            try:
                views.append(self.views(cohort.read(row)))
            except DataError as error:
                reasons.append(f"image {row['key']}: {getattr(error, 'reason', error)}")
        return views, "; ".join(reasons)

    def _flush(self, waiting: list[tuple[list[Array], str]]) -> Iterator[Answer]:
        served = [views for views, _ in waiting if views]
        table: Array = self.probabilities(served) if served else np.empty((0, 0))
        answers = iter(table)
        for views, reason in waiting:
            yield Answer(next(answers) if views else None, reason)


def score_cases(
    run: Run,
    classifier: Classifier,
    cohort: Cohort,
    cases: Sequence[Case],
    split: str,
    *,
    progress: Progress | None = None,
) -> Json:
    """Predict one subset, write `predictions.parquet` and `metrics.json`, return the metrics.

    A case without any readable image counts as a failure.
    """
    answers: list[Answer] = []
    for answer in classifier.answer(cohort, cases):
        answers.append(answer)
        if progress is not None:
            progress(f"scoring {split}", len(answers), len(cases))
    return write_scores(run, cases, answers, split)


def write_scores(run: Run, cases: Sequence[Case], answers: Sequence[Answer], split: str) -> Json:
    """Write predictions and metrics of one subset from its answers."""
    classes = run.decisions["classes"]
    uniform = np.full(len(classes), 1 / len(classes))
    failed = np.array([answer.probabilities is None for answer in answers])
    table = np.stack([uniform if a.probabilities is None else a.probabilities for a in answers])
    truth = [classes.index(case.truth) for case in cases]
    rows = []
    for case, answer, p, index in zip(cases, answers, table, truth, strict=True):
        lost = answer.probabilities is None
        rows.append(
            {
                "key": case.key,
                "patient": case.patient,
                "split": split,
                "truth": case.truth,
                "predicted": None if lost else classes[int(p.argmax())],
                **{f"p_{n}": None if lost else float(v) for n, v in zip(classes, p, strict=True)},
                "loss": None if lost else float(-np.log(max(p[index], 1e-12))),
                "failed": lost,
                "reason": answer.reason,
                "modality": case.value("modality"),
                "scanner": case.value("scanner"),
            }
        )
    train = run.plan["fingerprint"]["cases_per_class"]
    summary = classification_summary(
        np.array(truth),
        table,
        classes,
        [case.patient for case in cases],
        failed=failed,
        groups={name: [str(row[name]) for row in rows] for name in ("modality", "scanner")},
        frequencies=[train.get(name, 0) / sum(train.values()) for name in classes],
    )
    run.write_predictions(split, rows)
    return run.write_metrics(split, summary)
