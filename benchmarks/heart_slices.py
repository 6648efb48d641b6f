# SPDX-License-Identifier: Apache-2.0
"""Left ventricle in cine MR slices (sunnybrook), 5 folds by patient, slices of a patient pooled.

    python -m benchmarks.heart_slices [--minutes 15] [--folds 0 1 2 3 4] [--work runs/heart_slices]

Runs lie in the work folder: the same command goes on after an interruption. Nothing is recorded
before all folds are trained.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.folds import write_folds
from benchmarks.overlaps import (
    Counts,
    best_constant,
    by_group,
    centered,
    counts,
    mean_interval,
    pooled_dice,
)
from benchmarks.record import record
from vesalius import io
from vesalius.cohorts import Cohort
from vesalius.cohorts.splits import Split
from vesalius.flows.evaluate import evaluate
from vesalius.flows.scan import scan
from vesalius.flows.train import train
from vesalius.tasks.cases import Case, case_groups, segmentation_cases
from vesalius.tasks.run import Run
from vesalius.types import Array

FOLDS = 5
BAR = 0.93


def data() -> Path:
    return Path(os.environ["VESALIUS_DATA"]) / "sunnybrook"


def trained(cohort: Cohort, split: Path, asked: argparse.Namespace) -> Run:
    """Return the finished run of one fold, its test images predicted."""
    budget = f"{asked.steps}steps" if asked.steps else f"{asked.minutes:g}"
    run = train(
        "segment", cohort, minutes=None if asked.steps else asked.minutes, steps=asked.steps,
        split=split, out=asked.work / f"{split.stem}-{budget}",
    )  # fmt: skip
    if "test" not in run.metrics["splits"]:
        evaluate(run, cohort, split="test")
    return run


def truth_of(cohort: Cohort, case: Case) -> Array:
    """Return the ventricle, `(i, j)` Boolean."""
    return np.asarray(cohort.read_mask(case.rows[0]).data[0, :, :, 0] > 0)


def scored(run: Run, cohort: Cohort, cases: Mapping[str, Case]) -> dict[str, Counts]:
    """Return the counts of every test slice; one without an answer is one with nothing found."""
    pairs = {}
    for row in run.predictions().to_pylist():
        if row["split"] == "test":
            truth = truth_of(cohort, cases[row["key"]])
            found = np.zeros_like(truth)
            if not row["failed"]:
                found = io.read_labels(run.path / row["file"]).data[0, :, :, 0] > 0
            pairs[row["key"]] = counts(found, truth)
    return pairs


def constant(cohort: Cohort, cases: Mapping[str, Case], split: Split) -> dict[str, Counts]:
    """Return the counts of every test slice against the mean of all other patients' masks."""
    mask = best_constant(
        [truth_of(cohort, cases[key]) for key in (*split.keys("train"), *split.keys("val"))]
    )
    pairs = {}
    for key in split.keys("test"):
        truth = truth_of(cohort, cases[key])
        pairs[key] = counts(centered(mask, truth.shape), truth)
    return pairs


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(FOLDS)))
    parser.add_argument("--steps", type=int, help="instead of minutes, to try; nothing is recorded")
    parser.add_argument("--work", type=Path, default=Path("runs/heart_slices"))
    asked = parser.parse_args()
    if not (asked.work / "cohort").exists():
        scan(data(), out=asked.work / "cohort")
    cohort = Cohort.open(asked.work / "cohort")
    found = segmentation_cases(cohort)
    cases, groups = {case.key: case for case in found.cases}, case_groups(cohort, found.cases)
    splits = write_folds(cohort, found, asked.work, folds=FOLDS)
    ours: dict[str, Counts] = {}
    trivial: dict[str, Counts] = {}
    rows: list[dict[str, Any]] = []
    for number in asked.folds:
        run = trained(cohort, splits[number], asked)
        pairs = scored(run, cohort, cases)
        ours |= pairs
        trivial |= constant(cohort, cases, Split.load(splits[number]))
        each = by_group(pairs, groups)
        rows.append({
            "fold": number, "patients": len(each), "slices": len(pairs),
            "Dice": float(np.mean([pooled_dice(one) for one in each.values()])),
            "steps": run.plan["measured"]["steps_done"],
            "training minutes": run.plan["measured"]["training_seconds"] / 60,
        })  # fmt: skip
        print(rows[-1], flush=True)
    content = summary(ours, trivial, groups, rows, asked)
    print(content["bars"], content["baseline"], flush=True)
    if asked.steps or len(asked.folds) < FOLDS:
        print("not recorded; lacking: minutes, or folds")
        return
    record("heart_slices", content, data=data())


def summary(
    ours: Mapping[str, Counts],
    trivial: Mapping[str, Counts],
    groups: Mapping[str, int],
    rows: list[dict[str, Any]],
    asked: argparse.Namespace,
) -> dict[str, Any]:
    """Return what `record` writes."""
    patients = {group: pooled_dice(one) for group, one in by_group(ours, groups).items()}
    mean = float(np.mean(list(patients.values())))
    low, high = mean_interval(list(patients.values()), list(patients))
    plain = [pooled_dice(one) for one in by_group(trivial, groups).values()]
    worst = min(patients.values())
    return {
        "title": "Heart slices: left ventricle",
        "what": f"`train segment --minutes {asked.minutes:g}` in each fold.",
        "data": f"sunnybrook, {len(ours)} slices of {len(patients)} patients",
        "split": f"{FOLDS} folds by patient and near-duplicate",
        "unit": "Dice of a patient's slices pooled, mean over patients",
        "baseline": f"the mean of the training masks, cut where it fits them best: "
        f"{np.mean(plain):.3f}",
        "noise": "95 % bootstrap over patients",
        "bars": [
            {"bar": "left ventricle: Dice", "target": f">= {BAR}", "measured": round(mean, 4),
             "spread": f"{low:.3f} to {high:.3f}; worst patient {worst:.3f}", "met": mean >= BAR},
        ],
        "rows": rows,
        "patients": sorted(round(value, 4) for value in patients.values()),
    }  # fmt: skip


if __name__ == "__main__":
    main()
