# SPDX-License-Identifier: Apache-2.0
"""Does normalization help? Agreement between cases, one fixed segmenter and one fixed classifier.

    python -m benchmarks.normalization_helps [--steps 100] [--work FOLDER]

Runs lie in the work folder: the same command goes on after an interruption. Test rows are read
once per run; nothing was chosen on them.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import data_hash, record
from vesalius.cohorts import Cohort
from vesalius.cohorts.splits import Split, make_split
from vesalius.flows.evaluate import evaluate
from vesalius.flows.scan import scan
from vesalius.flows.train import train
from vesalius.normalization.intensity.mad import Mad
from vesalius.normalization.intensity.percentile import Percentile
from vesalius.normalization.intensity.zscore import ZScore
from vesalius.normalization.masks import fitting_mask
from vesalius.types import Array

SEGMENT = ("mad", "percentile", "nyul")
CLASSIFY = ("mad", "percentile", "nyul")
SEEDS = (0, 1, 2)
FOLDS = 5
FEWEST = 20  # images of a class
DRAWS = 2000
REMARK = (
    "A coefficient of variation depends on where a scale has its zero: z-scores have it amid the "
    "tissue. The spread over the images' own interquartile range does not."
)
PLANTED = (0.01, 8.0)  # share of the mask's voxels, factor


def agreement(cohort: Cohort) -> list[dict[str, Any]]:
    """Return how the mean inside the labels varies between cases under each method."""
    curves: dict[str, Callable[[Array, Array], Array]] = {
        "raw": lambda x, _: x,
        "z-score": lambda x, m: ZScore().solve(x, m).apply(x),
        "percentile": lambda x, m: Percentile().solve(x, m).apply(x),
        "mad (default)": lambda x, m: Mad().solve(x, m).apply(x),
    }
    means: dict[tuple[str, bool], list[float]] = {}
    widths: dict[tuple[str, bool], list[float]] = {}
    for number, row in enumerate(cohort.iter_rows()):
        volume, labels = cohort.read(row), cohort.read_mask(row).data[0] > 0
        mask = fitting_mask(volume).data
        clean = volume.data[0].astype(np.float64)
        hit = mask & (np.random.default_rng([number, 9]).random(clean.shape) < PLANTED[0])
        dirty = np.where(hit, clean * PLANTED[1], clean)
        for name, curve in curves.items():
            for planted, values in ((False, clean), (True, dirty)):
                out = curve(values, mask)
                means.setdefault((name, planted), []).append(float(out[labels & ~hit].mean()))
                inside = out[mask & ~hit]
                low, high = np.percentile(inside, (25, 75))
                widths.setdefault((name, planted), []).append(float(high - low))
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(cohort), (DRAWS, len(cohort)))
    rows = []
    for (name, planted), values in means.items():
        m, w = np.array(values), np.array(widths[name, planted])
        z, zw = np.array(means["z-score", planted]), np.array(widths["z-score", planted])
        ratios = _cv(m[draws]) / _cv(z[draws])
        free = _free(m[draws], w[draws]) / _free(z[draws], zw[draws])
        rows.append(
            {
                "part": "agreement between 200 cases",
                "method": name,
                "planted": "1 % of voxels x 8" if planted else "",
                "CV of the mean inside the labels": float(_cv(m[None])[0]),
                "over z-score's": float(_cv(m[None])[0] / _cv(z[None])[0]),
                "interval": _interval(ratios),
                "spread / interquartile range": float(_free(m[None], w[None])[0]),
                "the same over z-score's": float(
                    _free(m[None], w[None])[0] / _free(z[None], zw[None])[0]
                ),
                "its interval": _interval(free),
            }
        )
    return rows


def _cv(values: Array) -> Array:
    return np.asarray(values.std(axis=1) / np.abs(values.mean(axis=1)))


def _free(values: Array, widths: Array) -> Array:
    """Return the spread in units of the images' own interquartile range: no origin enters."""
    return np.asarray(values.std(axis=1) / widths.mean(axis=1))


