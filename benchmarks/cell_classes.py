# SPDX-License-Identifier: Apache-2.0
"""White blood cells by kind (wbc), 5 folds, classes of 20 images and more.

    python -m benchmarks.cell_classes [--minutes 10] [--seeds 0 1 2] [--model auto]
        [--work runs/cell_classes]

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
from benchmarks.seeds import over_seeds, words
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
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
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
    truth = np.array([classes.index(case.truth) for case in cases.cases])
    place = {case.key: n for n, case in enumerate(cases.cases)}
    tables = {seed: np.zeros((len(truth), len(classes))) for seed in asked.seeds}
    for seed in asked.seeds:
        for split in write_folds(cells, cases, asked.work):
            run = train(
                "classify", cells, target=target, target_kind="multiclass", case="image",
                minutes=asked.minutes, model=asked.model, split=split, seed=seed,
                out=asked.work / f"{asked.model}-{split.stem}-seed-{seed}",
            )  # fmt: skip
            if "test" not in run.metrics["splits"]:
                evaluate(run, cells, split="test")
            held = {r["key"]: r for r in run.predictions().to_pylist() if r["split"] == "test"}
            test = [place[key] for key in held]
            tables[seed][test] = [[r[f"p_{c}"] for c in classes] for r in held.values()]
            hits = tables[seed][test].argmax(1) == truth[test]
            print(seed, split.stem, hits.mean(), flush=True)
    keys = [case.key for case in cases.cases]
    rows: list[dict[str, Any]] = [
        {"seed": seed, "score": s.name, "class": s.label, "value": s.value, "low": s.low,
         "high": s.high, "trivial": s.baseline}
        for seed, table in tables.items()
        for s in classification_scores(truth, table, classes, keys)
    ]  # fmt: skip
    f1 = over_seeds(truth, tables, classes, ("macro_f1",))["macro_f1"]
    trivial = next(r["trivial"] for r in rows if r["score"] == "macro_f1")
    record(
        "cell_classes",
        {
            "title": "White blood cells by kind",
            "what": f"`train classify --model {asked.model} --minutes {asked.minutes:g}` in each "
            "fold.",
            "data": f"wbc, {len(truth)} cells of {len(classes)} kinds",
            "split": "5 folds by near-duplicate",
            "unit": "macro-F1",
            "baseline": f"majority class: {trivial:.3f}",
            "noise": f"95 % bootstrap over cells of the mean over {len(tables)} seed(s)",
            "data_hashes": {"wbc": data_hash(root)},
            "bars": [
                {"bar": "macro-F1", "target": ">= 0.95", "measured": round(f1["value"], 4),
                 "spread": words(f1), "met": f1["value"] >= 0.95},
            ],
            "rows": rows,
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
