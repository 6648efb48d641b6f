# SPDX-License-Identifier: Apache-2.0
"""Memory of one prediction as classes and voxels grow: a torso CT, upsampled, to label map.

    python -m benchmarks.segmentation_memory [--sizes 3]

Each row is a process of its own that reads the file, normalizes, slides a U-Net of the plan with
random weights over it and takes the largest class on the file's grid. Random weights are the worst
case: every class may win everywhere, so none can be left out of the interpolation. Without all
three sizes nothing is recorded.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import record

SIZES = ((122, 101, 112), (256, 256, 229), (512, 512, 458))
CLASSES = (10, 50, 118)
MEMORY = 1 << 30  # that logits may take
BESIDE = 256 << 20  # of the network's features and PyTorch's own, beside the estimate
BAR = 4e9


def upsampled(path: Path, shape: tuple[int, int, int], to: Path) -> None:
    """Write the CT of `path` on a grid of `shape` over the same box, int16."""
    from vesalius import io
    from vesalius.geometry import resample

    source = io.read(path)
    spacing = np.array(source.shape) / shape
    affine = source.affine @ np.diag([*spacing, 1.0])
    affine[:3, 3] += source.affine[:3, :3] @ (0.5 * spacing - 0.5)
    there = resample(source, affine, shape)
    io.write(there.with_data(there.data.round().astype(np.int16)), to)


def kib(name: str) -> int:
    """Return a line of the kernel's account of this process: `VmRSS`, or its peak `VmHWM`."""
    found = re.search(name + r":\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None  # noqa: S101 - Linux has both
    return int(found[1])


def one(path: Path, classes: int) -> dict[str, Any]:
    """Predict once in this process; return its peak, and the growth while sliding."""
    from vesalius import io
    from vesalius.normalization import Normalizer
    from vesalius.tasks.segment import plan, predict

    volume = io.read(path)
    found = {
        "spatial_dims": 3, "channels": 1, "modalities": {"CT": 1},
        "labels": {str(n): f"label-{n}" for n in range(1, classes)},
        "median_shape": list(volume.shape), "median_spacing": list(volume.spacing),
        "fine_spacing": list(volume.spacing),
    }  # fmt: skip
    decisions = plan.decide(found, model="unet", budget={"steps": 1})
    segmenter = predict.Segmenter(predict.new_model(decisions, 0), decisions, Normalizer())
    layout = segmenter.layout(volume, memory=MEMORY)
    print(f"{volume.shape}, {classes} classes: {layout}", file=sys.stderr, flush=True)
    seen: dict[str, int] = {}
    plain = predict.slide

    def watched(*arguments: Any, **options: Any) -> None:
        seen["before"], seen["resident"] = kib("VmHWM"), kib("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins again here
        plain(*arguments, **options)
        seen["sliding"] = kib("VmHWM")

    predict.slide = watched
    started = time.perf_counter()
    labels = segmenter.predict(volume, memory=MEMORY)
    took = time.perf_counter() - started
    return {
        "shape": list(volume.shape),
        "plan_shape": list(layout.shape),
        "classes": classes,
        "classes_found": len(np.unique(labels.data)),
        "windows": layout.windows,
        "strips": len(layout.strips),
        "seconds": round(took, 1),
        "peak_gb": round(max(seen["before"], seen["sliding"], kib("VmHWM")) * 1024 / 1e9, 3),
        "peak_before_sliding_gb": round(seen["before"] * 1024 / 1e9, 3),
        "sliding_gb": round((seen["sliding"] - seen["resident"]) * 1024 / 1e9, 3),
        "estimate_gb": round(layout.bytes / 1e9, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, default=len(SIZES), help="the smallest so many")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(one(Path(asked.one[0]), int(asked.one[1]))))
        return
    data = Path(os.environ["VESALIUS_DATA"]) / "ct_abdomen"
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number, shape in enumerate(SIZES[: asked.sizes]):
            path = Path(folder) / f"{number}.nii"
            upsampled(data / "example_ct.nii.gz", shape, path)
            for classes in CLASSES:
                command = [sys.executable, "-m", "benchmarks.segmentation_memory"]
                done = subprocess.run(
                    [*command, "--one", str(path), str(classes)],
                    stdout=subprocess.PIPE, text=True, check=True,
                )  # fmt: skip
                rows.append(json.loads(done.stdout))
                print(rows[-1], flush=True)
    if asked.sizes < len(SIZES):
        return
    few, *_, many = (row for row in rows if row["shape"] == list(SIZES[-1]))
    above = max(row["sliding_gb"] - row["estimate_gb"] for row in rows)
    ratio = many["peak_gb"] / few["peak_gb"]
    record(
        "segmentation_memory",
        {
            "title": "Segmentation: memory at many classes",
            "what": "One CT, read, normalized, segmented by sliding windows and written back on "
            f"its own grid; logits may take {MEMORY >> 20} MiB.",
            "data": "ct_abdomen/example_ct.nii.gz, upsampled; a U-Net with random weights",
            "unit": "GB, the process's largest resident memory",
            "peer": "TotalSegmentator's table: 10.6 GB at 512x512x458 and 117 classes",
            "noise": "one process a row",
            "bars": [
                {"bar": "peak at 512x512x458 and 118 classes", "target": "<= 4 GB",
                 "measured": many["peak_gb"], "met": many["peak_gb"] * 1e9 <= BAR},
                {"bar": "peak of 118 classes / peak of 10", "target": "<= 1.1",
                 "measured": round(ratio, 2), "met": ratio <= 1.1},
                {"bar": f"sliding above its estimate, at most {BESIDE >> 20} MiB", "target":
                 f"<= {BESIDE / 1e9:.2f} GB", "measured": round(above, 3),
                 "met": above * 1e9 <= BESIDE},
            ],
            "rows": rows,
        },
        data=data,
    )  # fmt: skip


if __name__ == "__main__":
    main()
