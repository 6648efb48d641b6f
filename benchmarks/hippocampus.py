# SPDX-License-Identifier: Apache-2.0
"""Hippocampus (3D MR): `train segment` in its minutes, beside a plain MONAI script and nnU-Net.

    python -m benchmarks.hippocampus [--minutes 15 60] [--seeds 0] [--only ours|plain|nnunet]
        [--work runs/hippocampus]

One split file for all three: 160 cases to learn from, 40 to be judged by, cases that are alike or
mirrored alike on one side. The peers train on all of the 160; `train` keeps 20 of them for its
validation. Every part runs in a process of its own on all cores, and is read from the work folder
when it was finished before; `train` also goes on where it was interrupted. nnU-Net runs in the
longest of the minutes. Nothing is recorded before every method has finished a seed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import record
from vesalius import io
from vesalius.cohorts import Cohort
from vesalius.cohorts.splits import Split, make_split
from vesalius.files import read_json, write_json
from vesalius.flows.evaluate import evaluate
from vesalius.flows.scan import scan
from vesalius.flows.train import train
from vesalius.metrics import compare_masks, failed_masks, segmentation_statistics
from vesalius.metrics.bootstrap import DRAWS, joined, patient_draws
from vesalius.tasks.cases import Case, case_groups, segmentation_cases
from vesalius.types import Array, Json

METHODS = ("ours", "plain", "nnunet")
FRACTIONS = (0.7, 0.1, 0.2)  # train, val, test
TOLERANCE_MM = 1.0
SCORES = {"dice": "Dice", "nsd": "NSD at 1 mm", "hd95": "HD95, mm"}
# minutes -> smallest mean Dice, and what that bar is
BARS = {15.0: [(0.88, "")], 60.0: [(0.89, ""), (0.90, " (goal)")]}
REMARKS = [
    (
        "Minutes of `train` are wall minutes of everything (preparation, probe, validation, "
        "report); the peers' are of training alone. What all of it took is in the table."
    ),
    "`train` validates on 20 of the 160 cases, whole groups of the split; the peers train on all.",
    (
        "The peers' schedules fit the minutes by a probe of their steps: one cycle for the plain "
        "script, nnU-Net's polynomial decay, step by step. nnU-Net mirrors nothing here."
    ),
]


def opened(work: Path) -> tuple[Cohort, list[Case], Split]:
    """Return the cohort, its cases and the split, made at the first call and kept."""
    if not (work / "cohort").exists():
        scan(data(), out=work / "cohort")
    cohort = Cohort.open(work / "cohort")
    if not (work / "split.json").exists():
        make_split(cohort, fractions=FRACTIONS, seed=0).save(work / "split.json")
    return cohort, list(segmentation_cases(cohort).cases), Split.load(work / "split.json")


def data() -> Path:
    return Path(os.environ["VESALIUS_DATA"]) / "hippocampus"


def list_files(cases: Sequence[Case], split: Split, work: Path) -> None:
    """Write what the peers see: key -> image and mask of the 160, key -> image of the 40."""
    files: dict[str, Any] = {"train": {}, "test": {}}
    for case in cases:
        (image,), (mask,) = case.rows[0]["files"], case.rows[0]["mask_files"]
        if split.rows[case.key] == "test":
            files["test"][case.key] = str(data() / image)
        else:
            files["train"][case.key] = [str(data() / image), str(data() / mask)]
    write_json(work / "files.json", files)


def one(method: str, minutes: float, seed: int, steps: int | None, work: Path) -> None:
    """Train one method and predict the test cases; write what it took."""
    name = part_name(method, minutes, seed, steps)
    wall, processor = time.perf_counter(), sum(os.times()[:4])
    if method == "ours":
        facts = _ours(work, name, minutes, seed, steps)
    else:
        files = read_json(work / "files.json")
        facts = importlib.import_module(f"benchmarks.hippocampus_{method}").measure(
            {key: (Path(image), Path(mask)) for key, (image, mask) in files["train"].items()},
            {key: Path(image) for key, image in files["test"].items()},
            label_maps(work, name), minutes=minutes, seed=seed, steps=steps,
        )  # fmt: skip
    facts["wall minutes"] = (time.perf_counter() - wall) / 60
    facts["processor minutes"] = (sum(os.times()[:4]) - processor) / 60
    write_json(work / f"{name}.json", facts)


def _ours(work: Path, name: str, minutes: float, seed: int, steps: int | None) -> Json:
    cohort = Cohort.open(work / "cohort")
    run = train(
        "segment", cohort, minutes=minutes, steps=steps, seed=seed, split=work / "split.json",
        out=label_maps(work, name).parent,
    )  # fmt: skip
    evaluate(run, cohort, split="test")
    measured = run.plan["measured"]
    return {
        "steps": measured["steps_done"],
        "seconds a step": measured["training_seconds"] / measured["steps_done"],
        "training minutes": measured["training_seconds"] / 60,
        "precision": run.decisions["precision"].removesuffix("-mixed").replace("32-true", "fp32"),
        "made with": f"Vesalius {run.plan['versions']['vesalius']}",
    }


def label_maps(work: Path, name: str) -> Path:
    """Return where a part's label maps lie, `<key>.nii.gz`; ours chooses it, within its run."""
    return work / name / "predictions"


