# SPDX-License-Identifier: Apache-2.0
"""Segmentation as it is searched; see `task.SearchedTask`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.errors import DataError, UsageError
from vesalius.flows.searching.segmentation_parameters import (
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
from vesalius.types import Json

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

ANSWERING = ("vesalius.io", "vesalius.tasks.segment.predict")
SERVED = ("model.safetensors", "normalizer.json", "plan.json", "quality.json", "locator/*")


def cases(cohort: Cohort, target: str | None, case: str, target_kind: str) -> Cases:
    """See `SearchedTask.cases`."""
    from vesalius.tasks.cases import segmentation_cases

    if target is not None or case != "auto" or target_kind != "auto":
        raise UsageError("target, case and target_kind belong to classify; leave them out")
    return segmentation_cases(cohort)


def quality(decisions: Json) -> str:  # noqa: ARG001 - as of every task
    """See `SearchedTask.quality`."""
    return "dice"


def train(run: Run, data: Data, shared: Path, started: float) -> Run:  # noqa: ARG001 - patches and grids differ
    """See `SearchedTask.train`."""
    from vesalius.tasks.segment.fit import train_run

    return train_run(run, data.cohort, data.cases, started=started)


def answerer(run: Run, cohort: Cohort, device: str) -> Callable[[Case], bool]:
    """See `SearchedTask.answerer`."""
    from vesalius.tasks.segment.predict import Segmenter

    segmenter = Segmenter.load(run)
    if device == "cpu" and segmenter.fabric.device.type != "cpu":
        raise UsageError(
            "a segmentation answers on this machine's GPU; to measure latency on the CPU, search "
            "with CUDA_VISIBLE_DEVICES set to nothing"
        )

    def answer(case: Case) -> bool:
        try:
            segmenter.predict(cohort.read(case.rows[0]))
        except DataError:  # an image that cannot be read is scored as a failure
            return False
        return True

    return answer


def statistics(run: Run, rows: Sequence[Json]) -> Statistics:
    """See `SearchedTask.statistics`."""
    from vesalius.metrics import segmentation_statistics

    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return segmentation_statistics(columns, list(run.decisions["labels"]))


def score(run: Run, cohort: Cohort, keys: Sequence[str], name: str) -> Json:
    """See `SearchedTask.score`."""
    from vesalius.tasks.cases import segmentation_cases
    from vesalius.tasks.segment.predict import Segmenter
    from vesalius.tasks.segment.scoring import score_cases

    chosen = segmentation_cases(cohort).subset(dict.fromkeys(keys, name), name)
    return score_cases(run, Segmenter.load(run), cohort, chosen, name)
