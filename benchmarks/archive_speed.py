# SPDX-License-Identifier: Apache-2.0
"""An archive of 10^4 to 10^6 vectors: latency, recall with filters, building, memory; and FAISS.

    python -m benchmarks.archive_speed [--sizes 10000 100000 1000000] [--queries 200] [--dry]

Vectors lie in 50 clusters of 32 dimensions within 256, of length one, as embeddings of one encoder
do. Every measurement is a process of its own, asking on one core; an archive may be built on two.
Recall is against the products of all vectors. FAISS (flat, and HNSW with 32 links, efSearch 128)
is asked for the same in the same run; its filters are sets of numbers made before the clock starts.
Beside the time on the clock stands that of the processor, which other work on the machine leaves as
it is.
`--dry` prints instead of recording.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import RESULTS, record

DIMENSION, CLUSTERS, INNER = 256, 50, 32
MODALITIES = ("MR", "CT", "XR", "US")
VOCABULARY = 5000
CHUNK = 20_000
FILTERS = {"none": "", "25 %": "modality = 'MR'", "1 %": "rare = 7"}


def clustered(count: int, seed: int) -> np.ndarray:
    """Return `(count, 256)` float32 of length one, around the same clusters whatever the seed."""
    fixed = np.random.default_rng(0)
    planes = [np.linalg.qr(fixed.standard_normal((DIMENSION, INNER)))[0] for _ in range(CLUSTERS)]
    centers = fixed.standard_normal((CLUSTERS, DIMENSION))
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    rng = np.random.default_rng(seed)
    cluster = rng.integers(0, CLUSTERS, count)
    found = np.empty((count, DIMENSION), np.float32)
    for number in range(CLUSTERS):
        at = np.flatnonzero(cluster == number)
        inner = rng.standard_normal((len(at), INNER)) / INNER**0.5
        found[at] = inner @ planes[number].T + centers[number]
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def facts_of(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's modality (one of four) and rare kind (one of a hundred), as numbers."""
    rng = np.random.default_rng(7)
    return rng.integers(0, 4, count), rng.integers(0, 100, count)


def masks(count: int) -> dict[str, np.ndarray]:
    modality, rare = facts_of(count)
    return {"none": np.ones(count, bool), "25 %": modality == 0, "1 %": rare == 7}


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def one_core() -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])


def timed(ask: Callable[[Any], Any], queries: Sequence[Any]) -> tuple[dict[str, float], list[Any]]:
    """Return milliseconds of the first, the median and the 99th percentile, and the answers."""
    spent, worked, answers = [], [], []
    for query in queries:
        begun, busy = time.perf_counter(), time.process_time()
        answers.append(ask(query))
        spent.append((time.perf_counter() - begun) * 1e3)
        worked.append((time.process_time() - busy) * 1e3)
    later = spent[1:]
    return {
        "first_ms": spent[0],
        "p50_ms": float(np.median(later)),
        "p50_cpu_ms": float(np.median(worked[1:])),
        "p99_ms": float(np.percentile(later, 99)),
    }, answers


def exact(vectors: np.ndarray, queries: np.ndarray, may: np.ndarray) -> list[set[int]]:
    """Return the ten nearest rows of each query among those of a mask."""
    rows = np.flatnonzero(may)
    best = [(np.empty(0, np.float32), np.empty(0, np.int64)) for _ in queries]
    for at in range(0, len(rows), 100_000):
        here = rows[at : at + 100_000]
        for number, scores in enumerate(queries @ vectors[here].T):
            top = np.argpartition(-scores, min(10, len(scores)) - 1)[:10]
            joined = np.concatenate([best[number][0], scores[top]])
            places = np.concatenate([best[number][1], here[top]])
            order = np.argsort(-joined)[:10]
            best[number] = joined[order], places[order]
    return [set(places.tolist()) for _, places in best]


def recall(found: Sequence[set[int]], wanted: Sequence[set[int]]) -> float:
    return float(np.mean([len(a & b) / len(b) for a, b in zip(found, wanted, strict=True)]))


# each of these is a process of its own


