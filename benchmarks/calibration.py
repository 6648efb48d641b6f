# SPDX-License-Identifier: Apache-2.0
"""What calibration gives: the classifiers that were scored, with it and without.

    python -m benchmarks.calibration [--work runs]

Nothing is trained: the runs of `benchmarks.medmnist`, `benchmarks.cell_classes` and
`benchmarks.image_sets` are read from the work folder and answer their test cases, once with their
calibration left out and once with it. What a run's mixture says is kept in the work folder, so
that the same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import data_hash, record
from vesalius.cohorts import Cohort
from vesalius.metrics import classification_statistics
from vesalius.tasks.cases import Case, classification_cases
from vesalius.tasks.classify.conformal import expected_coverage
from vesalius.tasks.classify.predict import Classifier
from vesalius.tasks.classify.thresholds import binomial_interval
from vesalius.tasks.classify.trust import COVERAGE, Trust
from vesalius.tasks.run import Run
from vesalius.tasks.targets import Target
from vesalius.types import Array, Json

DRAWS = 2000
SMALLEST = 1e-6  # a probability counts as at least this, on every side
SETS = {
    "breastmnist": "medmnist/breastmnist/seed-{seed}",
    "pneumoniamnist": "medmnist/pneumoniamnist/seed-{seed}",
    "retinamnist": "medmnist/retinamnist/seed-{seed}",
    "adrenalmnist3d": "medmnist/adrenalmnist3d/seed-{seed}",
    "wbc": "cell_classes/auto-fold-*-seed-{seed}",
    "medpix": "image_sets/auto-fold-*-seed-{seed}",
}
LOSSES = ("NLL", "Brier")


@dataclass(frozen=True)
class Answers:
    """What the runs of one set and seed say of its test cases.

    Attributes:
        keys: of the cases, sorted.
        truth: `(n,)` class indices.
        after, before: `(n, classes)` probabilities, calibrated and not.
        held: `(n,)` whether the label set holds the truth.
        sizes: `(n,)` of the label sets.
        promises: of each run: calibration cases and test cases.
    """

    keys: list[str]
    truth: Array
    after: Array
    before: Array
    held: Array
    sizes: Array
    promises: list[tuple[int, int]]


def answers(folders: list[Path], kept: Path) -> Answers:
    """Ask the runs of one seed; what their mixtures say is kept in the folder `kept`."""
    rows: dict[str, tuple[int, Array, Array, bool, int]] = {}
    promises = []
    for folder in folders:
        run = Run.load(folder)
        classifier = Classifier.load(run)
        cases = _cases(run, folder)
        target, trust = classifier.target, classifier.trust
        raw = _mixture(classifier, cases, folder, kept)
        table = trust.calibrate(raw, target)
        sets = trust.label_sets(raw, table)
        if sets is None:
            raise SystemExit(f"{folder}: the run makes no label sets")
        for place, case in enumerate(cases):
            truth = list(target.classes).index(case.truth)
            rows[case.key] = (
                truth, table[place], raw[place], bool(sets[place, truth]), int(sets[place].sum()),
            )  # fmt: skip
        promises.append((int(run.plan["measured"]["label_sets"]["n"]), len(cases)))
    keys = sorted(rows)
    columns = zip(*(rows[key] for key in keys), strict=True)
    truths, calibrated, plain, held, sizes = (np.array(column) for column in columns)
    return Answers(keys, truths, calibrated, plain, held, sizes, promises)


def _opened(run: Run, folder: Path) -> Cohort:
    cohort = Cohort.open(folder.parent / "cohort")
    where = run.plan["cohort"]["where"]
    return cohort.filter(where) if where else cohort


def _cases(run: Run, folder: Path) -> list[Case]:
    """Return a run's test cases."""
    target = Target.from_json(run.decisions["target"])
    found = classification_cases(
        _opened(run, folder), run.plan["target"], run.decisions["case"], known=target
    )
    return found.subset(run.subsets(), "test")


def _mixture(classifier: Classifier, cases: list[Case], folder: Path, kept: Path) -> Array:
    """Return what a run's mixture says `(cases, classes)`, calibration left out."""
    path = kept / f"{folder.parent.name}-{folder.name}.npz"
    keys = [case.key for case in cases]
    if path.exists():
        with np.load(path) as held:
            if held["keys"].tolist() == keys:
                return np.asarray(held["raw"])
    plain = Classifier(
        classifier.mixture, classifier.decisions, classifier.normalizer, Trust()
    )  # fmt: skip
    said = list(plain.answer(_opened(Run.load(folder), folder), cases))
    if failed := [one.reason for one in said if one.probabilities is None]:
        raise SystemExit(f"{folder}: cases without an answer: {failed[0]}")
    raw = np.stack([np.asarray(one.probabilities) for one in said])
    kept.mkdir(parents=True, exist_ok=True)
    np.savez(path, keys=np.array(keys), raw=raw)
    return raw


def losses(truth: Array, table: Array) -> dict[str, Array]:
    """Return each case's loss: NLL in nats, Brier score as `vesalius evaluate` counts it."""
    own = np.clip(table[np.arange(len(truth)), truth], SMALLEST, 1)
    squares = ((table - np.eye(table.shape[1])[truth]) ** 2).sum(1)
    return {"NLL": -np.log(own), "Brier": squares / (2 if table.shape[1] == 2 else 1)}


