# SPDX-License-Identifier: Apache-2.0
"""`vesalius compare`: which of two runs is better on the same cases, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vesalius.errors import CohortError, RunError, UsageError
from vesalius.types import Array, Json, PathLike

if TYPE_CHECKING:
    from vesalius.metrics import Difference
    from vesalius.metrics.bootstrap import Statistics
    from vesalius.tasks.run import Run
    from vesalius.tasks.targets import Target

_CLASSES = ("binary", "multiclass", "ordinal")  # kinds that answer with class probabilities
_HEAD = ("score", "of", "A", "B", "B - A", "95 % interval", "P(B better)", "verdict")
Rows = list[Json]
Score = Callable[[Rows, bool], "Statistics"]  # whether prediction intervals are scored


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs on the same cases of one subset.

    Attributes:
        task, target: of both runs.
        split: the subset.
        run_a, run_b: their names, from task and hash of the plan.
        n_cases, n_patients: scored by both.
        failed_a, failed_b: cases without a prediction, which count as the worst answer.
        differences: one a score, B minus A.
        report: the HTML page, or None when none was asked for.
    """

    task: str
    target: str | None
    split: str
    run_a: str
    run_b: str
    n_cases: int
    n_patients: int
    failed_a: int
    failed_b: int
    differences: tuple[Difference, ...]
    report: Path | None = None

    def to_json(self) -> Json:
        """Return what `comparison.json` holds."""
        return {
            "format": 1,
            "kind": "run-comparison",
            "task": self.task,
            "target": self.target,
            "split": self.split,
            "a": {"run": self.run_a, "n_failed": self.failed_a},
            "b": {"run": self.run_b, "n_failed": self.failed_b},
            "n_cases": self.n_cases,
            "n_patients": self.n_patients,
            "differences": [one.to_json() for one in self.differences],
        }

    def lines(self) -> list[str]:
        """Return the comparison as a plain table."""
        rows = [_HEAD, *map(_cells, self.differences)]
        widths = [max(len(row[place]) for row in rows) for place in range(len(_HEAD))]
        return [
            f"{self.n_cases} cases of {self.n_patients} patients in '{self.split}'",
            f"A: {self.run_a}, {self.failed_a} failed",
            f"B: {self.run_b}, {self.failed_b} failed",
            "",
            *(
                "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
                for row in rows
            ),
        ]


def compare(
    run_a: PathLike | Run,
    run_b: PathLike | Run,
    *,
    split: str = "test",
    out: PathLike | None = None,
) -> Comparison:
    """Compare two evaluated runs, score by score, on the cases that both were scored on.

    The difference of each score has an interval from draws of patients that both runs share, and
    the share of these draws in which B is better. Nothing is predicted anew: the runs'
    `predictions.parquet` are read.

    Args:
        run_a: a run or its folder.
        run_b: another, of the same task and target.
        split: a subset that both runs were scored on, or `cohort-…` as `evaluate` names another
            cohort.
        out: a folder that receives `comparison.json` and `comparison.html`.

    Raises:
        UsageError: runs of different tasks, targets or classes.
        RunError: no predictions of the subset.
        CohortError: other cases, truths or patients in one run than in the other.
    """
    from dataclasses import replace

    from vesalius.metrics import paired_differences
    from vesalius.metrics.bootstrap import patient_index
    from vesalius.metrics.comparison import IDEALS
    from vesalius.metrics.regression import COVERAGE
    from vesalius.reporting.comparison import write_comparison
    from vesalius.tasks.run import Run

    a, b = (run if isinstance(run, Run) else Run.load(run) for run in (run_a, run_b))
    _same(a.task, b.task, "task")
    _same(a.plan["target"], b.plan["target"], "target")
    score = _by_structure(a, b) if a.task == "segment" else _by_target(a, b)
    rows_a, rows_b = _shared(_rows(a, split), _rows(b, split), split)
    bounded = _bounded([*rows_a, *rows_b])
    of_a, of_b = (score(rows, bounded) for rows in (rows_a, rows_b))
    index, n_patients = patient_index([_drawn(row) for row in rows_a], len(rows_a))
    found = paired_differences(of_a, of_b, index, ideals={**IDEALS, "interval_coverage": COVERAGE})
    comparison = Comparison(
        task=a.task,
        target=a.plan["target"],
        split=split,
        run_a=f"{a.task}-{a.id[:8]}",
        run_b=f"{b.task}-{b.id[:8]}",
        n_cases=len(rows_a),
        n_patients=n_patients,
        failed_a=sum(bool(row["failed"]) for row in rows_a),
        failed_b=sum(bool(row["failed"]) for row in rows_b),
        differences=tuple(found),
    )
    if out is None:
        return comparison
    return replace(comparison, report=write_comparison(comparison.to_json(), out))


def _same(a: Any, b: Any, what: str) -> None:
    if a != b:
        raise UsageError(f"both runs must have the same {what}, got '{a}' (A) and '{b}' (B)")


