# SPDX-License-Identifier: Apache-2.0
"""Groups of cases: one patient's, and those that share an image, stay together."""

from __future__ import annotations

import numpy as np
import pytest

from vesalius.geometry import flat_affine
from vesalius.tasks.cases import Case, case_groups
from vesalius.volume import Volume


@pytest.fixture
def cohort(memory):
    """Eight images of patients p0 to p7, none like another."""
    rng = np.random.default_rng(0)
    items = [
        {
            "volume": Volume(rng.normal(size=(1, 8, 8, 1)), flat_affine()),
            "patient": f"p{n}",
            "columns": {"patient_source": "dicom", "content_hash": f"h{n}"},
        }
        for n in range(8)
    ]
    return memory.of(items)


def single(cohort) -> list[Case]:
    return [Case(f"c{n}", (row,), row["patient"]) for n, row in enumerate(cohort.rows)]


def partition(groups: dict[str, int]) -> set[frozenset[str]]:
    return {frozenset(key for key, group in groups.items() if group == g) for g in groups.values()}


def test_cases_of_different_patients_are_alone(cohort) -> None:
    groups = case_groups(cohort, single(cohort))
    assert sorted(groups) == [f"c{n}" for n in range(8)]
    assert len(set(groups.values())) == 8


def test_cases_of_one_patient_are_together(cohort) -> None:
    cohort.rows[5]["patient"] = "p1"
    found = partition(case_groups(cohort, single(cohort)))
    assert frozenset({"c1", "c5"}) in found
    assert len(found) == 7


def test_equal_images_of_two_patients_are_together(cohort) -> None:
    cohort.rows[3]["content_hash"] = cohort.rows[6]["content_hash"] = "same"
    assert frozenset({"c3", "c6"}) in partition(case_groups(cohort, single(cohort)))


def test_a_case_of_several_images_ties_all_that_any_of_them_is_tied_to(cohort) -> None:
    # c0 holds images 0 and 1; image 1 equals image 4; image 4 and 7 are of one patient.
    rows = cohort.rows
    rows[1]["content_hash"] = rows[4]["content_hash"] = "same"
    rows[7]["patient"] = "p4"
    cases = [Case("c0", (rows[0], rows[1]), "p0")]
    cases += [Case(f"c{n}", (rows[n],), rows[n]["patient"]) for n in range(2, 8)]
    found = partition(case_groups(cohort, cases))
    assert frozenset({"c0", "c4", "c7"}) in found
    assert len(found) == 5


def test_some_of_the_cases_keep_ties_through_images_that_are_not_among_them(cohort) -> None:
    # 2 and 6 are each equal to 4, which belongs to no case here.
    rows = cohort.rows
    for n in (2, 4, 6):
        rows[n]["content_hash"] = "same"
    cases = [case for case in single(cohort) if case.key != "c4"]
    assert frozenset({"c2", "c6"}) in partition(case_groups(cohort, cases))


def test_the_order_of_cases_does_not_matter(cohort) -> None:
    cohort.rows[5]["patient"] = "p1"
    cases = single(cohort)
    assert partition(case_groups(cohort, cases)) == partition(case_groups(cohort, cases[::-1]))
