# SPDX-License-Identifier: Apache-2.0
"""Folds of cases with one label each, as split files of a cohort."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vesalius.cohorts import Cohort
from vesalius.cohorts.splits import Split
from vesalius.tasks.cases import Cases, case_groups


def write_folds(
    cohort: Cohort, cases: Cases, folder: Path, *, folds: int = 5, seed: int = 0
) -> list[Path]:
    """Write one split file a fold and return their paths: a fold's cases are its test cases.

    Groups of near-duplicates stay together, classes are shared out evenly; the fold after it gives
    half of its groups to validation, the rest trains.
    """
    groups = case_groups(cohort, cases.cases)
    truth = {groups[case.key]: case.truth for case in cases.cases}
    rng = np.random.default_rng(seed)
    order = [list(truth)[place] for place in rng.permutation(len(truth))]
    order.sort(key=lambda group: truth[group])
    fold = {group: place % folds for place, group in enumerate(order)}
    half = {group: place // folds % 2 for place, group in enumerate(order)}
    paths = []
    for number in range(folds):
        rows = {}
        for case in cases.cases:
            group = groups[case.key]
            name = "test" if fold[group] == number else "train"
            if fold[group] == (number + 1) % folds and half[group]:
                name = "val"
            rows |= {row["key"]: name for row in case.rows}
        path = folder / f"fold-{number}.json"
        Split(rows, (f"fold {number} of {folds}",)).save(path)  # type: ignore[arg-type]
        paths.append(path)
    return paths
