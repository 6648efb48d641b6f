# SPDX-License-Identifier: Apache-2.0
"""Cases of each kind of target: what the labels say, what is left out, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vesalius.errors import CohortError, UsageError
from vesalius.geometry import flat_affine
from vesalius.tasks.cases import classification_cases, segmentation_cases, target_names
from vesalius.tasks.class_order import class_order, grade_order
from vesalius.tasks.targets import Target
from vesalius.volume import Volume

IMAGE = Volume(np.zeros((1, 2, 2, 1), np.float32), flat_affine(), calibrated=False)


@pytest.fixture
def table(memory: type) -> Callable[..., Any]:
    """Return a cohort of tiny images with label columns, one list of values each."""

    class Table(memory):  # type: ignore[misc, valid-type]  # the class is a fixture
        @property
        def targets(self) -> list[str]:
            names = [n for n in self.rows[0] if n.startswith("label_")]
            return [name.removeprefix("label_") for name in names]

    def make(patients: list[str] | None = None, **columns: list[Any]) -> Any:
        n = len(next(iter(columns.values())))
        return Table.of(
            [
                {
                    "volume": IMAGE,
                    "patient": patients[k] if patients else f"p-{k}",
                    "columns": {f"label_{name}": values[k] for name, values in columns.items()},
                }
                for k in range(n)
            ]
        )

    return make


def truths(cases: Any) -> list[str]:
    return [case.truth for case in cases.cases]


@pytest.mark.parametrize(
    ("values", "kind", "classes"),
    [
        (["ill", "well"] * 3, "binary", ("ill", "well")),
        ([True, False] * 3, "binary", ("False", "True")),
        ([1, 0, 0, 1], "binary", ("0", "1")),
        (["10", "9", "1", "9"], "multiclass", ("1", "9", "10")),
        ([0.0, 1.0, 2.0, 4.0], "multiclass", ("0", "1", "2", "4")),
        (list(range(20)), "multiclass", tuple(str(n) for n in range(20))),
        (list(range(21)), "regression", ()),
        ([0.5, 1.0, 2.0], "regression", ()),
        (["a; b", "b", "a|c", "c"], "multilabel", ("a", "b", "c")),
        (["left; upper", "right; lower"], "binary", ("left; upper", "right; lower")),
    ],
)
def test_the_kind_follows_from_the_values(table, values, kind, classes) -> None:
    cases = classification_cases(table(answer=values), "answer")
    assert (cases.target.name, cases.target.kind, cases.target.classes) == ("answer", kind, classes)
    assert cases.audit[0] == f"{len(values)} cases (one label per image), {len(values)} images"
    assert f"target 'answer' is {kind}" in cases.audit[-1]
    assert "--target-kind" in cases.audit[-1]
    cases.target.encode(truths(cases))


def test_the_user_has_the_last_word(table) -> None:
    grades = table(answer=[2, 0, 1, 4, 3])
    cases = classification_cases(grades, None, target_kind="ordinal")
    assert cases.target == Target("answer", "ordinal", ("0", "1", "2", "3", "4"))
    assert "--target-kind" not in cases.audit[-1]
    numbers = classification_cases(grades, None, target_kind="regression")
    assert numbers.target.kind == "regression"
    assert truths(numbers) == ["2.0", "0.0", "1.0", "4.0", "3.0"]
    many = classification_cases(table(answer=list(range(30))), None, target_kind="multiclass")
    assert len(many.target.classes) == 30
    words = table(answer=["mid", "low", "high", "low"])
    ordered = classification_cases(words, None, target_kind="ordinal:low < mid < high")
    assert ordered.target.classes == ("low", "mid", "high")
    turned = table(answer=["healthy", "disease"])
    assert classification_cases(turned, None).target.classes == ("disease", "healthy")
    positive = classification_cases(turned, None, target_kind="binary:healthy<disease")
    assert positive.target.classes == ("healthy", "disease")
    one = classification_cases(table(answer=["a", "b"]), None, target_kind="multilabel")
    assert one.target.classes == ("a", "b")


@pytest.mark.parametrize(
    ("values", "kind", "error", "message"),
    [
        (["a", "b"], "ranks", UsageError, "target_kind must be one of auto, binary"),
        (["a", "b"], "regression:a<b", UsageError, "target_kind must be one of"),
        (["a", "b", "c"], "binary", CohortError, "must have 2 classes, got 3: 'a', 'b', 'c'"),
        (["a", "b"], "ordinal", CohortError, "3 to 100 classes, got 2"),
        (["mid", "low", "high"], "ordinal", UsageError, "do not tell the order of the grades"),
        (["a", "b", "c"], "ordinal:a<b<d", UsageError, "must be 'a', 'b', 'c', got 'a', 'b', 'd'"),
        ([0.5, 1.0, 2.0], "multiclass", UsageError, r"holds the number 0\.5"),
        (["1.5", "tall"], "regression", UsageError, "must hold numbers, got 'tall'"),
        ([True, False], "regression", UsageError, "must hold numbers, got 'True'"),
        ([3.5, 3.5], "auto", CohortError, "two distinct numbers at least, got 1"),
        (["same", "same"], "auto", CohortError, "2 to 100 classes, got 1: 'same'"),
        ([None, ""], "auto", CohortError, "2 to 100 classes, got 0"),
        ([float("inf"), float("nan")], "auto", CohortError, "2 to 100 classes, got 0"),
        ([f"c{n}" for n in range(101)], "auto", CohortError, "2 to 100 classes, got 101"),
        (["a; ?", "a"], "auto", UsageError, "question mark stands before"),
        ([1, 1, 1], "multilabel", CohortError, "labels that some cases bear"),
    ],
)
def test_what_cannot_be_a_target_is_refused_by_name(table, values, kind, error, message) -> None:
    with pytest.raises(error, match=message):
        classification_cases(table(answer=values), "answer", target_kind=kind)


def test_numbers_that_are_none_are_left_out_with_a_line(table) -> None:
    values = [1.5, None, float("nan"), float("inf"), -float("inf"), 2.5]
    cases = classification_cases(table(answer=values), None)
    assert truths(cases) == ["1.5", "2.5"]
    assert "2 images bear no 'answer' and are left out" in cases.audit
    assert "2 images with an infinite 'answer' are left out" in cases.audit
    assert "2 distinct numbers from 1.5 to 2.5" in cases.audit[-1]


def test_columns_make_labels_and_empty_is_not_negative(table) -> None:
    cohort = table(
        edema=[1, 0, None, 1, None],
        mass=["yes", "no", "no", "?", None],
        bone=[0.0, 1.0, -1.0, 1.0, None],
        rare=[False] * 4 + [None],
    )
    cases = classification_cases(cohort, "edema, mass,bone,rare")
    assert cases.target == Target("edema+mass+bone+rare", "multilabel", ("edema", "mass", "bone"))
    assert truths(cases) == ["edema; mass", "bone", "?edema; ?bone", "edema; ?mass; bone"]
    assert "1 images bear no 'edema+mass+bone+rare' and are left out" in cases.audit
    assert "labels present in no case, and left out: 'rare'" in cases.audit
    order = classification_cases(cohort, "bone,edema").target
    assert order.classes == ("bone", "edema")
    unsure = table(a=[1, 0, -1, 1], b=[0, 1, None, 1])
    cases = classification_cases(unsure, "a,b")
    assert truths(cases) == ["a", "b", "a; b"]
    assert "1 images of which no label is known are left out" in cases.audit
    single = classification_cases(table(a=["no", "yes"]), "a", target_kind="multilabel")
    assert (truths(single), single.target.classes) == (["", "a"], ("a",))


def test_text_that_names_several_labels(table) -> None:
    cohort = table(answer=["b;a", "a | ?c", "c", "d;a", None, "d;b"])
    cases = classification_cases(cohort, None)
    assert cases.target.classes == ("a", "b", "c", "d")
    assert truths(cases) == ["a; b", "a; ?c", "c", "a; d", "b; d"]
    everywhere = table(answer=["x;a", "x;b", "x"])
    cases = classification_cases(everywhere, None)
    assert cases.target.classes == ("a", "b")
    assert "labels present in every case, and left out: 'x'" in cases.audit
    assert truths(cases) == ["a", "b", ""]


def test_columns_that_are_refused(table) -> None:
    cohort = table(a=[0, 1], b=[0, 3], label_0=[1, 0])
    with pytest.raises(UsageError, match=r"column 'b' .* got '3'"):
        classification_cases(cohort, "a,b")
    with pytest.raises(UsageError, match="name one column"):
        classification_cases(cohort, "a,b", target_kind="ordinal")
    with pytest.raises(UsageError, match="each label once"):
        classification_cases(cohort, "a,label_a")
    with pytest.raises(UsageError, match="no label 'labl_0'; it has: a, b, label_0"):
        classification_cases(cohort, "a,labl_0")
    with pytest.raises(UsageError, match="no label ''"):
        classification_cases(cohort, "a,")
    with pytest.raises(UsageError, match="must name one label"):
        classification_cases(cohort, None)
    assert target_names(cohort, "label_0, label_a") == ["label_0", "a"]


def test_the_cases_of_a_run_are_read_as_the_run_reads_them(table) -> None:
    run = Target("answer", "ordinal", ("0", "1", "2"))
    one = classification_cases(table(answer=[1, 1]), "answer", known=run)
    assert (one.target, truths(one)) == (run, ["1", "1"])
    with pytest.raises(CohortError, match="no class '5'; it knows '0', '1', '2'"):
        classification_cases(table(answer=[1, 5]), "answer", known=run)
    with pytest.raises(UsageError, match="must be 'ordinal', as in the run"):
        classification_cases(table(answer=[1, 1]), "answer", target_kind="regression", known=run)

    labels = Target("a+b", "multilabel", ("a", "b"))
    columns = table(a=[0, 0], b=[1, None], c=[1, 1])
    assert truths(classification_cases(columns, "a,b,c", known=labels)) == ["b", "?b"]
    with pytest.raises(UsageError, match="must name the columns 'a', 'b'"):
        classification_cases(columns, "a,c", known=labels)
    text = Target("answer", "multilabel", ("b", "a", "yes"))
    cases = classification_cases(table(answer=["a;b", "yes"]), None, known=text)
    assert truths(cases) == ["b; a", "yes"]
    with pytest.raises(CohortError, match="no class 'z'"):
        classification_cases(table(answer=["a;z", "yes"]), None, known=text)
    number = Target("answer", "regression", (), 5.0, 2.0)
    assert classification_cases(table(answer=[4]), None, known=number).target.unit_sd == 2


@pytest.mark.parametrize(
    ("values", "kind"),
    [([1.5, 1.5, 2.5, 2.5], "regression"), (["a;b", "b;a", "b", "b"], "multilabel")],
)
def test_images_of_one_patient_make_one_case_of_any_kind(table, values, kind) -> None:
    cohort = table(patients=["p-1", "p-1", "p-2", "p-2"], answer=values)
    cases = classification_cases(cohort, None)
    assert (cases.kind, cases.target.kind, len(cases.cases)) == ("patient", kind, 2)
    cohort.rows[0]["label_answer"] = values[2]
    assert classification_cases(cohort, None).kind == "image"
    with pytest.raises(CohortError, match="several labels"):
        classification_cases(cohort, None, "patient")


# the fixture is a class, the same for every example
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.permutations(range(6)))
def test_rows_in_another_order_make_the_same_cases(memory: type, order: list[int]) -> None:
    values = ["b;a", "a|?c", "c", "d;a", "a", "d;b"]
    items = [
        {"volume": IMAGE, "label": value, "key": f"{n:016x}", "patient": f"p-{n}"}
        for n, value in enumerate(values)
    ]
    one = classification_cases(memory.of(items), None)
    two = classification_cases(memory.of([items[n] for n in order]), None)
    assert one == two


def test_segments_have_no_target(table) -> None:
    cohort = table(answer=["a", "b"])
    cohort.rows[0]["mask_files"] = ["mask"]
    assert segmentation_cases(cohort).target is None


def test_order_of_classes_and_of_grades() -> None:
    assert class_order(["10", "9", "-1"]) == ["-1", "9", "10"]
    assert class_order(["b", "10", "a", "b"]) == ["10", "a", "b"]
    assert grade_order(["Grade 10", "grade 2", "grade 9"]) == ["grade 2", "grade 9", "Grade 10"]
    assert grade_order(["T3", "T1"]) == ["T1", "T3"]
    for names in (["T1", "N2"], ["1 of 5", "2 of 5"], ["I", "II"], ["grade 1", "none"]):
        with pytest.raises(UsageError, match="'ordinal:"):
            grade_order(names)
