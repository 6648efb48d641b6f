# SPDX-License-Identifier: Apache-2.0
"""What a student costs in quality: its score less its teacher's, on the same cases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vesalius.errors import RunError

if TYPE_CHECKING:
    from vesalius.metrics import Difference
    from vesalius.tasks.run import Run


def quality_of(teacher: Run) -> str:
    """Return the name of the score that teacher and student are compared by."""
    from vesalius.flows.searching.task import of_task

    return of_task(teacher.task).quality(teacher.decisions)


def difference(teacher: Run, student: Run, split: str) -> Difference:
    """Return the student's score less the teacher's, with its interval by patient.

    Nothing is predicted anew. With folds the teacher's answers to validation cases are out of fold;
    cases that only one of both was scored on, as those that folds add, are left out.

    Raises:
        RunError: there is no case that both were scored on.
    """
    from vesalius.flows.searching.task import of_task
    from vesalius.metrics import paired_differences

    both = [
        {str(row["key"]): row for row in run.predictions().to_pylist() if row["split"] == split}
        for run in (teacher, student)
    ]
    keys = sorted(both[0].keys() & both[1].keys())
    if not keys:
        raise RunError(
            f"no case of '{split}' was scored by both '{teacher.path}' and '{student.path}'; make "
            f"the scores with `vesalius evaluate --split {split}`"
        )
    task, name = of_task(teacher.task), quality_of(teacher)
    rows = [[side[key] for key in keys] for side in both]
    a, b = (task.statistics(run, own) for run, own in zip((teacher, student), rows, strict=True))
    drawn = [str(row.get("group") or row["patient"]) for row in rows[1]]
    found = paired_differences(a, b, drawn)
    return next(one for one in found if one.name == name and not one.label)
