# SPDX-License-Identifier: Apache-2.0
"""White blood cells by kind (wbc), 5 folds, classes of 20 images and more.

    python -m benchmarks.cell_classes [--minutes 10] [--model auto] [--work runs/cell_classes]

Runs lie in the work folder: the same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.folds import write_folds
from benchmarks.record import data_hash, record
from vesalius.cohorts import Cohort
from vesalius.flows.evaluate import evaluate
from vesalius.flows.scan import scan
from vesalius.flows.train import train
from vesalius.metrics import classification_scores
from vesalius.tasks.cases import classification_cases

FEWEST = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--model", default="auto")
    parser.add_argument("--work", type=Path, default=Path("runs/cell_classes"))
    asked = parser.parse_args()
    root = Path(os.environ["VESALIUS_DATA"]) / "wbc"
    folder = asked.work / "cohort"
    if not folder.exists():
        scan(root, out=folder, labels=root / "classes.csv")
    cohort = Cohort.open(folder)
    target = cohort.targets[0]
    column = f"label_{target}"
    counts = cohort.to_pandas([column])[column].value_counts()
    common = [name for name, size in counts.items() if size >= FEWEST]
    quoted = ", ".join(f"'{n}'" if isinstance(n, str) else str(n) for n in common)
    cells = cohort.filter(f"{column} IN ({quoted})")
    cases = classification_cases(cells, target, "image", target_kind="multiclass")
    classes = list(cases.target.classes) if cases.target else []
    truth, tables, keys = [], [], []
    for split in write_folds(cells, cases, asked.work):
        run = train(
            "classify", cells, target=target, target_kind="multiclass", case="image",
            minutes=asked.minutes, model=asked.model, split=split,
            out=asked.work / f"{asked.model}-{split.stem}",
        )  # fmt: skip
        if "test" not in run.metrics["splits"]:
            evaluate(run, cells, split="test")
        for row in run.predictions().to_pylist():
            if row["split"] == "test":
                truth.append(classes.index(row["truth"]))
                tables.append([row[f"p_{c}"] for c in classes])
                keys.append(row["key"])
        print(split.stem, np.mean(np.argmax(tables, 1) == np.array(truth)), flush=True)
    found = classification_scores(np.array(truth), np.array(tables), classes, keys)
    rows: list[dict[str, Any]] = [
        {"score": s.name, "class": s.label, "value": s.value, "low": s.low, "high": s.high,
         "trivial": s.baseline}
        for s in found
    ]  # fmt: skip
    f1 = next(s for s in found if s.name == "macro_f1")
    record(
        "cell_classes",
        {
            "title": "White blood cells by kind",
            "what": f"`train classify --model {asked.model} --minutes {asked.minutes:g}` in each "
            "fold.",
            "data": f"wbc, {len(truth)} cells of {len(classes)} kinds",
            "split": "5 folds by near-duplicate",
            "unit": "macro-F1",
            "baseline": f"majority class: {f1.baseline:.3f}",
            "noise": "95 % bootstrap over cells",
            "data_hashes": {"wbc": data_hash(root)},
            "bars": [
                {"bar": "macro-F1", "target": ">= 0.95", "measured": round(float(f1.value), 4),
                 "spread": f"{f1.low:.3f} to {f1.high:.3f}", "met": bool(f1.value >= 0.95)},
            ],
            "rows": rows,
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
