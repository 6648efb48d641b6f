# SPDX-License-Identifier: Apache-2.0
"""Like images of CT and MR (medpix): found by an image, and by words among images without any.

    python -m benchmarks.retrieval_medpix [--minutes 20] [--seeds 0 1 2] [--model auto]
        [--work runs/retrieval_medpix]

Runs learn from `train` alone. Queries are the images of `dev`, whose own case never counts; the
archive of images is `train` and `dev`, that of words `dev` alone, without words. Runs lie in the
work folder: the same command goes on after an interruption. Dev is scored once per run.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import data_hash, record
from vesalius.cohorts import Cohort
from vesalius.flows.scan import scan
from vesalius.flows.train import train
from vesalius.metrics.retrieval import Rankings, per_query, rank, retrieval_scores, same
from vesalius.tasks.retrieve.baselines import bm25_scores, small_pixels
from vesalius.tasks.retrieve.embedder import Embedder
from vesalius.types import Array

TARGETS = ("location_category", "location", "protocol")
GOALS = {"location_category": 0.82, "location": 0.62}
WORDS_GOAL = 0.50
PAIRS = {"labels": "same-label", "labels and captions": "same-label,captions"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--model", default="auto")
    parser.add_argument("--work", type=Path, default=Path("runs/retrieval_medpix"))
    asked = parser.parse_args()
    root = Path(os.environ["VESALIUS_DATA"]) / "medpix"
    folder = asked.work / "cohort"
    if not folder.exists():
        scan(root, out=folder, labels=root / "images.csv")
    cohort = Cohort.open(folder)
    table = cohort.to_arrow().to_pylist()
    queries = np.array([n for n, row in enumerate(table) if row["split"] != "train"])
    rows: list[dict[str, Any]] = []
    for name, vectors in plain_vectors(cohort, table).items():
        rows += image_rows(name, vectors, table, queries)
    texts = [(row["words"] or "").strip() for row in table]
    likeness = bm25_scores([texts[n] for n in queries], texts)
    rows += image_rows("BM25 of the query's own caption", None, table, queries, likeness)
    for name, pairs in PAIRS.items():
        found: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
        for seed in asked.seeds:
            run = train(
                "retrieve", cohort, target=",".join(TARGETS), pairs=pairs, minutes=asked.minutes,
                model=asked.model, seed=seed, out=asked.work / f"{pairs.replace(',', '-')}-{seed}",
            )  # fmt: skip
            embedder = Embedder.load(run.path)
            vectors = embedder.embed(cohort, table).table
            scored = image_rows(name, vectors, table, queries)
            scored += word_rows(name, embedder, vectors[queries], [texts[n] for n in queries],
                                [table[n]["patient"] for n in queries])  # fmt: skip
            for row in scored:
                found.setdefault((row["model"], row["relevant"], row["score"]), []).append(row)
        rows += [over_seeds(several) for several in found.values()]
    record("retrieval_medpix", content(asked, rows, root))


def plain_vectors(cohort: Cohort, table: list[dict[str, Any]]) -> dict[str, Array]:
    """Return the vectors of what nothing was trained for."""
    frozen = Embedder.load("frozen")
    pixels = [small_pixels([frozen.views(cohort.read(row)).views]) for row in table]
    return {
        "frozen EfficientNet-Lite0, 224 px": frozen.embed(cohort, table).table,
        "raw pixels, 32 x 32": np.concatenate(pixels),
    }


def image_rows(
    model: str,
    vectors: Array | None,
    table: list[dict[str, Any]],
    queries: Array,
    likeness: Array | None = None,
) -> list[dict[str, Any]]:
    """Return the scores of images found by images, for each label."""
    if vectors is not None:
        likeness = vectors[queries] @ vectors.T
    patients = np.array([row["patient"] for row in table])
    own = patients[queries][:, None] == patients[None]
    out = []
    for name in TARGETS[:2]:
        values = [row[f"label_{name}"] for row in table]
        alike = same([values[n] for n in queries], values)
        for k in (1, 5):
            rankings = rank(likeness, alike, excluded=own, k=k)  # type: ignore[arg-type]
            out += score_rows(model, name, rankings, [patients[n] for n in queries])
    return out


def word_rows(
    model: str, embedder: Embedder, vectors: Array, captions: list[str], patients: list[str]
) -> list[dict[str, Any]]:
    """Return the scores of images found by a caption that one of them bears, among them alone."""
    asked = sorted(set(captions) - {""})
    meanings = embedder.words(asked)
    if meanings is None:
        return []
    bears = np.array([[caption == text for caption in captions] for text in asked])
    rankings = rank(meanings @ vectors.T, bears, k=10)
    first = [patients[captions.index(text)] for text in asked]
    return score_rows(model, "the image of a caption", rankings, first)


def score_rows(
    model: str, relevant: str, rankings: Rankings, patients: list[str]
) -> list[dict[str, Any]]:
    """Return one row a score."""
    return [
        {"model": model, "relevant": relevant, "score": one.name, "value": one.value,
         "low": one.low, "high": one.high, "chance": one.baseline,
         "queries": int(np.isfinite(per_query(rankings)[:, 0]).sum()), "cases": one.n_patients}
        for one in retrieval_scores(rankings, patients)
    ]  # fmt: skip


def over_seeds(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the mean over seeds; the interval is the mean of theirs, over cases."""
    mean = {name: float(np.mean([row[name] for row in rows])) for name in ("value", "low", "high")}
    values = [row["value"] for row in rows]
    return {**rows[0], **mean, "seeds": f"{min(values):.3f} to {max(values):.3f}"}


def content(asked: argparse.Namespace, rows: list[dict[str, Any]], root: Path) -> dict[str, Any]:
    bars = []
    for target, goal in GOALS.items():
        (row,) = [r for r in rows if (r["model"], r["relevant"], r["score"])
                  == ("labels", target, "precision@5")]  # fmt: skip
        bars.append(bar(f"image to image: P@5, same {target}", goal, row))
    (row,) = [r for r in rows if (r["model"], r["score"]) == ("labels and captions", "recall@10")]
    bars.append(bar("caption to image: R@10", WORDS_GOAL, row))
    return {
        "title": "Retrieval: CT and MR pictures by image and by words",
        "what": f"`train retrieve --minutes {asked.minutes:g} --model {asked.model} --target "
        f"{','.join(TARGETS)}`, with `--pairs` {' and '.join(PAIRS.values())}.",
        "data": "medpix, 602 cases, 1,850 images; queries: the images of dev",
        "split": "train -> dev; a query's own case never counts",
        "unit": "share",
        "peer": "frozen EfficientNet-Lite0 at 224 px, cosine; BM25 of the query's own caption",
        "baseline": "chance: in the column, exact; raw pixels: a row",
        "noise": f"95 % bootstrap over cases, mean over {len(asked.seeds)} seed(s)",
        "data_hashes": {"medpix": data_hash(root)},
        "bars": bars,
        "rows": [
            row for row in rows
            if row["score"] in ("precision@1", "precision@5", "map@5", "ndcg@5", "mrr", "recall@10")
        ],
    }  # fmt: skip


def bar(name: str, goal: float, row: dict[str, Any]) -> dict[str, Any]:
    return {
        "bar": name,
        "target": f">= {goal} (goal)",
        "measured": round(row["value"], 4),
        "spread": f"{row['low']:.3f} to {row['high']:.3f}; seeds {row['seeds']}",
        "met": row["value"] >= goal,
    }


if __name__ == "__main__":
    main()
