# SPDX-License-Identifier: Apache-2.0
"""`vesalius compress`: one small network that answers as a run does, and what it costs."""

from __future__ import annotations

import importlib
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vesalius.errors import CohortError, UsageError, did_you_mean
from vesalius.flows.compressing.result import Compression
from vesalius.flows.export import ENGINES
from vesalius.types import Json, PathLike, Progress

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort
    from vesalius.flows.compressing.choice import Limits
    from vesalius.tasks.cases import Case, Cases
    from vesalius.tasks.run import Run

MINUTES = 10.0  # where none are given
_TASKS: Mapping[str, str] = {
    "classify": "vesalius.flows.compressing.classification",
    "segment": "vesalius.flows.compressing.segmentation",
}
_TIMED = 40  # validation cases that costs are measured with


def compress(
    run: PathLike | Run,
    cohort: PathLike | Cohort,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    max_latency: float | None = None,
    max_size: int | None = None,
    to: str = "",
    int8: bool = False,
    out: PathLike | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    command: str = "",
) -> Compression:
    """Teach one small network to answer as a run does, and measure both.

    The student is the most able network that is five times faster and smaller than its teacher,
    and keeps the limits. It learns from the teacher's answers to training images and to those of
    the cohort that have no label, and from the labels (Hinton, Vinyals, Dean 2015, arXiv
    1503.02531). It is a run as any other: `predict`, `evaluate`, `compare`, `export` and `serve`
    take it. The same call after an interruption goes on where it stopped.

    Args:
        run: the teacher: a finished run of `classify` or `segment`, or its folder; or the folder of
            a search that has ended, whose best run is taken.
        cohort: that the teacher was trained on, or its folder; images may have been added since.
        minutes: wall minutes of choosing and training, 10 where no steps are asked for.
        steps: exact number of steps instead.
        max_latency: seconds that an answer for one case may take, files read, with one thread.
        max_size: bytes that the student's files may take which answering needs.
        to: `onnx` or `openvino`: export the student for that engine, too; `` for none.
        int8: the export computes in 8-bit integers, where its score holds.
        out: folder of the student's run; default `runs/<task>-<plan's hash>`.
        seed: of weights, order and augmentation.
        progress: called as `progress(stage, done, total)`.
        command: the exact command, for the report; default this call.

    Raises:
        UsageError: a wrong argument, or limits that no network keeps.
        CohortError: another cohort than the teacher's.
        RunError: the teacher is not finished, or so small that nothing is five times smaller;
            `out` holds another run.
        BudgetError: the minutes do not suffice.
        MissingDependency: a library of the engine is absent.
    """
    started = time.monotonic()
    from vesalius.cohorts import Cohort
    from vesalius.flows.compressing.choice import Limits
    from vesalius.flows.compressing.student import request_of
    from vesalius.flows.compressing.teacher import check_cohort, find_teacher
    from vesalius.reporting import write_card, write_report
    from vesalius.tasks.run import find_run

    budget, limits = _budget(minutes, steps), Limits(max_latency, max_size)
    _check(limits, to, int8=int8)
    teacher, origin = find_teacher(run)
    opened = cohort if isinstance(cohort, Cohort) else Cohort.open(cohort)
    chosen = check_cohort(teacher, opened)
    task = importlib.import_module(_TASKS[teacher.task])
    cases: Cases = task.cases_of(teacher, chosen)
    request = request_of(teacher, chosen, budget, limits, seed)
    folder = None if out is None else Path(out)
    student = find_run(request, folder)
    if student is None:
        asked = command or _call(request, to, int8=int8)
        student = _begin(task, teacher, chosen, cases, request, limits, folder, origin, asked)
    if not student.finished:
        student = _learn(task, student, teacher, chosen, cases, started, progress)
    if not (student.path / "report.html").exists():
        write_card(student.path)
        write_report(student.path, chosen, split="val")
    return _measure(task, student, teacher, chosen, cases, to, int8, limits, progress)


def _begin(
    task: Any,
    teacher: Run,
    cohort: Cohort,
    cases: Cases,
    request: Json,
    limits: Limits,
    folder: Path | None,
    origin: str,
    command: str,
) -> Run:
    """Choose the student's network and write its plan; nothing is written before it is chosen."""
    from vesalius.flows.compressing.choice import choose
    from vesalius.flows.compressing.student import begin

    val = _validation(teacher, cases)
    measured, candidates = task.contest(teacher, cohort, val, request["budget"])
    found = choose(measured, candidates, limits)
    audit = (origin, *found.lines)
    return begin(teacher, cohort, request, found.candidate.decisions, audit, folder, command)


