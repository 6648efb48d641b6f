# SPDX-License-Identifier: Apache-2.0
"""Cases that no trial of a search sees, to confirm its winner with; and what choosing flatters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vesalius.flows.searching.quality import score_of
from vesalius.flows.searching.task import of_task
from vesalius.tuning.optimism import Corrected, corrected
from vesalius.types import Array, Json, PathLike, Subset

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort
    from vesalius.cohorts.splits import Split
    from vesalius.tasks.cases import Cases
    from vesalius.tasks.run import Run

NAME = "held-out"  # the subset's, in a run's metrics
_SEED = 1  # beside the search's own: calibration cases are drawn with that one


def set_apart(
    split: Split, cohort: Cohort, cases: Cases, seed: int
) -> tuple[Split, list[str], list[str]]:
    """Return the split without some cases, their images' keys, and lines that say so.

    Whole groups of patients and near-duplicates go, each class by its share, from validation or
    training; none where these are few. Test cases stay what they were: no trial is scored on them.
    """
    from vesalius.tasks.cases import case_groups
    from vesalius.tasks.classify.held_back import hold_back

    kept: dict[str, Subset] = {k: v for k, v in split.rows.items() if v != "calibration"}
    groups = case_groups(cohort, cases.cases)
    moved, lines = hold_back(kept, cases, groups, seed + _SEED)
    keys = sorted(key for key, subset in moved.items() if subset == "calibration")
    if not keys:
        line = (
            "too few cases to set some apart: the winner is not confirmed on cases that its search "
            "did not see; take its corrected score, and evaluate it on the test subset"
        )
        return split, [], [line]
    rows = {key: subset for key, subset in split.rows.items() if key not in set(keys)}
    line = lines[0].replace("held back for calibration and serve nothing else", "set apart")
    return replace(split, rows=rows), keys, [f"{line}: no trial sees them, they confirm the winner"]


def confirm(run: Run, cohort: Cohort, keys: Sequence[str], quality: str) -> Json:
    """Score a run on the cases that were set apart, and return its score with the interval."""
    return score_of(of_task(run.task).score(run, cohort, keys, NAME), NAME, quality)


def correct(runs: Mapping[int, PathLike], quality: str, *, seed: int = 0) -> Corrected | None:
    """Return what the best of some runs scores on validation cases, choosing taken into account.

    Args:
        runs: trial number -> folder of its run; all were scored on the same validation cases.
        quality: the score.
        seed: of the draws.
    """
    from vesalius.metrics.bootstrap import patient_index
    from vesalius.tasks.run import Run

    tables = []
    groups: list[str] = []
    for folder in runs.values():
        run = Run.load(Path(folder))
        rows = [row for row in run.predictions().to_pylist() if row["split"] == "val"]
        rows.sort(key=lambda row: str(row["key"]))
        groups = [str(row.get("group") or row["patient"]) for row in rows]
        tables.append(of_task(run.task).statistics(run, rows))
    if not tables:
        return None
    place = tables[0].names.index((quality, ""))
    index, count = patient_index(groups, len(groups))

    def scores(weights: Array) -> Array:
        return np.stack([table.of(weights[:, index])[:, place] for table in tables])

    return corrected(scores, count, seed=seed)
