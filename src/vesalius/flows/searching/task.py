# SPDX-License-Identifier: Apache-2.0
"""What a search asks of a task; `classification` and `segmentation` are modules that answer."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, cast

from vesalius.types import Json

if TYPE_CHECKING:
    from pathlib import Path

    from vesalius.cohorts import Cohort
    from vesalius.flows.planning.draft import Data
    from vesalius.metrics.bootstrap import Statistics
    from vesalius.tasks.cases import Case, Cases
    from vesalius.tasks.run import Run
    from vesalius.tuning.space import Space

TASKS: Mapping[str, str] = {
    "classify": "vesalius.flows.searching.classification",
    "segment": "vesalius.flows.searching.segmentation",
}


class SearchedTask(Protocol):
    """A task that can be searched; a point is one of its space."""

    NAMES: tuple[str, ...]  # of all parameters that mean something
    ANSWERING: tuple[str, ...]  # modules that answering needs
    SERVED: tuple[str, ...]  # files and patterns in a run that answering needs

    def candidate_models(self, decisions: Json) -> list[str]:
        """Return the models that make sense for the data of a plan made by itself."""

    def declare(self, found: Json, decisions: Json, models: Sequence[str]) -> Space:
        """Return the space for a fingerprint and the plan made by itself, with these models."""

    def planned_model(self, parameters: Json) -> str:
        """Return the `model` that `vesalius plan` is asked for at a point."""

    def edited(self, decisions: Json, parameters: Json) -> Json:
        """Return the decisions of that plan with the point's values in them."""

    def smaller(self, parameters: Json) -> Json | None:
        """Return a point that takes less memory, None where there is none."""

    def like(self, parameters: Json) -> str:
        """Return a text that is equal where trials take about as long."""

    def lowest(self, parameters: Json, top: int) -> int:
        """Return the first rung at which a point makes sense."""

    def first(self, models: Sequence[str]) -> list[tuple[str, bool, str]]:
        """Return what is known to be good, in order: model, whether in full, and why."""

    def cases(self, cohort: Cohort, target: str | None, case: str, target_kind: str) -> Cases:
        """Return the cases of a cohort."""

    def quality(self, decisions: Json) -> str:
        """Return the name of the score that is searched by."""

    def train(self, run: Run, data: Data, shared: Path, started: float) -> Run:
        """Train a run that was begun; what trials share lies in a folder."""

    def answerer(self, run: Run, cohort: Cohort, device: str) -> Callable[[Case], bool]:
        """Load a finished run; return what answers a case and says whether it could."""

    def statistics(self, run: Run, rows: Sequence[Json]) -> Statistics:
        """Return the scores of a run's predictions as a function of the cases' weights."""

    def score(self, run: Run, cohort: Cohort, keys: Sequence[str], name: str) -> Json:
        """Score a run on some images under a subset's name, and return its metrics."""


def of_task(name: str) -> SearchedTask:
    """Return what answers for a task of `TASKS`."""
    return cast("SearchedTask", importlib.import_module(TASKS[name]))
