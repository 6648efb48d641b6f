# SPDX-License-Identifier: Apache-2.0
"""Cases held back: groups whole, classes by share, from where the docstring says, or none."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.tasks.cases import Case, Cases
from vesalius.tasks.classify.held_back import FEWEST, LEAST, MOST, SHARE, hold_back
from vesalius.tasks.targets import Target

TARGET = Target("answer", "binary", ("a", "b"))


def made(train: int, val: int, test: int = 20, *, group: int = 1, rare: int = 4):
    """Return a split, cases of two images, and groups of so many cases within each subset."""
    cases: list[Case] = []
    rows: dict[str, str] = {}
    groups: dict[str, int] = {}
    numbers: dict[tuple[str, int], int] = {}
    for subset, count in (("train", train), ("val", val), ("test", test)):
        for n in range(count):
            key = f"{subset}-{n:04}"
            images = tuple({"key": f"{key}-{i}"} for i in range(2))
            cases.append(Case(key, images, key, "b" if n % rare == 0 else "a"))
            rows |= {image["key"]: subset for image in images}
            groups[key] = numbers.setdefault((subset, n // group), len(numbers))
    return rows, Cases(tuple(cases), "patient", (), {}, TARGET), groups


def held(split: dict, cases: Cases) -> list[Case]:
    return cases.subset(split, "calibration")


@settings(max_examples=20, deadline=None)
@given(
    train=st.integers(60, 300),
    val=st.integers(60, 200),
    group=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_groups_stay_whole_and_other_subsets_are_untouched(
    train: int, val: int, group: int, seed: int
) -> None:
    rows, cases, groups = made(train, val, group=group)
    split, lines = hold_back(rows, cases, groups, seed)
    chosen = held(split, cases)
    wanted = min(MOST, max(LEAST, round(SHARE * (train + val))))
    assert wanted <= len(chosen) < wanted + group
    assert lines[0].startswith(f"{len(chosen)} cases of")
    inside = {groups[case.key] for case in chosen}
    assert all(
        (groups[case.key] in inside) == (split[case.rows[0]["key"]] == "calibration")
        for case in cases.cases
    )
    moved = {key for key in rows if split[key] != rows[key]}
    assert moved == {row["key"] for case in chosen for row in case.rows}
    assert len(cases.subset(split, "test")) == 20
    assert hold_back(rows, cases, groups, seed) == (split, lines)


@pytest.mark.parametrize(
    ("train", "val", "source"), [(700, 300, "val"), (100, 139, "train"), (100, 140, "val")]
)
def test_they_come_from_validation_where_a_hundred_stay_there(train, val, source) -> None:
    rows, cases, groups = made(train, val)
    split, (line,) = hold_back(rows, cases, groups, 0)
    assert {case.key.split("-")[0] for case in held(split, cases)} == {source}
    assert f"of '{source}' are held back" in line
    assert source == "train" or len(cases.subset(split, "val")) >= 100


def test_classes_keep_their_shares() -> None:
    for rare in (4, 10, 30):
        rows, cases, groups = made(600, 100, rare=rare)
        chosen = held(hold_back(rows, cases, groups, 1)[0], cases)
        count = Counter(case.truth for case in chosen)
        assert count["b"] / len(chosen) == pytest.approx(1 / rare, abs=1.5 / len(chosen))


def test_few_cases_are_all_needed_and_the_audit_says_so() -> None:
    rows, cases, groups = made(FEWEST - 30, 29)
    split, (line,) = hold_back(rows, cases, groups, 0)
    assert split == rows
    assert "119 cases are too few" in line
    assert "not calibrated" in line
    rows, cases, groups = made(FEWEST - 30, 30)
    assert len(held(hold_back(rows, cases, groups, 0)[0], cases)) == LEAST


def test_many_cases_are_not_needed() -> None:
    rows, cases, groups = made(4000, 800)
    assert len(held(hold_back(rows, cases, groups, 0)[0], cases)) == MOST


def test_a_split_that_has_such_rows_is_left_as_it_is() -> None:
    rows, cases, groups = made(200, 60)
    rows["train-0000-0"] = rows["train-0000-1"] = "calibration"
    assert hold_back(rows, cases, groups, 0) == (rows, [])


def test_seeds_choose_differently() -> None:
    rows, cases, groups = made(400, 60)
    one, two = (hold_back(rows, cases, groups, seed)[0] for seed in (0, 1))
    assert one != two


def test_a_group_that_lies_in_several_subsets_is_not_split_further() -> None:
    rows, cases, groups = made(150, 30)
    for n in range(100):  # as an ungrouped split may leave them
        groups[f"train-{n:04}"] = groups["test-0000"]
    chosen = held(hold_back(rows, cases, groups, 0)[0], cases)
    assert len(chosen) == LEAST
    assert min(int(case.key.split("-")[1]) for case in chosen) >= 100


def test_a_flawed_image_leaves_training_with_its_case() -> None:
    rows, cases, groups = made(150, 30)
    flawed = {f"train-{n:04}-0": ["constant-image"] for n in range(150)}
    cases = Cases(cases.cases, cases.kind, (), flawed, TARGET)
    split, _ = hold_back(rows, cases, groups, 0)
    for case in cases.cases:
        assert len({split[row["key"]] for row in case.rows}) == 1
