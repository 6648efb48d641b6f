# SPDX-License-Identifier: Apache-2.0
"""Cases held back for calibration: patients of training or validation that serve nothing else."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

import numpy as np

from vesalius.tasks.cases import Case, Cases
from vesalius.types import Subset

FEWEST = 120  # cases of training and validation below which none is held back
SHARE, LEAST, MOST = 0.14, 40, 600
_VALIDATION = 100  # cases that validation keeps, if they are taken from there


def hold_back(
    rows: Mapping[str, Subset], cases: Cases, groups: Mapping[str, int], seed: int
) -> tuple[dict[str, Subset], list[str]]:
    """Return the split with some rows moved to `calibration`, and lines for the audit.

    Rows come from validation where enough stay there, else from training; whole groups of
    patients and near-duplicates that lie in no other subset, each class by its share. A split
    that has such rows is returned as it is.

    Args:
        rows: image key -> subset.
        cases: of the target.
        groups: case key -> group, of `cases.case_groups`; a group goes as a whole.
        seed: of the choice.
    """
    split = dict(rows)
    if "calibration" in split.values():
        return split, []
    found = {name: cases.subset(split, name) for name in ("train", "val")}
    total = sum(map(len, found.values()))
    if total < FEWEST:
        line = (
            f"{total} cases are too few to hold some back for calibration ({FEWEST} needed): "
            "probabilities are not calibrated, and no label sets are made"
        )
        return split, [line]
    wanted = int(np.clip(round(SHARE * total), LEAST, MOST))
    source = "val" if len(found["val"]) - wanted >= _VALIDATION else "train"
    elsewhere = {
        groups[case.key]
        for case in cases.cases
        if any(split.get(row["key"], source) != source for row in case.rows)
    }
    whole = [case for case in found[source] if groups[case.key] not in elsewhere]
    chosen = _drawn(whole, groups, wanted, seed)
    moved = [case for case in found[source] if groups[case.key] in chosen]
    keys = {case.key for case in moved}
    for case in cases.cases:  # with the rows that training leaves out
        for row in case.rows if case.key in keys else ():
            if split.get(row["key"]) == source:
                split[row["key"]] = "calibration"
    return split, [
        f"{len(moved)} cases of '{source}' are held back for calibration and serve nothing else"
    ]


def _drawn(cases: list[Case], groups: Mapping[str, int], wanted: int, seed: int) -> set[int]:
    """Return groups with about `wanted` cases, drawn from each class by its share."""
    rng = np.random.default_rng([seed, 5])
    order = [cases[place] for place in rng.permutation(len(cases))]
    size = Counter(groups[case.key] for case in cases)
    by_truth: dict[str, list[Case]] = defaultdict(list)
    for case in order:
        by_truth[case.truth].append(case)
    rank = {
        case.key: (place + 0.5) / len(members)
        for members in by_truth.values()
        for place, case in enumerate(members)
    }
    chosen: set[int] = set()
    held = 0
    for case in sorted(order, key=lambda case: rank[case.key]):
        if held >= wanted:
            break
        if groups[case.key] not in chosen:
            chosen.add(groups[case.key])
            held += size[groups[case.key]]
    return chosen
