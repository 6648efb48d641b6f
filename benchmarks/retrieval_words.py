# SPDX-License-Identifier: Apache-2.0
"""Does an image find more with words beside it? Unseen cases in an archive with words.

    python -m benchmarks.retrieval_words [--encoder RUN|frozen] [--out FILE]

The archive holds the training cases: their images, captions, histories, findings and diagnoses. A
query is an image of a case of the split `dev` with that case's history and exam; never its
caption, findings or diagnosis. A case is relevant where it has an image of the same location and
modality. What words weigh is chosen on the training cases alone, each left out in turn. Intervals
and differences draw cases, not images.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import record
from vesalius.cohorts import Cohort
from vesalius.flows.index import index
from vesalius.flows.indexing.folder import read_topics
from vesalius.flows.scan import scan
from vesalius.store.lance import LanceArchive, open_archive
from vesalius.store.protocol import Filter
from vesalius.tasks.retrieve.embedder import Embedder
from vesalius.tasks.retrieve.search import Query, search
from vesalius.tasks.retrieve.search_topics import Topics

AT = 5
BALANCES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
TRAINING_QUERIES = 200
DRAWS = 2000
Truth = tuple[str, str]  # location and modality


@dataclass(frozen=True)
class Asked:
    """One query: its case, its image, the case's text, and what counts as relevant."""

    case: str
    vector: np.ndarray
    text: str
    truth: Truth


@dataclass(frozen=True)
class Bench:
    """The archive, its encoder, and which of its cases have which truths."""

    archive: LanceArchive
    embedder: Embedder
    topics: Topics | None
    relevant: dict[Truth, set[str]]
    chance: int


def write_table(medpix: Path, path: Path) -> None:
    """Write one row an image with all that is known of its case, for `scan --labels`."""
    with open(medpix / "cases.csv") as stream:
        cases = {row["case_id"]: row for row in csv.DictReader(stream)}
    with open(medpix / "images.csv") as stream:
        images = list(csv.DictReader(stream))
    rows = []
    for row in images:
        case = cases[row["case_id"]]
        told = {name: case[name] for name in ("history", "exam", "findings", "diagnosis")}
        rows.append({**row, "caption": ". ".join([row["caption"], *told.values()])})
    with open(path, "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def queries(
    medpix: Path, cohort: Cohort, vectors: dict[str, np.ndarray], split: str
) -> list[Asked]:
    """Return the images of a split with their case's history and exam."""
    with open(medpix / "cases.csv") as stream:
        cases = {row["case_id"]: row for row in csv.DictReader(stream)}
    with open(medpix / "images.csv") as stream:
        told = {row["image"]: row for row in csv.DictReader(stream)}
    found = []
    for row in cohort.iter_rows(["key", "files", "patient"]):
        image = told[row["files"][0]]
        if image["split"] == split and row["key"] in vectors:
            case = cases[image["case_id"]]
            text = ". ".join(part.strip() for part in (case["history"], case["exam"]) if part)
            truth = (image["location"], image["modality"])
            found.append(Asked(row["patient"], vectors[row["key"]], text, truth))
    return found


def precision(bench: Bench, asked: Sequence[Asked], use: str, balance: float) -> np.ndarray:
    """Return P@5 of each query: by `image`, by `words`, or by `both`."""
    values = []
    for one in asked:
        words = one.text if use != "image" else ""
        vectors = one.vector[None] if use != "words" else None
        if not words.strip() and vectors is None:
            values.append(0.0)
            continue
        table = bench.embedder.words([words]) if words.strip() else None
        query = Query(vectors, words, None if table is None else table[0], bench.topics)
        given = Filter(not_patients=(one.case,))
        hits = search(bench.archive, query, k=AT, given=given, balance=balance).hits
        good = bench.relevant[one.truth] - {one.case}
        values.append(sum(hit.case in good for hit in hits) / AT)
    return np.array(values)


