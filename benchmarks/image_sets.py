# SPDX-License-Identifier: Apache-2.0
"""Cases of CT and MR pictures in no order (medpix): which region of the body, 5 folds by case.

    python -m benchmarks.image_sets [--minutes 10] [--seeds 0 1 2] [--model auto]
        [--work runs/image_sets]

Runs lie in the work folder: the same command goes on after an interruption. Test cases are scored
once per run, then once more with half of each case's images left out.
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
from vesalius.tasks.cases import Case, Cases, classification_cases
from vesalius.tasks.classify.predict import Classifier
from vesalius.tasks.run import Run
from vesalius.types import Array

TARGET = "location_category"
SIZE = 224  # of the yardstick
PENALTY = 1.0


def yardstick_table(cohort: Cohort, cases: Cases) -> Array:
    """Return one embedding a case: EfficientNet-Lite0 at 224 px, frozen, the mean of its images."""
    import torch

    from vesalius.networks import build
    from vesalius.networks.pretrained import load_pretrained
    from vesalius.tasks.views import resize

    network = build("efficientnet_lite0", spatial_dims=2, in_channels=1, out_channels=1)
    load_pretrained(network, "efficientnet_lite0", in_channels=1)
    network.eval()
    table = []
    for case in cases.cases:
        found = []
        for row in case.rows:
            image = torch.from_numpy(cohort.read(row).data[None, :1, :, :, 0].astype(np.float32))
            with torch.inference_mode():
                found.append(network.encode(resize(image / 127.5 - 1, SIZE))[0])  # type: ignore[operator]
        table.append(torch.stack(found).mean(0).numpy())
    return np.stack(table)


def yardstick(table: Array, truth: Array, train: Array, test: Array) -> Array:
    """Return the probabilities of the test rows, from logistic regression on standardized rows."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
    return np.asarray(model.fit(table[train], truth[train]).predict_proba(table[test]))


