# SPDX-License-Identifier: Apache-2.0
"""Siamese training beside a classifier of the same time: accuracy of the nearest neighbors.

    python -m benchmarks.retrieval_siamese [--minutes 4] [--seeds 0] [--sets wbc breastmnist …]
        [--work runs/retrieval_siamese]

White blood cells in 5 folds, breast ultrasound and fundus in their official splits. Both learn from
the same training and validation images; neighbors are sought among these. Runs lie in the work
folder: the same command goes on after an interruption. Test images are scored once per run.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.folds import write_folds
from benchmarks.record import data_hash, record
from vesalius.cohorts import Cohort
from vesalius.flows.evaluate import evaluate
from vesalius.flows.scan import scan
from vesalius.flows.train import train
from vesalius.tasks.cases import classification_cases
from vesalius.tasks.retrieve.embedder import Embedder
from vesalius.types import Array

SETS = {"wbc": "multiclass", "breastmnist": "binary", "retinamnist": "multiclass"}
FEWEST = 20  # cells of a kind, in wbc
NEIGHBORS = 11
SHARPNESS = 10.0  # a neighbor's vote is exp of its cosine times this
WITHIN = 0.03
DRAWS = 2000


def votes(archive: Array, labels: Array, queries: Array) -> Array:
    """Return the class that the nearest neighbors of each query vote for."""
    likeness = queries @ archive.T
    nearest = np.argsort(-likeness, axis=1, kind="stable")[:, :NEIGHBORS]
    weights = np.exp(SHARPNESS * np.take_along_axis(likeness, nearest, axis=1))
    classes = np.unique(labels)
    table = np.stack([(weights * (labels[nearest] == name)).sum(1) for name in classes], axis=1)
    return np.asarray(classes[table.argmax(1)])


def splits_of(name: str, root: Path, work: Path) -> Iterator[tuple[Cohort, str, Path | None, str]]:
    """Yield cohort, label, split file (None: official) and name of each part."""
    folder = work / name / "cohort"
    if name == "wbc":
        if not folder.exists():
            scan(root / "wbc", out=folder, labels=root / "wbc" / "classes.csv")
        whole = Cohort.open(folder)
        target = whole.targets[0]
        column = f"label_{target}"
        counts = whole.to_pandas([column])[column].value_counts()
        common = [kind for kind, size in counts.items() if size >= FEWEST]
        quoted = ", ".join(f"'{n}'" if isinstance(n, str) else str(n) for n in common)
        cells = whole.filter(f"{column} IN ({quoted})")
        cases = classification_cases(cells, target, "image", target_kind="multiclass")
        for path in write_folds(cells, cases, work / name):
            yield cells, target, path, path.stem
        return
    if not folder.exists():
        scan(root / "medmnist" / f"{name}.npz", out=folder)
    cohort = Cohort.open(folder)
    yield cohort, cohort.targets[0], None, "official"


def one(
    cohort: Cohort, target: str, split: Path | None, kind: str, minutes: float, seed: int, out: Path
) -> tuple[Array, Array, list[str]]:
    """Return whether the classifier and the neighbors were right of each test image, and keys."""
    classifier = train(
        "classify", cohort, target=target, target_kind=kind, case="image", minutes=minutes,
        split=split, seed=seed, out=out / "classify",
    )  # fmt: skip
    if "test" not in classifier.metrics["splits"]:
        evaluate(classifier, cohort, split="test")
    held = [r for r in classifier.predictions().to_pylist() if r["split"] == "test"]
    classes = classifier.decisions["classes"]
    answered = {row["key"]: max(classes, key=lambda c, r=row: r[f"p_{c}"]) for row in held}
    run = train(
        "retrieve", cohort, target=target, minutes=minutes, split=split, seed=seed,
        out=out / "retrieve",
    )  # fmt: skip
    table = cohort.to_arrow().to_pylist()
    vectors = Embedder.load(run.path).embed(cohort, table).table
    labels = np.array([str(row[f"label_{target}"]) for row in table])
    subsets = run.subsets()
    known = np.array([subsets.get(row["key"]) in ("train", "val") for row in table])
    keys = [row["key"] for row in table]
    tested = np.array([n for n, key in enumerate(keys) if key in answered])
    found = votes(vectors[known], labels[known], vectors[tested])
    classified = np.array([answered[keys[n]] for n in tested])
    return classified == labels[tested], found == labels[tested], [keys[n] for n in tested]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--work", type=Path, default=Path("runs/retrieval_siamese"))
    asked = parser.parse_args()
    root = Path(os.environ["VESALIUS_DATA"])
    rows, bars = [], []
    for name in asked.sets:
        parts = []
        for cohort, target, split, part in splits_of(name, root, asked.work):
            for seed in asked.seeds:
                out = asked.work / name / f"{part}-{seed}"
                parts.append(one(cohort, target, split, SETS[name], asked.minutes, seed, out))
        classified, neighbors = (np.concatenate([part[n] for part in parts]) for n in (0, 1))
        gap = neighbors.astype(float) - classified
        draws = np.random.default_rng(0).integers(0, len(gap), (DRAWS, len(gap)))
        low, high = np.percentile(gap[draws].mean(1), (2.5, 97.5))
        rows.append({
            "set": name, "test images": len(gap), "classifier": float(classified.mean()),
            "nearest neighbors": float(neighbors.mean()), "difference": float(gap.mean()),
            "low": float(low), "high": float(high),
        })  # fmt: skip
        bars.append({
            "bar": f"{name}: accuracy of neighbors less that of the classifier",
            "target": f">= -{WITHIN}", "measured": round(float(gap.mean()), 4),
            "spread": f"{low:.3f} to {high:.3f}", "met": bool(gap.mean() >= -WITHIN),
        })  # fmt: skip
    record("retrieval_siamese", {
        "title": "Retrieval: Siamese training beside a classifier of the same time",
        "what": f"`train retrieve --minutes {asked.minutes:g}`; {NEIGHBORS} neighbors vote.",
        "data": "wbc, breastmnist, retinamnist",
        "split": "wbc: 5 folds by near-duplicate; MedMNIST: official",
        "unit": "accuracy",
        "peer": f"`train classify --minutes {asked.minutes:g}` on the same split",
        "noise": "95 % bootstrap over images of the paired difference",
        "data_hashes": {
            "wbc": data_hash(root / "wbc"),
            **{s: data_hash(root / "medmnist" / f"{s}.npz") for s in asked.sets if s != "wbc"},
        },
        "bars": bars,
        "rows": rows,
    })  # fmt: skip


if __name__ == "__main__":
    main()
