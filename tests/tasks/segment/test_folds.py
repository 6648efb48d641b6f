# SPDX-License-Identifier: Apache-2.0
"""Folds: whole groups, every case held out once, nobody learns from what judges it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.errors import CohortError
from vesalius.geometry import flat_affine
from vesalius.tasks.cases import Case, case_groups, segmentation_cases
from vesalius.tasks.segment.folds import assign_folds, learned, parts
from vesalius.volume import LabelMap, Volume


def case(number: int, modality: str = "MR") -> Case:
    key = f"{number:04}"
    return Case(key, ({"key": key, "modality": modality, "scanner": ""},), f"p{number}")


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.integers(0, 11), min_size=12, max_size=40),
    st.integers(2, 5),
    st.integers(0, 9),
    st.randoms(),
)
def test_groups_stay_whole_and_every_fold_has_some(numbers, count, seed, shuffle) -> None:
    cases = [case(n) for n in range(len(numbers))]
    groups = {c.key: group for c, group in zip(cases, numbers, strict=True)}
    if len(set(numbers)) < count:
        with pytest.raises(CohortError, match="ask for fewer folds"):
            assign_folds(cases, groups, count, seed)
        return
    folds = assign_folds(cases, groups, count, seed)
    assert set(folds) == {c.key for c in cases}
    assert set(folds.values()) == set(range(count))
    for group in set(numbers):
        assert len({folds[key] for key, found in groups.items() if found == group}) == 1
    shuffle.shuffle(cases)
    assert assign_folds(cases, groups, count, seed) == folds


def test_each_modality_is_spread_over_the_folds() -> None:
    cases = [case(n, "CT" if n < 6 else "MR") for n in range(24)]
    folds = assign_folds(cases, {c.key: n for n, c in enumerate(cases)}, 3, 0)
    for number in range(3):
        held = [c for c in cases if folds[c.key] == number]
        assert len(held) == 8
        assert sum(c.rows[0]["modality"] == "CT" for c in held) == 2


@pytest.fixture
def cohort(memory):
    """Eighteen images: two of each of nine patients, of which two share an image."""
    rng = np.random.default_rng(0)
    items = []
    for n in range(18):
        values = rng.normal(size=(1, 8, 8, 1)).astype(np.float32)
        mask = np.zeros((1, 8, 8, 1), np.uint8)
        mask[0, 2:5, 3:6] = 1
        items.append(
            {
                "volume": Volume(values, flat_affine(), modality="MR"),
                "mask": LabelMap(mask, flat_affine()),
                "patient": f"p{n // 2}",
                "columns": {"patient_source": "dicom", "content_hash": f"h{n % 15}"},
            }
        )
    return memory.of(items)


def test_no_network_sees_a_group_that_it_is_judged_by(cohort) -> None:
    cohort.errors = [cohort.rows[3]["key"]]
    cases = segmentation_cases(cohort)
    names = ("train", "val", "test")
    rows = {row["key"]: names[n // 8] for n, row in enumerate(cohort.rows)}
    pool = learned(cases, rows, 3)
    assert len(pool) == 15  # the flawed one is not learned from, those of test are not there
    groups = case_groups(cohort, pool)
    assert len(set(groups.values())) < len({c.patient for c in pool})  # look-alikes join patients
    folds = assign_folds(pool, groups, 3, 0)
    found = parts(cases, rows, folds)
    assert [part.name for part in found] == ["fold-1", "fold-2", "fold-3"]
    for part in found:
        assert not {groups[c.key] for c in part.train} & {groups[c.key] for c in part.val}
        assert len(part.train) + len(part.val) == len(pool)
    held_out = [c.key for part in found for c in part.val]
    assert sorted(held_out) == sorted(c.key for c in pool)
    (one,) = parts(cases, rows, {})
    assert one.name == ""
    assert {c.key for c in one.val} == {key for key, name in rows.items() if name == "val"}


def test_an_image_with_an_error_is_held_out_and_never_learned_from(cohort) -> None:
    cases = segmentation_cases(cohort)
    rows = {row["key"]: "val" for row in cohort.rows}
    cohort.errors = [cohort.rows[5]["key"]]
    flawed = segmentation_cases(cohort)
    folds = assign_folds(list(cases.cases), case_groups(cohort, cases.cases), 2, 0)
    keys = [[[c.key for c in one] for one in (p.train, p.val)] for p in parts(flawed, rows, folds)]
    assert not any(cohort.errors[0] in train for train, _ in keys)
    assert sum(cohort.errors[0] in val for _, val in keys) == 1
