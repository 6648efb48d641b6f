# SPDX-License-Identifier: Apache-2.0
"""Cases of CT and MR pictures in no order (medpix): which region of the body, 5 folds by case.

    python -m benchmarks.image_sets [--minutes 10] [--model auto] [--work runs/image_sets]

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
from vesalius.cohorts import Cohort
from vesalius.flows.evaluate import evaluate
from vesalius.flows.scan import scan
from vesalius.flows.train import train
from vesalius.metrics import classification_scores
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
    from vesalius.tasks.classify.model import resize

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


def score(truth: Array, table: Array, classes: list[str], keys: list[str]) -> dict[str, Any]:
    """Return accuracy and mean AUC with intervals."""
    found = {s.name: s for s in classification_scores(truth, table, classes, keys) if not s.label}
    return {
        "n": len(truth),
        "accuracy": found["accuracy"].value,
        "accuracy low": found["accuracy"].low,
        "accuracy high": found["accuracy"].high,
        "AUC": found["auc"].value,
        "AUC low": found["auc"].low,
        "AUC high": found["auc"].high,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
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
    official: list[Path | None] = [None]
    ours, half, plain = (np.zeros((len(truth), len(classes))) for _ in range(3))
    rows: list[dict[str, Any]] = []
    for split in [*write_folds(cohort, cases, asked.work), *official]:
        name = split.stem if split else "train-dev"
        run = train(
            "classify", cohort, target=TARGET, case="patient", minutes=asked.minutes,
            model=asked.model, split=split, out=asked.work / f"{asked.model}-{name}",
        )  # fmt: skip
        if "test" not in run.metrics["splits"]:
            evaluate(run, cohort, split="test")
        held = {r["key"]: r for r in run.predictions().to_pylist() if r["split"] == "test"}
        test = np.array([place[key] for key in held])
        train_rows = np.setdiff1d(np.arange(len(truth)), test)
        table = np.array([[r[f"p_{c}"] for c in classes] for r in held.values()])
        beside = yardstick(embeddings, truth, train_rows, test)
        keys = list(held)
        if split is None:
            rows += [
                {"part": "train -> dev", "model": model, **score(truth[test], t, classes, keys)}
                for model, t in (("ours", table), ("yardstick", beside))
            ]
            continue
        ours[test], plain[test] = table, beside
        half[test] = halved(run, cohort, [cases.cases[n] for n in test])
        print(name, float((table.argmax(1) == truth[test]).mean()), flush=True)
    keys = [case.key for case in cases.cases]
    mixed = np.array([len({row["modality"] for row in case.rows}) > 1 for case in cases.cases])
    for part, chosen in (("5 folds", np.ones(len(truth), bool)), ("CT and MR mixed", mixed)):
        picked = [k for k, c in zip(keys, chosen, strict=True) if c]
        for model, table in (("ours", ours), ("half the images", half), ("yardstick", plain)):
            found = score(truth[chosen], table[chosen], classes, picked)
            rows.append({"part": part, "model": model, **found})
    record("image_sets", _content(asked, root, rows, truth, ours, half, plain, len(classes)))


def _content(
    asked: argparse.Namespace,
    root: Path,
    rows: list[dict[str, Any]],
    truth: Array,
    ours: Array,
    half: Array,
    plain: Array,
    count: int,
) -> dict[str, Any]:
    hits = [(table.argmax(1) == truth).astype(float) for table in (ours, half, plain)]
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(truth), (2000, len(truth)))
    gain = np.percentile((hits[0] - hits[2])[draws].mean(1), (2.5, 97.5))
    fall = hits[0].mean() - hits[1].mean()
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
        "noise": "95 % bootstrap over cases",
        "data_hashes": {"medpix": data_hash(root)},
        "bars": [
            {"bar": "5 folds: accuracy", "target": ">= 0.88 (goal)",
             "measured": round(whole["accuracy"], 4),
             "spread": f"{whole['accuracy low']:.3f} to {whole['accuracy high']:.3f}",
             "met": whole["accuracy"] >= 0.88},
            {"bar": "5 folds: mean AUC", "target": ">= 0.98 (goal)",
             "measured": round(whole["AUC"], 4),
             "spread": f"{whole['AUC low']:.3f} to {whole['AUC high']:.3f}",
             "met": whole["AUC"] >= 0.98},
            {"bar": "accuracy above the yardstick's in the same folds", "target": "interval > 0",
             "measured": round(float(hits[0].mean() - hits[2].mean()), 4),
             "spread": f"{gain[0]:.3f} to {gain[1]:.3f}", "met": bool(gain[0] > 0)},
            {"bar": "half of the images dropped: fall of accuracy", "target": "<= 0.05",
             "measured": round(float(fall), 4), "met": bool(fall <= 0.05)},
        ],
        "rows": rows,
    }  # fmt: skip


if __name__ == "__main__":
    main()