def measured(name: str, seeds: dict[int, Answers]) -> Iterator[Json]:
    """Yield a row for each loss, slope and coverage of one set."""
    first = next(iter(seeds.values()))
    n = len(first.truth)
    rates = np.bincount(first.truth, minlength=first.after.shape[1]) / n
    constant = losses(first.truth, np.tile(rates, (n, 1)))
    rng = np.random.default_rng(0)
    draws = rng.multinomial(n, np.full(n, 1 / n), DRAWS) / n
    for loss in LOSSES:
        after, before = (
            np.mean([losses(a.truth, getattr(a, side))[loss] for a in seeds.values()], axis=0)
            for side in ("after", "before")
        )
        low, high = np.percentile(draws @ (after - before), (2.5, 97.5))
        yield {
            "set": name, "n": n, "score": loss, "calibrated": float(after.mean()),
            "uncalibrated": float(before.mean()), "label frequencies": float(constant[loss].mean()),
            "difference": float((after - before).mean()), "low": float(low), "high": float(high),
        }  # fmt: skip
    for seed, one in seeds.items():
        classes = [str(c) for c in range(one.after.shape[1])]
        for side in ("after", "before"):
            statistics = classification_statistics(one.truth, getattr(one, side), classes)
            column = statistics.names.index(("calibration_slope", ""))
            value = float(statistics.of(np.ones((1, n)))[0, column])
            drawn = statistics.of(draws * n)[:, column]
            low, high = np.nanpercentile(drawn, (2.5, 97.5))
            kind = "calibrated" if side == "after" else "uncalibrated"
            yield {
                "set": name, "n": n, "score": f"slope, {kind}", "seed": seed,
                "value": value, "low": float(low), "high": float(high),
                "holds 1": bool(low <= 1 <= high),
            }  # fmt: skip
        low, high = binomial_interval(int(one.held.sum()), n)
        expected = [expected_coverage(COVERAGE, fitted, tested) for fitted, tested in one.promises]
        yield {
            "set": name, "n": n, "score": "coverage of label sets", "seed": seed,
            "value": float(one.held.mean()), "low": low, "high": high,
            "holds the promise": bool(low <= COVERAGE <= high),
            "mean size": float(one.sizes.mean()),
            "calibration cases": [fitted for fitted, _ in one.promises],
            "95 % of a run's coverages": [[round(v, 3) for v in pair] for pair in expected],
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("runs"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    asked = parser.parse_args()
    rows: list[Json] = []
    bars: list[dict[str, Any]] = []
    for name in asked.sets:
        seeds = {}
        for seed in asked.seeds:
            folders = sorted(asked.work.glob(SETS[name].format(seed=seed)))
            if not folders:
                raise SystemExit(f"no run of {name}, seed {seed}, in '{asked.work}'")
            seeds[seed] = answers(folders, asked.work / "calibration")
        own = list(measured(name, seeds))
        for row in own:
            print(row, flush=True)
        rows += own
        bars += judged(name, own)
    if set(asked.sets) != set(SETS):
        print("not recorded: not all sets")
        return
    root = Path(os.environ["VESALIUS_DATA"])
    record(
        "calibration",
        {
            "title": "Calibration of the classifiers that were scored",
            "what": "Test cases answered with the run's calibration and without.",
            "data": ", ".join(SETS),
            "split": "MedMNIST's official test splits; 5 folds of wbc and medpix, pooled",
            "unit": "nats; squared error; slope of log-probabilities; share of cases",
            "baseline": "uncalibrated; the test split's own label frequencies",
            "noise": "95 % bootstrap over cases; losses are means over the seeds, paired",
            "seed": asked.seeds,
            "data_hashes": {name: data_hash(root / name) for name in ("medmnist", "wbc", "medpix")},
            "bars": bars,
            "rows": rows,
        },
    )


def judged(name: str, rows: list[Json]) -> list[dict[str, Any]]:
    """Return the bars of one set."""
    bars: list[dict[str, Any]] = []
    for row in (row for row in rows if row["score"] in LOSSES):
        bars += [
            {"bar": f"{name}: {row['score']}, calibrated less uncalibrated", "target": "< 0",
             "measured": round(row["difference"], 4),
             "spread": f"{row['low']:.4f} to {row['high']:.4f}; {row['calibrated']:.4f} against "
             f"{row['uncalibrated']:.4f}", "met": row["difference"] < 0},
            {"bar": f"{name}: {row['score']} less that of the label frequencies", "target": "< 0",
             "measured": round(row["calibrated"] - row["label frequencies"], 4),
             "met": row["calibrated"] < row["label frequencies"]},
        ]  # fmt: skip
    slopes = [row for row in rows if row["score"] == "slope, calibrated"]
    bars.append({
        "bar": f"{name}: seeds whose calibration slope's interval holds 1",
        "target": f"{len(slopes)} of {len(slopes)}",
        "measured": sum(row["holds 1"] for row in slopes),
        "spread": "; ".join(
            f"{r['value']:.2f} ({r['low']:.2f} to {r['high']:.2f})" for r in slopes
        ),
        "met": all(row["holds 1"] for row in slopes),
    })  # fmt: skip
    covered = [row for row in rows if "holds the promise" in row]
    bars.append({
        "bar": f"{name}: seeds whose coverage lies within its binomial interval of {COVERAGE}",
        "target": f"{len(covered)} of {len(covered)}",
        "measured": sum(row["holds the promise"] for row in covered),
        "spread": "; ".join(f"{r['value']:.3f}, sets of {r['mean size']:.2f}" for r in covered),
        "met": all(row["holds the promise"] for row in covered),
    })  # fmt: skip
    return bars


if __name__ == "__main__":
    main()