def interval(values: np.ndarray, cases: Sequence[str], seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of a mean, drawing cases with all their queries."""
    groups = defaultdict(list)
    for case, value in zip(cases, values, strict=True):
        groups[case].append(value)
    sums = np.array([sum(group) for group in groups.values()])
    counts = np.array([len(group) for group in groups.values()])
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(sums), (DRAWS, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def build(medpix: Path, work: Path, encoder: str) -> tuple[Bench, Cohort, dict[str, np.ndarray]]:
    """Scan the cases with their words and index the training cases; embed the others."""
    write_table(medpix, work / "table.csv")
    scan(medpix, labels=work / "table.csv", out=work / "cohort")
    cohort = Cohort.open(work / "cohort")
    index(
        cohort, out=work / "archive", encoder=encoder, where="split = 'train'", show_text=True
    )  # a benchmark's archive, removed at its end
    archive = open_archive(work / "archive")
    embedder = Embedder.load(encoder)
    keys = list(archive.held())
    vectors = {
        key.split(".")[1]: vector for key, vector in zip(keys, archive.vectors(keys), strict=True)
    }
    rest = list(cohort.filter("split <> 'train'").iter_rows())
    table = embedder.embed(cohort, rest).table
    vectors |= {row["key"]: vector for row, vector in zip(rest, table, strict=True)}
    relevant: dict[Truth, set[str]] = defaultdict(set)
    for entry in archive.entries(keys):
        truth = (str(entry.facts["location"]), str(entry.facts["label_modality"]))
        relevant[truth].add(entry.case)
    chance = len(set(archive.held().values()))
    topics = read_topics(work / "archive")
    return Bench(archive, embedder, topics, relevant, chance), cohort, vectors


def measure(medpix: Path, encoder: str, seed: int) -> dict[str, Any]:
    """Return the benchmark's payload."""
    with tempfile.TemporaryDirectory() as folder:
        bench, cohort, vectors = build(medpix, Path(folder), encoder)
        training = queries(medpix, cohort, vectors, "train")
        chosen = np.random.default_rng(seed).permutation(len(training))[:TRAINING_QUERIES]
        tried = [training[place] for place in chosen]
        by_balance = {b: float(precision(bench, tried, "both", b).mean()) for b in BALANCES}
        balance = max(by_balance, key=lambda b: by_balance[b])
        asked = queries(medpix, cohort, vectors, "dev")
        cases = [one.case for one in asked]
        found = {use: precision(bench, asked, use, balance) for use in ("image", "words", "both")}
        luck = np.array([len(bench.relevant[one.truth]) / bench.chance for one in asked])
        rows = [
            {"by": use, f"P@{AT}": float(values.mean()), "95 %": interval(values, cases)}
            for use, values in {"chance": luck, **found}.items()
        ]
        bars = []
        for use in ("image", "words"):
            low, high = interval(found["both"] - found[use], cases)
            gain = float((found["both"] - found[use]).mean())
            bars.append({
                "bar": f"P@{AT}, image and words over {use} alone, same queries",
                "target": "interval above 0", "measured": round(gain, 4),
                "spread": f"{low:.4f} to {high:.4f}", "met": low > 0,
            })  # fmt: skip
    return {
        "title": "Retrieval: an archive with words",
        "what": (__doc__ or "").split("\n\n")[2].replace("\n", " "),
        "data": "MedPix 2.0, train in the archive, dev as queries",
        "split": f"{len(asked)} images of {len(set(cases))} unseen cases; {bench.chance} archived",
        "unit": f"P@{AT} of cases with the same location and modality",
        "baseline": "chance: share of relevant cases",
        "noise": f"{DRAWS} draws of cases; {len(os.sched_getaffinity(0))} cores",
        "remarks": [f"encoder {encoder}; words weigh {balance}, chosen on training cases alone"],
        "bars": bars,
        "rows": rows,
        "balances": {str(b): round(value, 4) for b, value in by_balance.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", default="frozen")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write there instead of among the results")
    options = parser.parse_args()
    medpix = Path(os.environ["VESALIUS_DATA"]) / "medpix"
    payload = measure(medpix, options.encoder, options.seed)
    if options.out:
        options.out.write_text(json.dumps(payload, indent=1))
        return
    record("retrieval_words", payload, data=medpix, seed=options.seed)


if __name__ == "__main__":
    main()