def score(cohort: Cohort, cases: Sequence[Case], folder: Path) -> list[Json]:
    """Return a row a case, from the label maps of `folder`; where one lacks, the worst scores."""
    rows = []
    for case in cases:
        truth = cohort.read_mask(case.rows[0])
        path = folder / f"{case.key}.nii.gz"
        if path.exists():
            found = io.read_labels(path)
            if not np.allclose(found.affine, truth.affine, atol=1e-3):
                raise SystemExit(f"{path} does not lie on its image's grid")
            scores = compare_masks(
                found.data, truth.data, truth.spacing, truth.names, tolerance_mm=TOLERANCE_MM
            )
        else:
            scores = failed_masks(truth.data, truth.spacing, truth.names)
        rows.append({"key": case.key, "failed": not path.exists(), **scores})
    return rows


def part_name(method: str, minutes: float, seed: int, steps: int | None) -> str:
    return f"{method}-{f'{steps}steps' if steps else f'{minutes:g}'}-{seed}"


class Result:
    """The seeds of one method at some minutes: means, and draws of cases and seeds."""

    def __init__(
        self,
        facts: list[Json],
        tables: list[list[Json]],
        groups: Mapping[str, int],
        labels: Sequence[str],
    ) -> None:
        self.facts, self.tables = facts, tables
        patients = [groups[row["key"]] for row in self.tables[0]]
        columns = [
            {name: [row[name] for row in table] for name in table[0]} | {"patient": patients}
            for table in self.tables
        ]
        each = [segmentation_statistics(table, labels) for table in columns]
        together = joined(*each)
        self.names = each[0].names
        self.values = together.values().reshape(len(tables), -1).mean(0)
        samples = patient_draws(together.of, patients).reshape(DRAWS, len(tables), -1)
        seeds = np.random.default_rng(0).integers(0, len(tables), (DRAWS, len(tables)))
        self.draws = np.take_along_axis(samples, seeds[:, :, None], 1).mean(1)


def row(title: dict[str, Any], names: Any, values: Array, draws: Array) -> dict[str, Any]:
    """Return the scores with their intervals as a row of the table."""
    found: dict[str, Any] = dict(title)
    for place, (name, label) in enumerate(names):
        if name in SCORES and not label:
            found[SCORES[name]] = round(float(values[place]), 4)
            found[f"{SCORES[name]}: interval"] = _interval(draws[:, place])
        elif name == "dice":
            found[f"Dice, {label}"] = round(float(values[place]), 4)
    return found


def _interval(draws: Array) -> str:
    low, high = np.percentile(draws, (2.5, 97.5))
    return f"{low:.4f} to {high:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, nargs="+", default=sorted(BARS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", choices=METHODS)
    parser.add_argument("--steps", type=int, help="instead of minutes, to try; nothing is recorded")
    parser.add_argument("--work", type=Path, default=Path("runs/hippocampus"))
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        method, minutes, seed = asked.one
        one(method, float(minutes), int(seed), asked.steps, asked.work)
        return
    cohort, cases, split = opened(asked.work)
    list_files(cases, split, asked.work)
    longest = max(asked.minutes)
    wanted = [(m, t) for t in sorted(asked.minutes) for m in METHODS if m != "nnunet"]
    wanted.append(("nnunet", longest))
    if asked.steps:
        wanted = [(method, longest) for method in METHODS]
    for method, minutes in wanted:
        for seed in asked.seeds if asked.only in (None, method) else ():
            _run(method, minutes, seed, asked)
    results, lacking = collect(wanted, asked, cohort, cases, split)
    rows = table(results)
    for line in rows:
        print(line, flush=True)
    if lacking or asked.steps:
        print(f"not recorded; lacking: {', '.join(lacking) or 'minutes'}")
        return
    record("hippocampus", content(rows, results, split, asked), data=data())


