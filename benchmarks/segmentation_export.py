# SPDX-License-Identifier: Apache-2.0
"""A segmenter's run by each engine: milliseconds a patch, images a second, Dice, megabytes.

    python -m benchmarks.segmentation_export RUN COHORT

RUN is one that a benchmark trained on COHORT; its test images are answered.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.record import record
from vesalius.cohorts import Cohort
from vesalius.deployment.proof import LOSS, some_patches
from vesalius.files import read_json
from vesalius.flows.export import export
from vesalius.tasks.cases import segmentation_cases
from vesalius.tasks.run import Run
from vesalius.tasks.segment.compare import dice_scores
from vesalius.tasks.segment.grid import mask_codes
from vesalius.tasks.segment.predict import Segmenter
from vesalius.tasks.segment.structures import Structures
from vesalius.types import Array
from vesalius.volume import Volume

ROUNDS = 7
IMAGES = 40
HALF, WHOLE = "bf16-mixed", "32-true"


def segmenters(run: Run, cohort: Cohort, work: Path) -> dict[str, tuple[Segmenter, int]]:
    """Return each way to compute the network, with the bytes of its file."""
    found = {
        f"PyTorch {short}": (at(run, precision), size(run.path / "model.safetensors"))
        for short, precision in (("fp32", WHOLE), ("bf16", HALF))
    }
    for to, name in (("onnx", "ONNX Runtime"), ("openvino", "OpenVINO")):
        for int8 in (False, True):
            out = export(run, to=to, int8=int8, cohort=cohort, out=work / f"{to}-{int8}")
            made = Run.load(out, exported=True)
            megabytes = size(*(out / file for file in read_json(out / "export.json")["files"]))
            if int8:
                found[f"{name} int8"] = (at(made, HALF), megabytes)
                continue
            found[f"{name} fp32"] = (at(made, WHOLE), megabytes)
            if to == "openvino":
                found[f"{name} bf16"] = (at(made, HALF), megabytes)
    return found


def at(run: Run, precision: str) -> Segmenter:
    """Load a run at a precision."""
    decisions = {**run.decisions, "precision": precision}
    return Segmenter.load(Run(run.path, {**run.plan, "decisions": decisions}))


def size(*files: Path) -> int:
    return sum(path.stat().st_size for path in files)


def test_images(run: Run, cohort: Cohort) -> list[tuple[Volume, Array]]:
    """Return images of the test subset with the codes of their truth."""
    structures = Structures.of(run.decisions)
    out = []
    for case in segmentation_cases(cohort).subset(run.subsets(), "test")[:IMAGES]:
        volume, mask = cohort.read(case.rows[0]), cohort.read_mask(case.rows[0])
        out.append((volume, mask_codes(mask, volume, structures)))
    return out


def measure(
    ways: dict[str, tuple[Segmenter, int]], images: list[tuple[Volume, Array]], run: Run
) -> list[dict[str, Any]]:
    """Time the ways in turns, round by round, then answer the images by each."""
    patch = some_patches(run.decisions)[:1]
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(1 + ROUNDS):
        for name, (segmenter, _) in ways.items():
            start = time.perf_counter()
            segmenter.logits(patch)
            if number:  # the first is for warming up
                spent[name].append(time.perf_counter() - start)
    structures = Structures.of(run.decisions)
    rows = []
    for name, (segmenter, held) in ways.items():
        segmenter.predict(images[0][0])
        start = time.perf_counter()
        answers = [segmenter.predict(volume) for volume, _ in images]
        seconds = time.perf_counter() - start
        dice = [
            dice_scores(found, codes, structures)
            for found, (_, codes) in zip(answers, images, strict=True)
        ]
        rows.append(
            {
                "network": name,
                "ms a patch": round(1000 * float(np.median(spent[name])), 1),
                "images/s": round(len(images) / seconds, 2),
                "Dice": round(float(np.mean([list(row.values()) for row in dice])), 4),
                "MB": round(held / 1e6, 2),
            }
        )
    return rows


def main() -> None:
    run, cohort = Run.load(sys.argv[1]), Cohort.open(sys.argv[2])
    images = test_images(run, cohort)
    with tempfile.TemporaryDirectory() as work:
        rows = measure(segmenters(run, cohort, Path(work)), images, run)
    by = {row["network"]: row for row in rows}
    lost = {
        name: by[f"{name} fp32"]["Dice"] - by[f"{name} int8"]["Dice"]
        for name in ("ONNX Runtime", "OpenVINO")
    }
    bars = [
        {
            "bar": f"mean Dice that int8 costs, {name}",
            "target": f"<= {LOSS:g}",
            "measured": round(value, 4),
            "met": value <= LOSS,
        }
        for name, value in lost.items()
    ]
    record(
        "segmentation_export",
        {
            "title": "Segmentation: exported networks",
            "what": "One run's network by PyTorch and by the engines that it is exported to, in "
            "the same pipeline; Dice score of the test subset.",
            "data": f"{len(images)} test images of the run's cohort; random patches for the time "
            f"of a patch of {'x'.join(map(str, run.decisions['patch']))}",
            "unit": "milliseconds; images/s without reading; MB",
            "peer": "PyTorch",
            "noise": f"median of {ROUNDS} rounds, the ways in turns; {torch.get_num_threads()} "
            f"threads, {len(os.sched_getaffinity(0))} cores",
            "bars": bars,
            "rows": rows,
            "remarks": [
                (
                    "int8 was calibrated on training images and accepted on validation images; "
                    "what is not in integers is computed in bfloat16 by OpenVINO, in 32 bits by "
                    "ONNX Runtime."
                )
            ],
        },
    )


if __name__ == "__main__":
    main()
