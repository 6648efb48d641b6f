# SPDX-License-Identifier: Apache-2.0
"""Nucleus and cytoplasm of white blood cells (wbc), 5 folds; then the same in other colors.

    python -m benchmarks.cell_parts [--minutes 15] [--folds 0 1 2 3 4] [--work runs/cell_parts]

Each fold's test images are written again in every recoloring of `recolorings`, and the fold's run
predicts these files as it does the originals. Runs lie in the work folder: the same command goes
on after an interruption. Nothing is recorded before all folds are trained.
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
    centered,
    counts,
    mean_interval,
    pooled_dice,
)
from benchmarks.recolorings import RECOLORINGS
from benchmarks.record import record
from vesalius import io
from vesalius.cohorts import Cohort
from vesalius.cohorts.splits import Split
from vesalius.flows.evaluate import evaluate
from vesalius.flows.scan import scan
from vesalius.flows.train import train
from vesalius.tasks.cases import Case, case_groups, segmentation_cases
from vesalius.tasks.run import Run
from vesalius.tasks.segment.predict import Segmenter
from vesalius.types import Array

FOLDS = 5
PARTS = {"nucleus": 255, "cytoplasm": 128}
BARS = {"nucleus": 0.96, "cytoplasm": 0.92}
MOST_LOST = 0.03
ORIGINAL = "original"
Table = dict[str, dict[str, Counts]]  # part -> image -> counts


def data() -> Path:
    return Path(os.environ["VESALIUS_DATA"]) / "wbc"


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


def mask_of(cohort: Cohort, case: Case) -> Array:
    return np.asarray(cohort.read_mask(case.rows[0]).data[0, :, :, 0])


def add(table: Table, key: str, found: Array, truth: Array) -> None:
    """Put one image's counts into the table."""
    for part, value in PARTS.items():
        table.setdefault(part, {})[key] = counts(found == value, truth == value)


def original(run: Run, cohort: Cohort, cases: Mapping[str, Case]) -> Table:
    """Return the counts of the test images; of one without an answer, as if nothing was found."""
    table: Table = {}
    for row in run.predictions().to_pylist():
        if row["split"] == "test":
            truth = mask_of(cohort, cases[row["key"]])
            found = np.zeros_like(truth)
            if not row["failed"]:
                found = io.read_labels(run.path / row["file"]).data[0, :, :, 0]
            add(table, row["key"], found, truth)
    return table


def recolored(
    run: Run, cohort: Cohort, cases: Mapping[str, Case], keys: list[str], folder: Path
) -> dict[str, Table]:
    """Write the test images in every recoloring, predict the files, return their counts."""
    segmenter = Segmenter.load(run)
    tables: dict[str, Table] = {name: {} for name in RECOLORINGS}
    for name, recolor in RECOLORINGS.items():
        place = folder / name.replace(" ", "-").replace(",", "")
        place.mkdir(parents=True, exist_ok=True)
        for key in keys:
            source = cohort.read(cases[key].rows[0])
            path = place / f"{key}.png"
            io.write(source.with_data(recolor(source.data[:3, :, :, 0])[..., None]), path)
            found = segmenter.predict(io.read(path)).data[0, :, :, 0]
            add(tables[name], key, found, mask_of(cohort, cases[key]))
    return tables


