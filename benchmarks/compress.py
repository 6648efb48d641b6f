# SPDX-License-Identifier: Apache-2.0
"""Students beside their teachers: seconds, bytes and score on test cases, of three data sets.

    python -m benchmarks.compress [--minutes 10] [--student-minutes 10] [--folds 5] [--to openvino]
        [--seed 0] [--sets breastmnist wbc hippocampus] [--work runs/compress] [--out FILE]

Teachers are what `train` makes in its minutes: a mixture of frozen heads and networks, or (of
hippocampus) the mean of several folds' networks. Students are what `compress` makes of them. Test
cases are scored once both are finished; nothing was chosen on them. Runs lie in the work folder:
the same command goes on after an interruption. `--out` writes elsewhere than among the results.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.cell_classes import FEWEST
from benchmarks.folds import write_folds
from benchmarks.record import data_hash, record
from vesalius.cohorts import Cohort
from vesalius.cohorts.splits import make_split
from vesalius.flows.compress import compress
from vesalius.flows.compressing.quality import difference
from vesalius.flows.evaluate import evaluate
from vesalius.flows.export import ENGINES
from vesalius.flows.scan import scan
from vesalius.flows.train import train
from vesalius.tasks.cases import classification_cases
from vesalius.tasks.run import Run

FASTER = SMALLER = 5.0
LOSS = 0.01  # of AUC or Dice
FRACTIONS = (0.7, 0.1, 0.2)  # of hippocampus


def breastmnist(work: Path, asked: argparse.Namespace) -> tuple[Run, Cohort]:
    """Return the teacher on the official split, and its cohort."""
    cohort = _scanned(work, _data("breastmnist"))
    run = train(
        "classify", cohort, target=cohort.targets[0], target_kind="binary", seed=asked.seed,
        minutes=asked.minutes, out=work / "teacher",
    )  # fmt: skip
    return run, cohort


def wbc(work: Path, asked: argparse.Namespace) -> tuple[Run, Cohort]:
    """Return the teacher on the first of five folds, and its cohort: kinds of 20 cells and more."""
    root = _data("wbc")
    cohort = _scanned(work, root, labels=root / "classes.csv")
    column = f"label_{cohort.targets[0]}"
    counts = cohort.to_pandas([column])[column].value_counts()
    common = [name for name, size in counts.items() if size >= FEWEST]
    quoted = ", ".join(f"'{n}'" if isinstance(n, str) else str(n) for n in common)
    cells = cohort.filter(f"{column} IN ({quoted})")
    target = cohort.targets[0]
    cases = classification_cases(cells, target, "image", target_kind="multiclass")
    run = train(
        "classify", cells, target=target, target_kind="multiclass", case="image", seed=asked.seed,
        minutes=asked.minutes, split=write_folds(cells, cases, work)[0], out=work / "teacher",
    )  # fmt: skip
    return run, cells


def hippocampus(work: Path, asked: argparse.Namespace) -> tuple[Run, Cohort]:
    """Return the teacher of several folds, and its cohort."""
    cohort = _scanned(work, _data("hippocampus"))
    split = work / "split.json"
    if not split.exists():
        make_split(cohort, fractions=FRACTIONS, seed=0).save(split)
    run = train(
        "segment", cohort, split=split, folds=asked.folds, seed=asked.seed,
        minutes=asked.minutes, out=work / "teacher",
    )  # fmt: skip
    return run, cohort


SETS: dict[str, Callable[[Path, argparse.Namespace], tuple[Run, Cohort]]] = {
    "breastmnist": breastmnist,
    "wbc": wbc,
    "hippocampus": hippocampus,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--student-minutes", type=float, default=10)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--to", choices=ENGINES, default="openvino")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--work", type=Path, default=Path("runs/compress"))
    parser.add_argument("--out", type=Path, default=None)
    asked = parser.parse_args()
    rows, bars = [], []
    for name in asked.sets:
        made, kept = _measured(name, asked)
        rows += made
        bars += kept
    content = {
        "title": "A student in place of its teacher",
        "what": f"`train` for {asked.minutes:g} minutes (hippocampus: {asked.folds} folds), then "
        f"`compress --to {asked.to}` for {asked.student_minutes:g}. The teacher answers as it is, "
        "in PyTorch; the export is what is deployed, and gives the student's answers.",
        "data": ", ".join(asked.sets),
        "split": "breastmnist official; wbc the first of 5 folds by near-duplicate; hippocampus "
        "70/10/20 by near-duplicate; test cases scored once",
        "unit": "AUC or Dice; milliseconds of one case from its files, one thread; bytes",
        "peer": "the teacher itself",
        "noise": "95 % of the paired difference, bootstrap over groups of cases",
        "seed": asked.seed,
        "data_hashes": {name: data_hash(_data(name)) for name in asked.sets},
        "bars": bars,
        "rows": rows,
    }  # fmt: skip
    if asked.out is None:
        record("compress", content)
    else:
        asked.out.write_text(json.dumps(content, indent=1))


def _measured(name: str, asked: argparse.Namespace) -> tuple[list[Any], list[Any]]:
    """Return a set's rows and bars."""
    work = asked.work / name
    teacher, cohort = SETS[name](work, asked)
    found = compress(
        teacher, cohort, minutes=asked.student_minutes, to=asked.to, seed=asked.seed,
        out=work / "student",
    )  # fmt: skip
    student = Run.load(found.path)
    for run in (teacher, student):
        if "test" not in run.metrics["splits"]:
            evaluate(run, cohort, split="test")
    test = difference(teacher, student, "test")
    rows = [
        {
            "set": name, "who": who, "answers by": found.models[who], "score": test.name,
            "test": value, "p50 ms": round(1e3 * cost.p50, 2), "p99 ms": round(1e3 * cost.p99, 2),
            "processor ms": round(1e3 * cost.processor, 2),
            "memory MB": round(cost.memory / 1e6), "size MB": round(cost.size / 1e6, 2),
        }
        for (who, cost), value in zip(found.costs.items(), (test.a, test.b, None), strict=True)
    ]  # fmt: skip
    before, after = found.costs["teacher"], found.costs[asked.to]
    print(*rows, sep="\n", flush=True)
    lost = -float(test.difference or 0.0)
    interval = "" if test.low is None else f"difference {test.low:+.4f} to {test.high:+.4f}"
    bars: list[dict[str, Any]] = [
        {"bar": f"{name}: times as fast, one case from its files", "target": f">= {FASTER:g}",
         "measured": round(before.p50 / after.p50, 1),
         "spread": f"{after.calls} answers each; {found.faster:.1f} as a run, in PyTorch",
         "met": before.p50 / after.p50 >= FASTER},
        {"bar": f"{name}: times as small", "target": f">= {SMALLER:g}",
         "measured": round(before.size / after.size, 1),
         "spread": f"{found.smaller:.1f} as a run", "met": before.size / after.size >= SMALLER},
        {"bar": f"{name}: loss of {test.name} on {test.n} test cases", "target": f"<= {LOSS:g}",
         "measured": round(lost, 4), "spread": interval, "met": lost <= LOSS},
    ]  # fmt: skip
    return rows, bars


def _data(name: str) -> Path:
    root = Path(os.environ["VESALIUS_DATA"])
    return root / "medmnist" / f"{name}.npz" if name.endswith("mnist") else root / name


def _scanned(work: Path, data: Path, **options: Any) -> Cohort:
    folder = work / "cohort"
    if not folder.exists():
        scan(data, out=folder, **options)
    return Cohort.open(folder)


if __name__ == "__main__":
    main()
