# SPDX-License-Identifier: Apache-2.0
"""MedMNIST at 28 pixels, official splits: what `train classify` makes of each set in its minutes.

    python -m benchmarks.medmnist [--minutes 20] [--seeds 0 1 2] [--sets breastmnist …]
        [--recipe breastmnist …] [--work runs/medmnist]

Runs lie in the work folder: the same command goes on after an interruption, and runs that were
finished before are read. `--recipe` names the sets on which the recipe of the published table is
run beside, in about 10 to 30 minutes each. Test rows are scored once per run; nothing was chosen
on them.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.medmnist_recipe import EPOCHS, measure
from benchmarks.record import data_hash, record
from vesalius.cohorts import Cohort
from vesalius.files import read_json, write_json
from vesalius.flows.evaluate import evaluate
from vesalius.flows.scan import scan
from vesalius.flows.train import train
from vesalius.metrics import classification_statistics
from vesalius.tasks.run import Run

# set -> options of train, best published AUC and accuracy of any method, and of each method
SETS: dict[str, dict[str, Any]] = {
    "breastmnist": {"kind": "binary", "best": (0.919, 0.863)},
    "pneumoniamnist": {"kind": "binary", "best": (0.991, 0.946)},
    "retinamnist": {"kind": "ordinal", "best": (0.750, 0.531)},
    "adrenalmnist3d": {"kind": "binary", "best": (0.839, 0.802)},
}
# Yang et al.: MedMNIST v2, Sci Data 2023 (AUC, accuracy); for 2D sets and, after it, the 3D set
PUBLISHED = {
    "ResNet-18 (28) / ResNet-18 + 3D": (
        (0.901, 0.863), (0.944, 0.854), (0.717, 0.524), (0.827, 0.721)),
    "ResNet-18 (224) / ResNet-18 + ACS": (
        (0.891, 0.833), (0.956, 0.864), (0.710, 0.493), (0.839, 0.754)),
    "ResNet-50 (28) / ResNet-50 + 3D": (
        (0.857, 0.812), (0.948, 0.854), (0.726, 0.528), (0.828, 0.745)),
    "ResNet-50 (224) / ResNet-50 + ACS": (
        (0.866, 0.842), (0.962, 0.884), (0.716, 0.511), (0.828, 0.758)),
    "auto-sklearn": ((0.836, 0.803), (0.942, 0.855), (0.690, 0.515), (0.828, 0.802)),
    "AutoKeras": ((0.871, 0.831), (0.947, 0.878), (0.719, 0.503), (0.804, 0.705)),
}  # fmt: skip
RECIPE = ("breastmnist", "retinamnist")  # on which the table's recipe is run beside
DRAWS = 2000


def one(name: str, seed: int, minutes: float, work: Path, root: Path) -> tuple[Run, float]:
    """Train and evaluate one set with one seed; return the run and its wall minutes."""
    cohort = work / name / "cohort"
    if not cohort.exists():
        scan(root / "medmnist" / f"{name}.npz", out=cohort)
    out = work / name / f"seed-{seed}"
    opened = Cohort.open(cohort)
    start, processor = time.perf_counter(), time.process_time()
    run = train(
        "classify",
        opened,
        target=opened.targets[0],
        target_kind=SETS[name]["kind"],
        minutes=minutes,
        seed=seed,
        out=out,
    )
    if "wall_minutes" not in run.plan["measured"]:
        run = run.measure(
            wall_minutes=round((time.perf_counter() - start) / 60, 2),
            processor_minutes=round((time.process_time() - processor) / 60, 2),
        )
    if "test" not in run.metrics["splits"]:
        evaluate(run, opened, split="test")
    return run, float(run.plan["measured"]["wall_minutes"])


def beats(run: Run, best: tuple[float, float]) -> tuple[float, float]:
    """Return the bootstrap's share of draws above the published AUC and accuracy."""
    rows = [r for r in run.predictions().to_pylist() if r["split"] == "test"]
    classes = run.decisions["classes"]
    truth = np.array([classes.index(r["truth"]) for r in rows])
    table = np.array([[r[f"p_{c}"] for c in classes] for r in rows])
    statistics = classification_statistics(truth, table, classes)
    rng = np.random.default_rng(0)
    draws = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), DRAWS).astype(float)
    names = [(name, label) for name, label in statistics.names]
    values = statistics.of(draws)
    found = []
    for score, bar in zip(("auc", "accuracy"), best, strict=True):
        column = values[:, names.index((score, ""))]
        found.append(float(np.mean(column[np.isfinite(column)] > bar)))
    return found[0], found[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--recipe", nargs="*", default=list(RECIPE))
    parser.add_argument("--work", type=Path, default=Path("runs/medmnist"))
    asked = parser.parse_args()
    root = Path(os.environ["VESALIUS_DATA"])
    rows: list[dict[str, Any]] = []
    means: dict[str, tuple[float, float]] = {}
    for seed in asked.seeds:
        for name in asked.sets:
            run, wall = one(name, seed, asked.minutes, asked.work, root)
            part = run.metrics["splits"]["test"]
            scores = {s["name"]: s for s in part["scores"] if not s.get("label")}
            above = beats(run, SETS[name]["best"])
            sets = part.get("label_sets", {})
            rows.append(
                {
                    "set": name, "seed": seed, "wall minutes": wall,
                    "processor minutes": run.plan["measured"]["processor_minutes"],
                    "AUC": scores["auc"]["value"], "AUC low": scores["auc"]["low"],
                    "AUC high": scores["auc"]["high"], "best AUC": SETS[name]["best"][0],
                    "P(AUC better)": above[0],
                    "accuracy": scores["accuracy"]["value"],
                    "accuracy low": scores["accuracy"]["low"],
                    "accuracy high": scores["accuracy"]["high"],
                    "best accuracy": SETS[name]["best"][1], "P(accuracy better)": above[1],
                    "majority": scores["accuracy"]["baseline"],
                    "NLL": scores["nll"]["value"], "base rate NLL": scores["nll"]["baseline"],
                    "Brier": scores["brier"]["value"],
                    "base rate Brier": scores["brier"]["baseline"],
                    "slope": scores["calibration_slope"]["value"],
                    "slope low": scores["calibration_slope"]["low"],
                    "slope high": scores["calibration_slope"]["high"],
                    "coverage": sets.get("coverage"), "set size": sets.get("mean_size"),
                    "members": {m["name"]: m["weight"] for m in run.plan["measured"]["members"]},
                }
            )  # fmt: skip
            print(rows[-1], flush=True)
    for name in asked.sets:
        own = [r for r in rows if r["set"] == name]
        means[name] = (
            float(np.mean([r["AUC"] for r in own])), float(np.mean([r["accuracy"] for r in own]))
        )  # fmt: skip
    peers = [recipe(name, asked, root) for name in asked.recipe if name in asked.sets]
    record("medmnist", _content(asked, root, rows, means, peers))


def recipe(name: str, asked: argparse.Namespace, root: Path) -> dict[str, Any]:
    """Return what the table's own recipe makes of a set here, with the first seed."""
    path = asked.work / name / "recipe.json"
    if path.exists():
        return dict(read_json(path))
    seed = asked.seeds[0]
    scores = measure(root / "medmnist" / f"{name}.npz", seed)
    found = {"set": name, "seed": seed, "by": "the table's recipe", **scores}
    write_json(path, found)
    print(found, flush=True)
    return found


def _content(
    asked: argparse.Namespace,
    root: Path,
    rows: list[dict[str, Any]],
    means: dict[str, tuple[float, float]],
    peers: list[dict[str, Any]],
) -> dict[str, Any]:
    bars: list[dict[str, Any]] = []
    if set(means) == set(SETS):
        ours = np.array([means[name] for name in SETS]).mean(0)
        single = {name: np.mean(cells, axis=0) for name, cells in PUBLISHED.items()}
        for place, measure in enumerate(("AUC", "accuracy")):
            top = max(single, key=lambda name: single[name][place])
            bars.append({
                "bar": f"mean {measure} of four sets above every single published method ({top})",
                "target": f"> {single[top][place]:.3f}", "measured": round(float(ours[place]), 4),
                "met": bool(ours[place] > single[top][place]),
            })  # fmt: skip
    for name, (auc, accuracy) in means.items():
        own = [r for r in rows if r["set"] == name]
        for measure, value, place in (("AUC", auc, 0), ("accuracy", accuracy, 1)):
            best = SETS[name]["best"][place]
            bars.append({
                "bar": f"{name}: {measure} above the best published of any method",
                "target": f"> {best} (goal)", "measured": round(value, 4),
                "spread": f"seeds {', '.join(f'{r[measure]:.3f}' for r in own)}; P(better) "
                f"{np.mean([r[f'P({measure} better)'] for r in own]):.2f}",
                "met": bool(value > best),
            })  # fmt: skip
    bars += [_beside(peer, rows, score) for peer in peers for score in ("AUC", "accuracy")]
    beside = [f"its recipe on {p['set']}, ResNet-18 of {EPOCHS} epochs" for p in peers]
    return {
        "title": "MedMNIST at 28 pixels",
        "what": f"`train classify` with at most {asked.minutes:g} wall minutes a set and seed.",
        "data": ", ".join(asked.sets),
        "split": "official; test read once per run",
        "unit": "AUC, accuracy",
        "peer": "; ".join(["MedMNIST v2's table (Yang et al. 2023)", *beside]),
        "baseline": "majority class; label frequencies",
        "noise": f"95 % intervals over cases; {len(asked.seeds)} seed(s)",
        "minutes": asked.minutes,
        "seeds": asked.seeds,
        "data_hashes": {n: data_hash(root / "medmnist" / f"{n}.npz") for n in asked.sets},
        "bars": bars,
        "rows": [*rows, *peers],
    }


def _beside(peer: dict[str, Any], rows: list[dict[str, Any]], score: str) -> dict[str, Any]:
    """Return how a run compares with the recipe's of the same set and seed."""
    own = next(r for r in rows if r["set"] == peer["set"] and r["seed"] == peer["seed"])
    return {
        "bar": f"{peer['set']}, one seed: {score} here less that of the table's recipe",
        "target": "> 0",
        "measured": round(own[score] - peer[score], 4),
        "spread": f"{own[score]:.3f} in {own['processor minutes']:.1f} processor minutes; "
        f"{peer[score]:.3f} in {peer['processor minutes']:.1f}",
        "met": own[score] > peer[score],
    }


if __name__ == "__main__":
    main()