def constant(cohort: Cohort, cases: Mapping[str, Case], split: Split) -> Table:
    """Return the counts of the test images against the mean of all others' masks, each part's."""
    table: Table = {}
    known = [mask_of(cohort, cases[key]) for key in (*split.keys("train"), *split.keys("val"))]
    for part, value in PARTS.items():
        mask = best_constant([one == value for one in known])
        table[part] = {}
        for key in split.keys("test"):
            truth = mask_of(cohort, cases[key]) == value
            table[part][key] = counts(centered(mask, truth.shape), truth)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(FOLDS)))
    parser.add_argument("--steps", type=int, help="instead of minutes, to try; nothing is recorded")
    parser.add_argument("--work", type=Path, default=Path("runs/cell_parts"))
    asked = parser.parse_args()
    if not (asked.work / "cohort").exists():
        scan(data(), out=asked.work / "cohort")
    cohort = Cohort.open(asked.work / "cohort")
    found = segmentation_cases(cohort)
    cases, groups = {case.key: case for case in found.cases}, case_groups(cohort, found.cases)
    splits = write_folds(cohort, found, asked.work, folds=FOLDS)
    tables: dict[str, Table] = {name: {} for name in (ORIGINAL, "constant", *RECOLORINGS)}
    steps = []
    for number in asked.folds:
        run = trained(cohort, splits[number], asked)
        split = Split.load(splits[number])
        parts = {ORIGINAL: original(run, cohort, cases), "constant": constant(cohort, cases, split)}
        parts |= recolored(run, cohort, cases, split.keys("test"), asked.work / "recolored")
        for name, table in parts.items():
            for part, pairs in table.items():
                tables[name].setdefault(part, {}).update(pairs)
        steps.append(run.plan["measured"]["steps_done"])
        dice = {name: scores(table) for name, table in parts.items()}
        print(splits[number].stem, steps[-1], "steps", dice, flush=True)
    content = summary(tables, groups, steps, asked)
    for line in (*content["rows"], *content["bars"]):
        print(line, flush=True)
    if asked.steps or len(asked.folds) < FOLDS:
        print("not recorded; lacking: minutes, or folds")
        return
    record("cell_parts", content, data=data())


def scores(table: Table) -> dict[str, float]:
    """Return each part's mean Dice over images."""
    return {part: round(float(dice(table, part).mean()), 4) for part in PARTS}


def dice(table: Table, part: str) -> Array:
    """Return the Dice of every image, in the order of the keys."""
    return np.array([pooled_dice([table[part][key]]) for key in sorted(table[part])])


def summary(
    tables: Mapping[str, Table],
    groups: Mapping[str, int],
    steps: list[int],
    asked: argparse.Namespace,
) -> dict[str, Any]:
    """Return what `record` writes."""
    own = [groups[key] for key in sorted(tables[ORIGINAL]["nucleus"])]
    rows: list[dict[str, Any]] = []
    for name, table in tables.items():
        row: dict[str, Any] = {"images": name}
        for part in PARTS:
            row[f"{part}: mean Dice"] = round(float(dice(table, part).mean()), 4)
            row[f"{part}: pooled"] = round(pooled_dice(list(table[part].values())), 4)
            if name in RECOLORINGS:
                lost = 100 * (dice(tables[ORIGINAL], part) - dice(table, part))
                low, high = mean_interval(lost, own)
                row[f"{part}: points lost"] = round(float(lost.mean()), 2)
                row[f"{part}: interval"] = f"{low:.2f} to {high:.2f}"
        rows.append(row)
    bars: list[dict[str, Any]] = []
    for part, least in BARS.items():
        each = dice(tables[ORIGINAL], part)
        low, high = mean_interval(each, own)
        bars.append({
            "bar": f"{part}: mean Dice over images", "target": f">= {least}",
            "measured": round(float(each.mean()), 4), "spread": f"{low:.4f} to {high:.4f}",
            "met": bool(each.mean() >= least),
        })  # fmt: skip
    for part in PARTS:
        worst = max((row for row in rows if row["images"] in RECOLORINGS),
                    key=lambda row: row[f"{part}: points lost"])  # fmt: skip
        lost = worst[f"{part}: points lost"]
        bars.append({
            "bar": f"{part}: points of Dice lost on the worst of {len(RECOLORINGS)} recolorings "
            f"({worst['images']})", "target": f"<= {100 * MOST_LOST:g}", "measured": lost,
            "spread": worst[f"{part}: interval"], "met": lost <= 100 * MOST_LOST,
        })  # fmt: skip
    return {
        "title": "Parts of white blood cells, and other stains",
        "what": f"`train segment --minutes {asked.minutes:g}` in each fold; its run then predicts "
        "strongly recolored copies of its test images.",
        "data": f"wbc, {len(own)} cells",
        "split": f"{FOLDS} folds by near-duplicate",
        "unit": "mean over images of each image's Dice; pooled: of all voxels together",
        "baseline": "constant: the mean of the training masks, cut where it fits them best",
        "noise": "95 % bootstrap over near-duplicates' groups; losses paired by image",
        "steps": steps,
        "bars": bars,
        "rows": rows,
    }  # fmt: skip


if __name__ == "__main__":
    main()
