# SPDX-License-Identifier: Apache-2.0
"""Classification as it is searched; see `task.SearchedTask`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vesalius.flows.searching.classification_parameters import (
    NAMES,
    candidate_models,
    declare,
    edited,
    first,
    like,
    lowest,
    planned_model,
    smaller,
)  # fmt: skip
from vesalius.types import Array, Json

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort
    from vesalius.flows.planning.draft import Data
    from vesalius.metrics.bootstrap import Statistics
    from vesalius.tasks.cases import Case, Cases
    from vesalius.tasks.run import Run

__all__ = [
    "ANSWERING", "NAMES", "SERVED", "answerer", "candidate_models", "cases", "declare",
    "edited", "first", "like", "lowest", "planned_model", "quality", "score", "smaller",
    "statistics", "train",
]  # fmt: skip

ANSWERING = ("vesalius.io", "vesalius.tasks.classify.predict")
SERVED = (
    "model.safetensors", "normalizer.json", "plan.json", "trust.json", "trust.safetensors",
    "encoder.*",
)  # fmt: skip
_QUALITY = {
    "binary": "auc",
    "multiclass": "auc",
    "multilabel": "auc",
    "ordinal": "quadratic_weighted_kappa",
    "regression": "r2",
}


def cases(cohort: Cohort, target: str | None, case: str, target_kind: str) -> Cases:
    """See `SearchedTask.cases`."""
    from vesalius.tasks.cases import classification_cases

    return classification_cases(cohort, target, case, target_kind=target_kind)


def quality(decisions: Json) -> str:
    """See `SearchedTask.quality`."""
    return _QUALITY[decisions["target"]["kind"]]


def train(run: Run, data: Data, shared: Path, started: float) -> Run:
    """See `SearchedTask.train`."""
    from vesalius.flows.searching.shared_views import link_views
    from vesalius.tasks.classify.fit import train_run

    parts = {name: data.subset(name) for name in ("train", "val", "calibration")}
    link_views(shared, run, data.cohort, parts)
    return train_run(run, data.cohort, data.cases, started=started)


def answerer(run: Run, cohort: Cohort, device: str) -> Callable[[Case], bool]:
    """See `SearchedTask.answerer`."""
    import torch

    from vesalius.tasks.classify.predict import Classifier

    classifier = Classifier.load(run)
    if device == "cpu":
        classifier.device = torch.device("cpu")
        for member in classifier.mixture.members:
            member.module.to(classifier.device)

    def answer(case: Case) -> bool:
        (found,) = classifier.answer(cohort, [case])
        return found.probabilities is not None

    return answer


def statistics(run: Run, rows: Sequence[Json]) -> Statistics:
    """See `SearchedTask.statistics`."""
    from vesalius import metrics
    from vesalius.tasks.targets import Target

    target = Target.from_json(run.decisions["target"])

    def column(name: str) -> Array:
        return np.array([np.nan if row[name] is None else row[name] for row in rows], np.float64)

    failed = np.array([bool(row["failed"]) for row in rows])
    truths = [str(row["truth"]) for row in rows]
    if target.kind == "regression":
        numbers = [target.number(text) for text in truths]
        return metrics.regression_statistics(numbers, column("value"), failed=failed)
    classes = list(target.classes)
    table = np.column_stack([column(f"p_{name}") for name in classes])
    of = {
        "multilabel": metrics.multilabel_statistics,
        "ordinal": metrics.ordinal_statistics,
    }.get(target.kind, metrics.classification_statistics)
    return of(target.encode(truths), table, classes, failed=failed)


def score(run: Run, cohort: Cohort, keys: Sequence[str], name: str) -> Json:
    """See `SearchedTask.score`."""
    from vesalius.tasks.cases import classification_cases
    from vesalius.tasks.classify.predict import Classifier
    from vesalius.tasks.classify.scoring import score_cases
    from vesalius.tasks.targets import Target

    known = Target.from_json(run.decisions["target"])
    found = classification_cases(cohort, run.plan["target"], run.decisions["case"], known=known)
    chosen = found.subset(dict.fromkeys(keys, name), name)
    return score_cases(run, Classifier.load(run), cohort, chosen, name)