def make(work: Path, count: int, _: int) -> dict[str, Any]:
    from vesalius.store.lance import create_archive
    from vesalius.store.protocol import Entry

    vectors = np.load(work / f"vectors-{count}.npy", mmap_mode="r")
    modality, rare = facts_of(count)
    rng = np.random.default_rng(3)
    columns = {"modality": "text", "rare": "integer"}
    archive = create_archive(
        work / f"archive-{count}", identity={}, dimension=DIMENSION, columns=columns
    )
    spent = 0.0
    for start in range(0, count, CHUNK):
        words = rng.zipf(1.4, (CHUNK, 12)) % VOCABULARY
        entries = [
            Entry(
                f"{at:09d}", f"case-{at // 3}", f"patient-{at // 6}", vectors[at],
                " ".join(f"finding{one}" for one in words[at - start]),
                {"modality": MODALITIES[modality[at]], "rare": int(rare[at])},
            )
            for at in range(start, min(start + CHUNK, count))
        ]  # fmt: skip
        begun = time.perf_counter()
        archive.upsert(entries)
        spent += time.perf_counter() - begun
    begun = time.perf_counter()
    archive.compact()
    built = time.perf_counter() - begun
    stated = sorted((work / f"archive-{count}" / "index").glob("*/index.json"))
    return {
        "write_s": spent, "build_s": built, "build_peak_mb": peak_mb(),
        "disk_mb": archive.condition().bytes / 2**20,
        "stated": json.loads(stated[-1].read_text())["looked"] if stated else "exact",
    }  # fmt: skip


def ask(work: Path, count: int, number: int) -> dict[str, Any]:
    one_core()
    from vesalius.store.lance import open_archive
    from vesalius.store.protocol import Filter

    queries = clustered(number, 11)
    vectors = np.load(work / f"vectors-{count}.npy", mmap_mode="r")
    found: dict[str, Any] = {}
    archive = open_archive(work / f"archive-{count}")
    kept: dict[str, list[set[int]]] = {}
    for name, where in FILTERS.items():
        given = Filter(where=where)
        found[name], answers = timed(lambda one: archive.nearest(one, 10, given), queries)  # noqa: B023
        kept[name] = [{int(key) for key in near[0].keys} for near in answers]
    words = [f"finding{a} finding{b} finding9" for a, b in np.random.default_rng(5).integers(
        1, 400, (number, 2))]  # fmt: skip
    given = Filter(where="modality = 'MR'", not_patients=("patient-1",))
    pairs = list(zip(queries, words, strict=True))
    found["vector + words + filter"], _ = timed(
        lambda pair: (archive.nearest(pair[0], 50, given), archive.worded(pair[1], 50, given)),
        pairs,
    )
    found["peak_mb"] = peak_mb()
    for name, may in masks(count).items():
        found[name]["recall"] = recall(kept[name], exact(vectors, queries, may))
    return found


def faiss_flat(work: Path, count: int, number: int) -> dict[str, Any]:
    return _faiss(work, count, number, "flat")


def faiss_hnsw(work: Path, count: int, number: int) -> dict[str, Any]:
    return _faiss(work, count, number, "hnsw")


def _faiss(work: Path, count: int, number: int, kind: str) -> dict[str, Any]:
    import faiss

    vectors = np.load(work / f"vectors-{count}.npy")
    inner = faiss.METRIC_INNER_PRODUCT
    begun = time.perf_counter()
    held = (
        faiss.IndexFlatIP(DIMENSION)
        if kind == "flat"
        else faiss.IndexHNSWFlat(DIMENSION, 32, inner)
    )
    held.add(vectors)
    found: dict[str, Any] = {"build_s": time.perf_counter() - begun, "peak_mb": peak_mb()}
    one_core()
    faiss.omp_set_num_threads(1)
    queries = clustered(number, 11)
    for name, may in masks(count).items():
        chosen = None if may.all() else faiss.IDSelectorBatch(np.flatnonzero(may))
        if kind == "flat":
            given = faiss.SearchParameters(sel=chosen) if chosen else None
        else:
            given = faiss.SearchParametersHNSW(efSearch=128)
            if chosen:
                given.sel = chosen
        found[name], answers = timed(
            lambda one: held.search(one[None], 10, params=given)[1][0],  # noqa: B023
            queries,
        )
        rows = [{int(at) for at in answer if at >= 0} for answer in answers]
        found[name]["recall"] = recall(rows, exact(vectors, queries, may))
    return found


PROCESSES = {one.__name__: one for one in (make, ask, faiss_flat, faiss_hnsw)}