def _interval(draws: Array) -> str:
    low, high = np.percentile(draws, (2.5, 97.5))
    return f"{low:.3f} to {high:.3f}"


def segmenter(cohort: Cohort, work: Path, steps: int) -> dict[str, list[dict[str, float]]]:
    """Return method -> for each seed, case -> Dice on the test rows."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in SEGMENT}
    split = work / "split.json"
    if not split.exists():
        make_split(cohort, seed=0).save(split)
    for seed in SEEDS:
        for name in SEGMENT:
            out = work / f"segment-{name}-{seed}"
            run = train(
                "segment", cohort, steps=steps, normalize=name, seed=seed, split=split, out=out
            )
            if "test" not in run.metrics["splits"]:
                evaluate(run, cohort, split="test")
            table = run.predictions().to_pylist()
            dice = {r["key"]: float(r["dice"]) for r in table if r["split"] == "test"}
            found[name].append(dice)
            print("segment", name, seed, np.mean(list(dice.values())), flush=True)
    return found


def classifier(cohort: Cohort, work: Path, steps: int) -> dict[str, list[tuple[str, str]]]:
    """Return method -> (truth, prediction) of every image, each predicted when it was held out."""
    rows = list(cohort.iter_rows(["key", f"label_{cohort.targets[0]}"]))
    labels = {r["key"]: str(r[f"label_{cohort.targets[0]}"]) for r in rows}
    rng = np.random.default_rng(0)
    fold: dict[str, int] = {}
    for label in sorted(set(labels.values())):
        keys = sorted(key for key, one in labels.items() if one == label)
        for place, number in enumerate(rng.permutation(len(keys))):
            fold[keys[number]] = place % FOLDS
    found: dict[str, list[tuple[str, str]]] = {name: [] for name in CLASSIFY}
    for number in range(FOLDS):
        names = {number: "test", (number + 1) % FOLDS: "val"}
        path = work / f"fold-{number}.json"
        Split({key: names.get(f, "train") for key, f in fold.items()}).save(path)  # type: ignore[arg-type, misc]
        for name in CLASSIFY:
            out = work / f"classify-{name}-{number}"
            run = train(
                "classify", cohort, steps=steps, normalize=name, seed=number, split=path, out=out,
                model="resnet10",
            )  # fmt: skip
            if "test" not in run.metrics["splits"]:
                evaluate(run, cohort, split="test")
            table = [r for r in run.predictions().to_pylist() if r["split"] == "test"]
            found[name] += [(str(r["truth"]), str(r["predicted"])) for r in table]
            print("classify", name, number, np.mean([a == b for a, b in found[name]]), flush=True)
    return found


def macro_f1(pairs: list[tuple[str, str]] | Array) -> float:
    """Return the mean F1 over the classes that occur."""
    truth, guess = np.array([a for a, _ in pairs]), np.array([b for _, b in pairs])
    scores = []
    for name in np.unique(truth):
        hits = np.sum((truth == name) & (guess == name))
        scores.append(2 * hits / (np.sum(truth == name) + np.sum(guess == name)))
    return float(np.mean(scores))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--classify-steps", type=int, default=40)
    parser.add_argument("--work", type=Path)
    asked = parser.parse_args()
    work = asked.work or Path(tempfile.mkdtemp(prefix="vesalius-helps-"))
    root = Path(os.environ["VESALIUS_DATA"])
    scan(root / "hippocampus", out=work / "hippocampus")
    hippocampus = Cohort.open(work / "hippocampus")
    rows = agreement(hippocampus)
    for row in rows:
        print(row, flush=True)
    dice = segmenter(hippocampus, work, asked.steps)
    scan(root / "wbc", out=work / "wbc", labels=root / "wbc" / "classes.csv")
    wbc = Cohort.open(work / "wbc")
    column = f"label_{wbc.targets[0]}"
    frame = wbc.to_pandas(["key", column])
    common = [n for n, size in frame[column].value_counts().items() if size >= FEWEST]
    quoted = ", ".join(str(n) if not isinstance(n, str) else f"'{n}'" for n in common)
    cells = classifier(wbc.filter(f"{column} IN ({quoted})"), work, asked.classify_steps)
    rng = np.random.default_rng(0)
    bars: list[dict[str, Any]] = []
    ours = next(r for r in rows if r["method"] == "mad (default)" and not r["planted"])
    dirty = next(r for r in rows if r["method"] == "mad (default)" and r["planted"])
    for name, row, measure in (
        ("CV between cases, default / z-score", ours, "over z-score's"),
        ("the same, with planted outliers", dirty, "over z-score's"),
    ):
        bars.append({"bar": name, "target": "<= 0.8 (goal)", "measured": round(row[measure], 3),
                     "spread": row["interval"], "met": row[measure] <= 0.8})  # fmt: skip
    cases = sorted(dice["mad"][0])
    scores = {name: np.array([[one[c] for c in cases] for one in dice[name]]) for name in SEGMENT}
    best = max(SEGMENT, key=lambda name: scores[name].mean())
    gap = scores[best] - scores["mad"]  # (seeds, cases): both are drawn
    seeds, places = (rng.integers(0, size, (DRAWS, size)) for size in gap.shape)
    draws = np.array([gap[np.ix_(s, p)].mean() for s, p in zip(seeds, places, strict=True)])
    for name in SEGMENT:
        seeds = scores[name].mean(axis=1)
        rows.append(
            {
                "part": "segmenter, Dice on test",
                "method": name,
                "mean": float(seeds.mean()),
                "seeds": [round(float(s), 4) for s in seeds],
            }
        )
    seed_noise = float(np.std([scores[n].mean(axis=1) for n in SEGMENT], axis=1, ddof=1).mean())
    bars.append({"bar": f"segmenter: Dice of the best ({best}) minus the default's",
                 "target": "interval holds 0",
                 "measured": round(float(gap.mean()), 4),
                 "spread": f"{_interval(draws)}, over seeds and cases; "
                 f"SD of a method's seeds: {seed_noise:.4f}",
                 "met": bool(np.percentile(draws, 2.5) <= 0)})  # fmt: skip
    f1 = {name: macro_f1(pairs) for name, pairs in cells.items()}
    top = max(f1, key=lambda name: f1[name])
    places = rng.integers(0, len(cells["mad"]), (DRAWS, len(cells["mad"])))
    gaps = np.array([
        macro_f1([cells[top][p] for p in draw]) - macro_f1([cells["mad"][p] for p in draw])
        for draw in places[:500]
    ])  # fmt: skip
    rows += [{"part": "classifier, macro-F1 of 5 folds", "method": name, "mean": value,
              "accuracy": float(np.mean([a == b for a, b in cells[name]]))}
             for name, value in f1.items()]  # fmt: skip
    bars.append({"bar": f"classifier: macro-F1 of the best ({top}) minus the default's",
                 "target": "interval holds 0", "measured": round(f1[top] - f1["mad"], 4),
                 "spread": _interval(gaps),
                 "met": bool(np.percentile(gaps, 2.5) <= 0)})  # fmt: skip
    record(
        "normalization_helps",
        {
            "title": "Normalization: does it help",
            "what": "Agreement between cases, one fixed segmenter and one fixed classifier, each "
            "under several methods.",
            "data": "hippocampus, 200 cases; wbc, classes of 20 images and more",
            "split": f"hippocampus: grouped split, test rows; wbc: {FOLDS} folds",
            "unit": "ratio of CVs; Dice; macro-F1",
            "peer": "z-score, percentile clip (nnU-Net, TorchIO), Nyúl",
            "baseline": "raw values (agreement)",
            "noise": "bootstrap over cases, and over seeds where there are several",
            "steps": {"segment": asked.steps, "classify": asked.classify_steps},
            "data_hashes": {n: data_hash(root / n) for n in ("hippocampus", "wbc")},
            "remarks": [REMARK],
            "bars": bars,
            "rows": rows,
        },
    )
    print(json.dumps(bars, indent=1))


if __name__ == "__main__":
    main()
