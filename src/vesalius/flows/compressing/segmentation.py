# SPDX-License-Identifier: Apache-2.0
"""Segmentation as it is compressed: its cases, the networks to choose from, training, export."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vesalius.errors import RunError
from vesalius.flows.compressing.choice import Candidate, Teacher, timed_inputs
from vesalius.flows.compressing.cost import run_files, size_of
from vesalius.types import Json, Progress

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort
    from vesalius.tasks.cases import Case, Cases
    from vesalius.tasks.run import Run
    from vesalius.tasks.segment.predict import Segmenter

_INPUTS = 3  # images that the choice is timed with


def cases_of(teacher: Run, cohort: Cohort) -> Cases:  # noqa: ARG001 - as of every task
    """Return the images of the cohort that have a mask."""
    from vesalius.tasks.cases import segmentation_cases

    return segmentation_cases(cohort)


def contest(
    teacher: Run, cohort: Cohort, val: Sequence[Case], budget: Json
) -> tuple[Teacher, Iterator[Candidate]]:
    """Return the teacher as it is timed, and what may become its student.

    Raises:
        CohortError: no validation image can be read.
    """
    from vesalius.tasks.segment.grid import to_plan
    from vesalius.tasks.segment.predict import Segmenter
    from vesalius.tasks.segment.student_plan import candidates, untrained

    segmenter = Segmenter.load(teacher)

    def read(case: Case) -> Any:
        image = to_plan(cohort.read(case.rows[0]), segmenter.decisions, segmenter.normalizer)
        return image.data.astype(np.float16)

    inputs, reading = timed_inputs(val, read, _INPUTS)

    def each() -> Iterator[Candidate]:
        for decisions in candidates(teacher, budget):
            model, bytes_ = untrained(decisions)
            student = Segmenter(model, decisions, segmenter.normalizer)
            first = decisions["network"]["options"]["widths"][0]
            yield Candidate(f"unet-w{first}", decisions, bytes_, lambda x, s=student: _answer(s, x))  # type: ignore[misc]

    size = size_of(run_files(teacher.path, "segment"))
    return Teacher(lambda x: _answer(segmenter, x), size, inputs, reading), each()


def train(
    run: Run,
    cohort: Cohort,
    cases: Cases,
    unlabeled: Sequence[Case],
    teacher: Run,
    started: float,
    progress: Progress | None,
) -> Run:
    """Train the student, see `tasks.segment.student`."""
    from vesalius.tasks.segment.student import train_student

    return train_student(run, cohort, cases, unlabeled, teacher, started=started, progress=progress)


def export(
    run: Run,
    folder: Path,
    *,
    to: str,
    int8: bool,
    cohort: Cohort,
    cases: Cases,  # noqa: ARG001 - as of every task
    progress: Progress | None,
) -> tuple[Path, Json | None, str]:
    """Export the student; return the folder, the scores of 8 bits, and why there are none.

    Where 8-bit integers cost too much, the export computes with 32.
    """
    from vesalius.deployment.samples import Samples
    from vesalius.deployment.segmenter import export_segmenter
    from vesalius.files import read_json
    from vesalius.tasks.run import EXPORT

    samples = Samples(run, cohort)
    refused = ""
    if int8:
        try:
            export_segmenter(run, folder, to=to, int8=True, samples=samples, progress=progress)
        except RunError as error:
            refused = str(error)
        else:
            return folder, read_json(folder / EXPORT)["int8"]["dice"], ""
    export_segmenter(run, folder, to=to, samples=samples, progress=progress)
    return folder, None, refused


def exported_files(path: Path) -> tuple[Path, ...]:
    """Return the files of an export that answering needs."""
    return tuple(sorted(file for file in path.rglob("*") if file.is_file()))


def described(run: Run) -> str:
    """Return what a run answers by, in words."""
    network, folds = run.decisions["network"], run.decisions.get("folds", 1)
    widths = network["options"].get("widths")
    name = network["name"] if widths is None else f"{network['name']}-w{widths[0]}"
    return f"{folds} x {name}" if folds > 1 else str(name)


def _answer(segmenter: Segmenter, image: Any) -> None:
    """Compute all logits of an image on the plan's grid, and forget them."""
    from vesalius.tasks.segment.footprint import sums_bytes
    from vesalius.tasks.segment.slide import lay_out, slide
    from vesalius.tasks.segment.structures import answers

    decisions, where = segmenter.decisions, segmenter.fabric.device
    i, j, k = image.shape[1:]
    layout = lay_out(
        (i, j, k), decisions, classes=answers(decisions), memory=sums_bytes(decisions, where),
        several=decisions.get("folds", 1) > 1,
    )  # fmt: skip
    slide(segmenter.logits, image, layout, lambda *_: None, device=where)