def child(name: str, work: Path, count: int, queries: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.archive_speed", "--child", name, "--work", work,
               "--sizes", str(count), "--queries", str(queries)]  # fmt: skip
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the median latency over the number of entries, a line an engine and filter."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    for engine, filtered in dict.fromkeys((row["engine"], row["filter"]) for row in rows):
        here = [row for row in rows if (row["engine"], row["filter"]) == (engine, filtered)]
        sizes, medians = [row["entries"] for row in here], [row["p50 ms"] for row in here]
        line = "o-" if engine == "vesalius" else "x--"
        axes.plot(sizes, medians, line, label=f"{engine}, {filtered}")
    axes.set(xscale="log", yscale="log", xlabel="entries", ylabel="p50 of a query, ms, one core")
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--child", choices=PROCESSES)
    parser.add_argument("--dry", action="store_true")
    options = parser.parse_args()
    if options.child:
        found = PROCESSES[options.child](options.work, options.sizes[0], options.queries)
        print(json.dumps(found))
        return
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "2"
    work = Path(tempfile.mkdtemp(prefix="vesalius-bench-", dir=options.work))
    rows, builds, by_size = [], [], {}
    try:
        for count in options.sizes:
            np.save(work / f"vectors-{count}.npy", clustered(count, 1))
            made = child("make", work, count, options.queries)
            asked = child("ask", work, count, options.queries)
            by_size[count] = made, asked
            every = {"vesalius": asked}
            every |= {
                n: child(n, work, count, options.queries) for n in ("faiss_flat", "faiss_hnsw")
            }
            for engine, found in every.items():
                for name in (*FILTERS, "vector + words + filter"):
                    if name in found:
                        one = found[name]
                        rows.append({
                            "entries": count, "engine": engine, "filter": name,
                            "first ms": one["first_ms"], "p50 ms": one["p50_ms"],
                            "p99 ms": one["p99_ms"], "p50 CPU ms": one["p50_cpu_ms"],
                            "recall@10": one.get("recall", ""),
                            "peak MB": found["peak_mb"],
                        })  # fmt: skip
            builds.append(
                f"{count} entries: written in {made['write_s']:.0f} s, built in "
                f"{made['build_s']:.0f} s at a peak of {made['build_peak_mb']:.0f} MB, "
                f"{made['disk_mb']:.0f} MB on disk; the index states {json.dumps(made['stated'])}"
            )
            shutil.rmtree(work / f"archive-{count}")
            (work / f"vectors-{count}.npy").unlink()
    finally:
        shutil.rmtree(work)
    result = {
        "title": "Archive: speed and recall",
        "what": "The ten nearest of 10^4 to 10^6 vectors with and without filters, on one core.",
        "data": f"generated: {CLUSTERS} clusters of {INNER} dimensions within {DIMENSION}",
        "unit": f"{options.queries} queries that are not in the archive",
        "peer": "FAISS flat and HNSW (32 links, efSearch 128), in the same run",
        "bars": bars(by_size),
        "remarks": builds,
        "rows": rows,
    }
    if options.dry:
        print(json.dumps(result, indent=1))
    else:
        plot(rows, RESULTS / "archive_speed.svg")
        record("archive_speed", result)


def bars(by_size: dict[int, tuple[dict[str, Any], dict[str, Any]]]) -> list[dict[str, Any]]:
    found = []

    def bar(name: str, measured: float, limit: float, *, least: bool = False) -> None:
        met = measured >= limit if least else measured <= limit
        sign = ">=" if least else "<="
        found.append({"bar": name, "target": f"{sign} {limit}", "measured": measured, "met": met})

    if 100_000 in by_size:
        asked = by_size[100_000][1]
        bar("100 k, vector: p50 ms", asked["none"]["p50_ms"], 10)
        both = asked["vector + words + filter"]
        bar("100 k, vector + words + filter: p50 ms", both["p50_ms"], 25)
    if 1_000_000 in by_size:
        made, asked = by_size[1_000_000]
        for name in FILTERS:
            bar(f"1 M, filter {name}: recall@10", asked[name]["recall"], 0.97, least=True)
            bar(f"1 M, filter {name}: p50 ms", asked[name]["p50_ms"], 30)
        bar("1 M: build, minutes", made["build_s"] / 60, 15)
        bar("1 M: peak while building, GB", made["build_peak_mb"] / 1024, 3)
        bar("1 M: peak while asking, GB", asked["peak_mb"] / 1024, 3)
    return found


if __name__ == "__main__":
    main()