def _learn(
    task: Any,
    student: Run,
    teacher: Run,
    cohort: Cohort,
    cases: Cases,
    started: float,
    progress: Progress | None,
) -> Run:
    from vesalius.flows.compressing.student import take_over
    from vesalius.flows.compressing.unlabeled import unlabeled_cases

    unlabeled, lines = unlabeled_cases(cohort, cases, teacher.subsets())
    student = student.note(*lines)
    take_over(student, teacher, cohort, [row["key"] for case in unlabeled for row in case.rows])
    student = task.train(student, cohort, cases, unlabeled, teacher, started, progress)
    return student.measure(seconds=round(time.monotonic() - started, 1))


def _measure(
    task: Any,
    student: Run,
    teacher: Run,
    cohort: Cohort,
    cases: Cases,
    to: str,
    int8: bool,
    limits: Limits,
    progress: Progress | None,
) -> Compression:
    """Export the student where that was asked for, measure all, and write the report."""
    from dataclasses import replace

    from vesalius.flows.compressing.cost import Answering, measure, run_files
    from vesalius.flows.compressing.quality import difference
    from vesalius.reporting.compress import write_compression

    exported, scores, refused = None, None, ""
    models = [
        Answering(name, run.path, run_files(run.path, run.task))
        for name, run in (("teacher", teacher), ("student", student))
    ]
    words = {"teacher": task.described(teacher), "student": task.described(student)}
    if to:
        folder = student.path / (f"{to}-int8" if int8 else to)
        if folder.exists():  # of the same command before
            shutil.rmtree(folder)
        exported, scores, refused = task.export(
            student, folder, to=to, int8=int8, cohort=cohort, cases=cases, progress=progress
        )
        models.append(Answering(to, exported, task.exported_files(exported)))
        words[to] = f"{to}, {'int8' if scores is not None else 'fp32'}"
    val = _validation(teacher, cases)[:_TIMED]
    costs = measure(models, teacher.task, cohort, val, progress=progress)
    result = Compression(
        path=student.path,
        task=teacher.task,
        target=teacher.plan["target"],
        teacher=f"{teacher.task}-{teacher.id[:8]}",
        student=f"{student.task}-{student.id[:8]}",
        models=words,
        costs={model.name: cost for model, cost in zip(models, costs, strict=True)},
        quality=difference(teacher, student, "val"),
        limits={"seconds": limits.seconds, "bytes": limits.bytes},
        exported=exported,
        int8=scores,
        refused=refused,
    )
    return replace(result, report=write_compression(result.to_json(), student.path))


def _validation(teacher: Run, cases: Cases) -> list[Case]:
    found = cases.subset(teacher.subsets(), "val")
    if not found:
        raise CohortError("the run's split has no validation case in this cohort")
    return found


def _budget(minutes: float | None, steps: int | None) -> Json:
    """Return the budget of a plan."""
    if minutes is not None and steps is not None:
        raise UsageError("give minutes or steps, not both")
    for name, value in (("minutes", minutes), ("steps", steps)):
        if value is not None and not value > 0:
            raise UsageError(f"{name} must be above 0, got {value}")
    if steps is not None:
        return {"steps": steps}
    return {"minutes": MINUTES if minutes is None else minutes}


def _check(limits: Limits, to: str, *, int8: bool) -> None:
    """Raise where an argument is wrong in itself, or a library of the engine is absent."""
    from vesalius.optional import require, require_silent

    for name, value in (("max_latency", limits.seconds), ("max_size", limits.bytes)):
        if value is not None and not value > 0:
            raise UsageError(f"{name} must be above 0, got {value}")
    if to not in ("", *ENGINES):
        raise UsageError(
            f"to must be one of {', '.join(ENGINES)}, got '{to}'.{did_you_mean(to, ENGINES)}"
        )
    if int8 and not to:
        raise UsageError(f"int8 is of an export: say for which engine, to {' or '.join(ENGINES)}")
    if to:
        require("onnxscript", "exporting to ONNX")
    if to == "onnx":
        require("onnxruntime", "a network in ONNX")
    if to == "openvino":
        require_silent("openvino", "exporting to OpenVINO")
        if int8:
            require_silent("nncf", "8-bit networks of OpenVINO")


def _call(request: Json, to: str, *, int8: bool) -> str:
    held = {**request["budget"], "seed": request["seed"], "to": to, "int8": int8}
    held |= {name: request[name] for name in ("max_latency", "max_size")}
    given = ", ".join(f"{name}={value!r}" for name, value in held.items() if value)
    return f"vesalius.compress(run, cohort, {given})"
