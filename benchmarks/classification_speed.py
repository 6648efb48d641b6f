# SPDX-License-Identifier: Apache-2.0
"""Images a second of a run's exported mixture, and seconds from a command to its first answer.

    python -m benchmarks.classification_speed RUN IMAGE [RUN IMAGE …]

Each RUN is one that a benchmark scored; IMAGE is a file that it can answer.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import record
from vesalius.deployment.onnx import export_classifier
from vesalius.optional import available, require_silent
from vesalius.tasks.run import Run

BATCH, ROUNDS = 64, 5
BARS = {28: 300, 224: 25}


def rates(path: Path, shape: dict[str, Any]) -> dict[str, float]:
    """Return images a second in ONNX Runtime and, where it is installed, OpenVINO."""
    import onnxruntime

    batch = max(1, BATCH // (1 if shape["size"] <= 64 else 8))
    size = (batch, shape["channels"], *[shape["size"]] * shape["spatial_dims"])
    views = np.random.default_rng(0).normal(size=size).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = {"onnxruntime": _fastest(lambda: session.run(None, {"views": views}), batch)}
    if not available("openvino"):
        return found
    openvino = require_silent("openvino", "a benchmark")
    compiled = openvino.Core().compile_model(str(path), "CPU")
    return {**found, "openvino": _fastest(lambda: compiled([views]), batch)}


def _fastest(call: Any, batch: int) -> float:
    call()
    spent = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        call()
        spent.append(time.perf_counter() - start)
    return batch / float(np.median(spent))


def first_answer(run: Path, image: Path) -> float:
    """Return seconds of `vesalius predict`, the best of three."""
    spent = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as out:
            start = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "vesalius.cli.main", "predict", str(run), str(image),
                 "--out", out],
                check=True, capture_output=True,
            )  # fmt: skip
            spent.append(time.perf_counter() - start)
    return min(spent)


def main() -> None:
    pairs = [(Path(a), Path(b)) for a, b in zip(sys.argv[1::2], sys.argv[2::2], strict=True)]
    rows, bars = [], []
    for folder, image in pairs:
        run = Run.load(folder)
        shape = run.decisions["input"]
        with tempfile.TemporaryDirectory() as work:
            found = rates(export_classifier(run, Path(work) / "model.onnx"), shape)
        seconds = first_answer(folder, image)
        members = {m["name"]: m["weight"] for m in run.plan["measured"]["members"]}
        rows.append({"run": run.id, "size": shape["size"], **found, "first answer, s": seconds,
                     "members": members})  # fmt: skip
        best = max(found.values())
        for side, bar in BARS.items():
            if shape["size"] == side:
                bars.append({"bar": f"images/s at {side} px, exported mixture",
                             "target": f">= {bar}", "measured": round(best, 1),
                             "met": best >= bar})  # fmt: skip
        bars.append({"bar": f"first answer at {shape['size']} px, from the command's start",
                     "target": "<= 5 s", "measured": round(seconds, 2),
                     "met": seconds <= 5})  # fmt: skip
    record(
        "classification_speed",
        {
            "title": "Classification: speed",
            "what": "The mixture that a benchmark scored, exported to ONNX as a whole, images of "
            "random values.",
            "data": "random views of the plan's size; one real image for the first answer",
            "unit": "images/s; seconds",
            "peer": "none",
            "noise": f"median of {ROUNDS} rounds; best of 3 commands; "
            f"{len(os.sched_getaffinity(0))} cores",
            "bars": bars,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
