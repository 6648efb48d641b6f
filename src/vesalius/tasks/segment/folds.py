# SPDX-License-Identifier: Apache-2.0
"""Folds: training and validation cases in parts, a network for each that does not learn from it.

Cross-validation by whole groups (patients and look-alikes), as in Isensee et al.: nnU-Net, Nature
Methods 2021: every case is answered once by a network that was not trained on it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vesalius.errors import CohortError
from vesalius.files import read_json
from vesalius.tasks.cases import Case, Cases
from vesalius.tasks.run import Run

FILE = "folds.json"


@dataclass(frozen=True, slots=True)
class Part:
    """What one network of a run learns from, and what it is validated on.

    Attributes:
        name: of its folder below `networks`; `` for the only network of a run.
        train, val: cases, in the order of their keys.
    """

    name: str
    train: list[Case]
    val: list[Case]


def learned(cases: Cases, subsets: Mapping[str, str], folds: int) -> list[Case]:
    """Return the cases that training sees: those of training, with folds those of validation too.

    Args:
        cases: of the cohort.
        subsets: image key -> subset.
        folds: of the plan.
    """
    found = cases.subset(subsets, "train")
    if folds > 1:
        found = sorted([*found, *cases.subset(subsets, "val")], key=lambda case: case.key)
    return found


def assign_folds(
    cases: Sequence[Case], groups: Mapping[str, int], count: int, seed: int
) -> dict[str, int]:
    """Return case key -> fold, from 0; a group lies in one fold, as does each part of a modality.

    Args:
        cases: to share out.
        groups: case key -> group.
        count: of folds.
        seed: breaks ties.

    Raises:
        CohortError: fewer groups than folds.
    """
    from vesalius.cohorts.stratify import share_out

    members: dict[int, list[Case]] = defaultdict(list)
    for case in cases:
        members[groups[case.key]].append(case)
    if len(members) < count:
        raise CohortError(
            f"{len(members)} groups of images that must stay together cannot fill {count} folds; "
            "ask for fewer folds, or add patients"
        )
    named = {min(case.key for case in found): found for found in members.values()}
    kinds = {
        name: [(("modality", c.value("modality")), ("scanner", c.value("scanner"))) for c in found]
        for name, found in named.items()
    }
    chosen = share_out(kinds, {str(number): 1.0 for number in range(count)}, seed)
    return {case.key: int(chosen[name]) for name, found in named.items() for case in found}


def read_folds(run: Run) -> dict[str, int]:
    """Return case key -> fold of a run; empty where it has one network."""
    if run.decisions.get("folds", 1) == 1:
        return {}
    return {str(key): int(fold) for key, fold in read_json(run.path / FILE).items()}


def parts(cases: Cases, subsets: Mapping[str, str], folds: Mapping[str, int]) -> list[Part]:
    """Return what each network learns from; images with an error among their findings by none.

    Args:
        cases: of the cohort.
        subsets: image key -> subset.
        folds: of `read_folds`.
    """
    if not folds:
        return [Part("", cases.subset(subsets, "train"), cases.subset(subsets, "val"))]
    found = learned(cases, subsets, 2)
    sound = [case for case in found if case.key not in cases.flawed]
    return [
        Part(
            f"fold-{number + 1}",
            [case for case in sound if folds[case.key] != number],
            [case for case in found if folds[case.key] == number],
        )
        for number in range(1 + max(folds.values()))
    ]
