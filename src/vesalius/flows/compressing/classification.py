# SPDX-License-Identifier: Apache-2.0
"""Classification as it is compressed: its cases, the networks to choose from, training, export."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.errors import RunError
from vesalius.flows.compressing.choice import Candidate, Teacher, timed_inputs
from vesalius.flows.compressing.cost import run_files, size_of
from vesalius.flows.compressing.quality import quality_of
from vesalius.types import Array, Json, Progress

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort
    from vesalius.tasks.cases import Case, Cases
    from vesalius.tasks.run import Run

_INPUTS = 6  # cases that the choice is timed with


def cases_of(teacher: Run, cohort: Cohort) -> Cases:
    """Return the cases of the cohort that have a truth."""
    from vesalius.tasks.cases import classification_cases
    from vesalius.tasks.targets import Target

    known = Target.from_json(teacher.decisions["target"])
    return classification_cases(
        cohort, teacher.plan["target"], teacher.decisions["case"], known=known
    )


def contest(
    teacher: Run, cohort: Cohort, val: Sequence[Case], budget: Json
) -> tuple[Teacher, Iterator[Candidate]]:
    """Return the teacher as it is timed, and what may become its student.

    Raises:
        CohortError: no validation case can be read.
    """
    import torch

    from vesalius.tasks.classify.predict import Classifier
    from vesalius.tasks.classify.student_plan import candidates, untrained

    classifier = Classifier.load(teacher)
    classifier.device = torch.device("cpu")
    for member in classifier.mixture.members:
        member.module.to(classifier.device)
    inputs, reading = timed_inputs(
        val, lambda case: [classifier.image(cohort.read(row), row) for row in case.rows], _INPUTS
    )

    def each() -> Iterator[Candidate]:
        for decisions in candidates(teacher, budget):
            mixture, bytes_ = untrained(decisions)
            name = decisions["networks"][0]["name"]
            yield Candidate(name, decisions, bytes_, lambda case, m=mixture: m.answer([case]))  # type: ignore[misc]

    taught_by = Teacher(
        lambda case: classifier.answers([case]),
        size_of(run_files(teacher.path, "classify")),
        inputs,
        reading,
    )
    return taught_by, each()


def train(
    run: Run,
    cohort: Cohort,
    cases: Cases,
    unlabeled: Sequence[Case],
    teacher: Run,
    started: float,
    progress: Progress | None,
) -> Run:
    """Train the student, see `tasks.classify.student`."""
    from vesalius.tasks.classify.student import train_student

    return train_student(run, cohort, cases, unlabeled, teacher, started=started, progress=progress)


def export(
    run: Run,
    folder: Path,
    *,
    to: str,
    int8: bool,
    cohort: Cohort,
    cases: Cases,
    progress: Progress | None,
) -> tuple[Path, Json | None, str]:
    """Export the student; return the file, the scores of 8 bits, and why there are none.

    Where 8-bit integers cost too much, the export computes with 32.
    """
    from vesalius.deployment.classifier import shrink_classifier
    from vesalius.deployment.onnx import export_classifier
    from vesalius.networks.engine import SUFFIXES

    folder.mkdir(parents=True, exist_ok=True)
    path = export_classifier(run, folder / f"model{SUFFIXES[to]}")
    if not int8:
        return path, None, ""
    subsets = run.subsets()
    try:
        record = shrink_classifier(
            path, cohort, cases.subset(subsets, "train"), cases.subset(subsets, "val"),
            lambda table, some: _score(run, table, some), progress,
        )  # fmt: skip
    except RunError as refused:
        return path, None, str(refused)
    return path, record, ""


def exported_files(path: Path) -> tuple[Path, ...]:
    """Return the files of an export that answering needs."""
    return tuple(sorted(path.parent.glob(f"{path.stem}.*")))


def described(run: Run) -> str:
    """Return what a run answers by, in words."""
    names = [member["name"] for member in run.plan["measured"]["members"]]
    return names[0] if len(names) == 1 else f"{len(names)} members"


def _score(run: Run, table: Array, cases: Sequence[Case]) -> float:
    """Return the score of answers by which teacher and student are compared."""
    from vesalius.flows.searching.task import of_task
    from vesalius.tasks.targets import Target

    classes = Target.from_json(run.decisions["target"]).classes
    names = [f"p_{name}" for name in classes] or ["value"]
    rows = [
        {"truth": case.truth, "failed": False, **dict(zip(names, map(float, answer), strict=True))}
        for case, answer in zip(cases, table, strict=True)
    ]
    statistics = of_task(run.task).statistics(run, rows)
    place = statistics.names.index((quality_of(run), ""))
    return float(statistics.values()[place])