def halved(run: Run, cohort: Cohort, cases: list[Case]) -> Array:
    """Return the answers when each case keeps half of its images, rounded up."""
    classifier = Classifier.load(run)
    rng = np.random.default_rng(0)
    kept = []
    for case in cases:
        count = -(-len(case.rows) // 2)
        chosen = sorted(rng.choice(len(case.rows), count, replace=False))
        kept.append(Case(case.key, tuple(case.rows[p] for p in chosen), case.patient, case.truth))
    return np.stack([a.probabilities for a in classifier.answer(cohort, kept)])  # type: ignore[misc]


SCORES = ("accuracy", "auc")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--model", default="auto")
    parser.add_argument("--work", type=Path, default=Path("runs/image_sets"))
    asked = parser.parse_args()
    root = Path(os.environ["VESALIUS_DATA"]) / "medpix"
    folder = asked.work / "cohort"
    if not folder.exists():
        scan(root, out=folder, labels=root / "images.csv")
    cohort = Cohort.open(folder)
    cases = classification_cases(cohort, TARGET, "patient")
    classes = list(cases.target.classes) if cases.target else []
    truth = np.array([classes.index(case.truth) for case in cases.cases])
    place = {case.key: n for n, case in enumerate(cases.cases)}
    embeddings = yardstick_table(cohort, cases)
    blank = np.zeros((len(truth), len(classes)))
    ours, half, dev = ({s: blank.copy() for s in asked.seeds} for _ in range(3))
    plain, beside = blank.copy(), blank.copy()
    official: list[Path | None] = [None]
    for seed in asked.seeds:
        for split in [*write_folds(cohort, cases, asked.work), *official]:
            name = split.stem if split else "train-dev"
            run = train(
                "classify", cohort, target=TARGET, case="patient", minutes=asked.minutes,
                model=asked.model, split=split, seed=seed,
                out=asked.work / f"{asked.model}-{name}-seed-{seed}",
            )  # fmt: skip
            if "test" not in run.metrics["splits"]:
                evaluate(run, cohort, split="test")
            held = {r["key"]: r for r in run.predictions().to_pylist() if r["split"] == "test"}
            test = np.array([place[key] for key in held])
            rest = np.setdiff1d(np.arange(len(truth)), test)
            table = np.array([[r[f"p_{c}"] for c in classes] for r in held.values()])
            known = yardstick(embeddings, truth, rest, test)
            if split is None:
                dev[seed][test], beside[test], judged = table, known, test
                continue
            ours[seed][test], plain[test] = table, known
            half[seed][test] = halved(run, cohort, [cases.cases[n] for n in test])
            print(seed, name, float((table.argmax(1) == truth[test]).mean()), flush=True)
    mixed = [len({row["modality"] for row in case.rows}) > 1 for case in cases.cases]
    parts = {
        "5 folds": np.arange(len(truth)),
        "CT and MR mixed": np.flatnonzero(mixed),
        "train -> dev": judged,
    }
    rows: list[dict[str, Any]] = []
    for part, own in parts.items():
        models = {"ours": ours, "half the images": half, "yardstick": {0: plain}}
        if part == "train -> dev":
            models = {"ours": dev, "yardstick": {0: beside}}
        for model, scored in models.items():
            tables = {seed: table[own] for seed, table in scored.items()}
            found = over_seeds(truth[own], tables, classes, SCORES)
            rows.append({"part": part, "model": model, "n": len(own), **found})
    record("image_sets", _content(asked, root, rows, truth, ours, half, plain, len(classes)))


def _content(
    asked: argparse.Namespace,
    root: Path,
    rows: list[dict[str, Any]],
    truth: Array,
    ours: dict[int, Array],
    half: dict[int, Array],
    plain: Array,
    count: int,
) -> dict[str, Any]:
    def hits(tables: dict[int, Array]) -> Array:
        return np.mean([table.argmax(1) == truth for table in tables.values()], axis=0)

    better, fall = hits(ours) - hits({0: plain}), hits(ours) - hits(half)
    draws = np.random.default_rng(0).integers(0, len(truth), (2000, len(truth)))
    gain, lost = (np.percentile(d[draws].mean(1), (2.5, 97.5)) for d in (better, fall))
    whole = next(r for r in rows if r["part"] == "5 folds" and r["model"] == "ours")
    return {
        "title": "Sets of images: body region from CT and MR pictures",
        "what": f"`train classify --case patient --model {asked.model} --minutes {asked.minutes:g}`"
        " in each fold.",
        "data": "medpix, 602 cases, 1,850 images",
        "split": "5 folds by case and near-duplicate; train -> dev",
        "unit": "accuracy; mean one-versus-rest AUC",
        "peer": "mean of frozen EfficientNet-Lite0 embeddings at 224 px + logistic regression",
        "baseline": f"majority class: {np.bincount(truth, minlength=count).max() / len(truth):.3f}",
        "noise": f"95 % bootstrap over cases of the mean over {len(asked.seeds)} seed(s)",
        "data_hashes": {"medpix": data_hash(root)},
        "bars": [
            {"bar": "5 folds: accuracy", "target": ">= 0.88 (goal)",
             "measured": round(whole["accuracy"]["value"], 4), "spread": words(whole["accuracy"]),
             "met": whole["accuracy"]["value"] >= 0.88},
            {"bar": "5 folds: mean AUC", "target": ">= 0.98 (goal)",
             "measured": round(whole["auc"]["value"], 4), "spread": words(whole["auc"]),
             "met": whole["auc"]["value"] >= 0.98},
            {"bar": "accuracy above the yardstick's in the same folds", "target": "interval > 0",
             "measured": round(float(better.mean()), 4),
             "spread": f"{gain[0]:.3f} to {gain[1]:.3f}", "met": bool(gain[0] > 0)},
            {"bar": "half of the images dropped: fall of accuracy", "target": "<= 0.05",
             "measured": round(float(fall.mean()), 4),
             "spread": f"{lost[0]:.3f} to {lost[1]:.3f}", "met": bool(fall.mean() <= 0.05)},
        ],
        "rows": rows,
    }  # fmt: skip


if __name__ == "__main__":
    main()