def _run(method: str, minutes: float, seed: int, asked: argparse.Namespace) -> None:
    """Run one part that is not finished in a process of its own, on all cores."""
    if (asked.work / f"{part_name(method, minutes, seed, asked.steps)}.json").exists():
        return
    command = [sys.executable, "-m", "benchmarks.hippocampus", "--work", str(asked.work)]
    command += ["--steps", str(asked.steps)] if asked.steps else []
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    part = ["--one", method, str(minutes), str(seed)]
    subprocess.run([*command, *part], env=environment, check=True)


def collect(
    wanted: Sequence[tuple[str, float]],
    asked: argparse.Namespace,
    cohort: Cohort,
    cases: Sequence[Case],
    split: Split,
) -> tuple[dict[tuple[str, float], Result], list[str]]:
    """Return what has finished, scored, and what of the wanted lacks all seeds."""
    groups = case_groups(cohort, cases)
    labels = list(cohort.read_mask(cases[0].rows[0]).names.values())
    test = [case for case in cases if split.rows[case.key] == "test"]
    results, lacking = {}, []
    for method, minutes in wanted:
        names = [part_name(method, minutes, seed, asked.steps) for seed in asked.seeds]
        names = [name for name in names if (asked.work / f"{name}.json").exists()]
        if not names:
            lacking.append(f"{method} in {minutes:g} minutes")
            continue
        results[method, minutes] = Result(
            [read_json(asked.work / f"{name}.json") for name in names],
            [score(cohort, test, label_maps(asked.work, name)) for name in names],
            groups,
            labels,
        )
    return results, lacking


def table(results: dict[tuple[str, float], Result]) -> list[dict[str, Any]]:
    """Return a row a method, then ours less each peer in the same minutes."""
    rows = []
    for (method, minutes), found in results.items():
        title = {"method": method, "minutes": minutes, "seeds": len(found.facts)}
        rows.append(row(title, found.names, found.values, found.draws))
        rows[-1]["failed"] = sum(one["failed"] for cases in found.tables for one in cases)
        rows[-1] |= {
            name: [round(v, 2) if isinstance(v, float) else v for v in values]
            for name in found.facts[0]
            for values in [[facts[name] for facts in found.facts]]
        }
    for (method, minutes), found in results.items():
        if method != "ours" and ("ours", minutes) in results:
            ours = results["ours", minutes]
            title = {"method": f"ours - {method}", "minutes": minutes}
            gap, draws = ours.values - found.values, ours.draws - found.draws
            rows.append(row(title, found.names, gap, draws))
    return rows


def content(
    rows: list[dict[str, Any]],
    results: dict[tuple[str, float], Result],
    split: Split,
    asked: argparse.Namespace,
) -> dict[str, Any]:
    """Return what `record` writes."""
    bars: list[dict[str, Any]] = []
    for line in rows:
        method, minutes, dice = line["method"], line["minutes"], line["Dice"]
        spread = line["Dice: interval"]
        if method == "ours":
            bars += [
                {"bar": f"mean Dice in {minutes:g} minutes", "target": f">= {least:.2f}{what}",
                 "measured": dice, "spread": spread, "met": dice >= least}
                for least, what in BARS.get(minutes, [])
            ]  # fmt: skip
        elif method == "ours - plain":
            bars.append(
                {"bar": f"mean Dice above the plain script's in {minutes:g} minutes",
                 "target": "interval > 0", "measured": dice, "spread": spread,
                 "met": float(spread.split()[0]) > 0}
            )  # fmt: skip
    return {
        "title": "Hippocampus: segmentation in minutes",
        "what": "Anterior and posterior hippocampus in MR: `train segment --minutes "
        f"{' | '.join(f'{m:g}' for m in asked.minutes)}` and two peers on one split.",
        "data": "hippocampus, 200 cases (Medical Segmentation Decathlon, Task04)",
        "split": f"{len(split.keys('train')) + len(split.keys('val'))} cases to learn from, "
        f"{len(split.keys('test'))} for test; digest {split.digest()}; {split.audit[1]}",
        "unit": "means over the test cases; Dice and NSD of both structures' mean",
        "peer": "a plain DynUNet script on MONAI; nnU-Net, 3d_fullres; their versions are in the "
        "table",
        "baseline": "the empty mask: Dice 0",
        "noise": f"95 % bootstrap over groups of cases and over {len(asked.seeds)} seed(s), paired",
        "seed": asked.seeds,
        "remarks": REMARKS,
        "bars": bars,
        "rows": rows,
        "cases": {
            f"{method}, {minutes:g} minutes": [
                {one["key"]: [round(one[name], 4) for name in SCORES] for one in cases}
                for cases in found.tables
            ]
            for (method, minutes), found in results.items()
        },
    }  # fmt: skip


if __name__ == "__main__":
    main()
