# SPDX-License-Identifier: Apache-2.0
"""The run that another one begins with: finished, of the same task, and no leak of what judges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from vesalius.errors import UsageError
from vesalius.flows.seen_images import seen_keys

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort
    from vesalius.cohorts.splits import Split
    from vesalius.tasks.run import Run


def check_origin(
    origin: Run, task: str, cohort: Cohort, split: Split, folds: Mapping[str, int]
) -> None:
    """Refuse a run to begin with that learned from what the new one is to be judged by.

    With folds every training and validation image judges the network that does not learn from it.
    So these must be new to the old run, or lie in the same fold of it.

    Args:
        origin: the run to begin with.
        task: of the new run.
        cohort: its rows.
        split: of these.
        folds: case key -> fold of the new run; empty where it has none.

    Raises:
        UsageError: says which, and what to do.
    """
    from vesalius.tasks.segment.folds import read_folds

    if origin.task != task:
        raise UsageError(f"--from takes a run of {task}, got one of {origin.task}")
    if not origin.finished:
        raise UsageError(f"the run '{origin.path}' that --from names is not finished")
    before, seen = read_folds(origin), seen_keys(origin, cohort)
    used = origin.subsets()
    same = len(set(before.values())) == len(set(folds.values()))

    def leaks(key: str, subset: str) -> bool:
        if subset == "train" and key not in folds:
            return False  # it judges nothing
        if used.get(key) == "test":
            return False
        if key in before or key in folds:
            known = key in before or key in used or key in seen
            return known and not (same and before.get(key) == folds.get(key))
        return used[key] != subset if key in used else key in seen

    leaked = sum(leaks(key, subset) for key, subset in split.rows.items())
    if not leaked:
        return
    way_out = f"give its split: --split {origin.path / 'split.json'}"
    if before or folds:
        way_out = "with folds, begin with a run of the same split and number of folds, or with one "
        way_out += "that never saw them"
    raise UsageError(
        f"{leaked} images that this run is to be judged by were used by the run that --from "
        f"names; {way_out}"
    )
