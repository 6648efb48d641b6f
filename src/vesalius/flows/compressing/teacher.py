# SPDX-License-Identifier: Apache-2.0
"""The run that a student learns from: the one that is named, or the best of a search."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.errors import CohortError, RunError, UsageError
from vesalius.flows.searching.request import FILE as SEARCH
from vesalius.types import PathLike

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort
    from vesalius.tasks.run import Run

TASKS = ("classify", "segment")
_USED = ("train", "val", "calibration")


def find_teacher(given: PathLike | Run) -> tuple[Run, str]:
    """Return the teacher, and where it comes from, for the audit.

    Args:
        given: a run, its folder, or the folder of a search that has ended.

    Raises:
        UsageError: a run of another task.
        RunError: no run and no search, one that is not finished, or whose weights are gone.
    """
    from vesalius.tasks.run import Run

    if not isinstance(given, Run) and (Path(given) / SEARCH).exists():
        run, origin = _best_of(Path(given))
    else:
        run = given if isinstance(given, Run) else Run.load(given)
        origin = f"student of the run {run.task}-{run.id[:8]}"
    if run.task not in TASKS:
        raise UsageError(f"compress takes a run of {' or '.join(TASKS)}, got one of {run.task}")
    if not run.finished:
        raise RunError(f"the run '{run.path}' is not finished; finish its training first")
    if not (run.path / "model.safetensors").exists():
        raise RunError(f"the run '{run.path}' has no weights any more; train it again")
    return run, origin


def check_cohort(teacher: Run, cohort: Cohort) -> Cohort:
    """Return the rows of the cohort that the teacher was made from; new ones may have been added.

    Raises:
        CohortError: it lacks images of the teacher.
    """
    where = teacher.plan["cohort"]["where"]
    chosen = cohort.filter(where) if where else cohort
    held = set(chosen.keys())
    used = {key for key, subset in teacher.subsets().items() if subset in _USED}
    if lost := len(used - held):
        raise CohortError(
            f"the cohort lacks {lost} of the {len(used)} images that the run was made from; give "
            "the cohort that it was trained on"
        )
    return chosen


def _best_of(folder: Path) -> tuple[Run, str]:
    """Return the best run of a search."""
    from vesalius.flows.searching.result import SearchResult
    from vesalius.tasks.run import Run

    found = SearchResult.load(folder)
    if found.confirmed is None:
        raise RunError(
            f"the search '{folder}' has not ended; go on with: vesalius search --resume {folder}"
        )
    if not (ranked := found.ranked):
        raise RunError(f"no trial of the search '{folder}' came to an end: search again")
    run = Run.load(found.run_of(ranked[0]))
    return run, (
        f"student of the best run, {run.task}-{run.id[:8]}, of {len(found.trials)} trials of a "
        "search"
    )