def _rows(run: Run, split: str) -> dict[str, Json]:
    """Return case key -> its row of `predictions.parquet` in one subset."""
    if not (run.path / "predictions.parquet").is_file():
        raise RunError(
            f"the run '{run.path}' has no predictions.parquet; make it with `vesalius evaluate`"
        )
    rows = run.predictions().to_pylist()
    chosen = {str(row["key"]): row for row in rows if row["split"] == split}
    if not chosen:
        held = ", ".join(sorted({str(row["split"]) for row in rows})) or "none"
        raise RunError(
            f"the run '{run.path}' holds predictions of {held}, none of '{split}'; make them with "
            f"`vesalius evaluate --split {split}`"
        )
    return chosen


def _shared(a: Mapping[str, Json], b: Mapping[str, Json], split: str) -> tuple[Rows, Rows]:
    """Return both runs' rows in one order; `CohortError` where the cases are not the same."""
    from vesalius.metrics.bootstrap import patient_index

    if a.keys() != b.keys():
        raise CohortError(
            f"the runs were scored on different cases of '{split}': {len(a.keys() - b.keys())} "
            f"only in A, {len(b.keys() - a.keys())} only in B, {len(a.keys() & b.keys())} in both; "
            "train them with one --split, or evaluate both on one other cohort"
        )
    keys = sorted(a)
    rows_a, rows_b = [a[key] for key in keys], [b[key] for key in keys]
    truths = [name for name in rows_a[0] if name == "truth" or name.startswith("volume_")]
    truths = [name for name in truths if not name.startswith("volume_error_")]
    _agree(
        [[row.get(name) for name in truths] for row in rows_a],
        [[row.get(name) for name in truths] for row in rows_b],
        "truth",
    )
    # the same patients may bear other pseudonyms: which cases belong together is compared
    grouped = [patient_index([_drawn(r) for r in rows], len(rows))[0] for rows in (rows_a, rows_b)]
    _agree(grouped[0].tolist(), grouped[1].tolist(), "patient")
    return rows_a, rows_b


def _drawn(row: Json) -> str:
    """Return what is drawn as a whole: the patient; of a classifier's rows with look-alikes."""
    return str(row.get("group") or row["patient"])


def _agree(a: Sequence[Any], b: Sequence[Any], what: str) -> None:
    different = sum(one != other for one, other in zip(a, b, strict=True))
    if different:
        raise CohortError(
            f"{different} of {len(a)} cases have another {what} in B than in A; evaluate both runs "
            "again on the same version of the cohort"
        )


def _by_structure(a: Run, b: Run) -> Score:
    """Return what scores the rows of both segmentation runs."""
    from vesalius.metrics import segmentation_statistics

    labels = list(a.decisions["labels"])
    _same(sorted(labels), sorted(b.decisions["labels"]), "structures")
    return lambda rows, _: segmentation_statistics(
        {name: [row[name] for row in rows] for name in rows[0]}, labels
    )


def _by_target(a: Run, b: Run) -> Score:
    """Return what scores the rows of both classification runs."""
    from vesalius.tasks.targets import Target

    target, other = (Target.from_json(run.decisions.get("target", {})) for run in (a, b))
    _same(sorted(target.classes), sorted(other.classes), "classes")
    if not {target.kind, other.kind} <= set(_CLASSES):
        _same(target.kind, other.kind, "kind of target")
    if other.kind == "ordinal":  # its classes stand in the order of the grades
        target = other
    return lambda rows, bounded: _of_target(target, rows, bounded)


def _bounded(rows: Rows) -> bool:
    """Return whether every answer has a prediction interval."""
    ends = [(row.get("low"), row.get("high")) for row in rows if not row["failed"]]
    return all(low is not None and high is not None for low, high in ends)


def _of_target(target: Target, rows: Rows, bounded: bool) -> Statistics:
    """Return the scores that belong to a kind of target, from one run's rows."""
    import numpy as np

    from vesalius import metrics
    from vesalius.metrics.bootstrap import joined

    def column(name: str) -> Array:
        return np.array([np.nan if r[name] is None else r[name] for r in rows], np.float64)

    failed = np.array([bool(row["failed"]) for row in rows])
    truths = [str(row["truth"]) for row in rows]
    if target.kind == "regression":
        numbers = [target.number(text) for text in truths]
        ends = {"low": column("low"), "high": column("high")} if bounded else {}
        return metrics.regression_statistics(numbers, column("value"), failed=failed, **ends)
    classes = list(target.classes)
    table = np.column_stack([column(f"p_{name}") for name in classes])
    truth = target.encode(truths)
    if target.kind == "multilabel":
        return metrics.multilabel_statistics(truth, table, classes, failed=failed)
    found = metrics.classification_statistics(truth, table, classes, failed=failed)
    if target.kind == "ordinal":
        grades = metrics.ordinal_statistics(truth, table, classes, failed=failed)
        return joined(found, grades)
    return found


def _cells(one: Difference) -> tuple[str, ...]:
    def number(value: float | None, form: str = ".3f") -> str:
        return "-" if value is None else format(value, form)

    interval = "-" if one.low is None else f"{one.low:+.3f} to {one.high:+.3f}"
    return (
        one.name, one.label or "all", number(one.a), number(one.b),
        number(one.difference, "+.3f"), interval, number(one.p_better), one.verdict,
    )  # fmt: skip
