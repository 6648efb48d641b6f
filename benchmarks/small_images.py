# SPDX-License-Identifier: Apache-2.0
"""250 pictures of 256 x 256: images a second of `vesalius predict` and of nnU-Net's predictor.

    python -m benchmarks.small_images [--images 250] [--steps 150] [--work runs/small-images]

The same network on both sides: nnU-Net plans it from heart slices, `train` trains it for a few
steps, and either side computes it with the same weights. Files in, label maps out; each way in a
process of its own, on all cores, mirroring off. With fewer images nothing is recorded.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import record
from vesalius import io
from vesalius.files import read_json, write_json
from vesalius.types import Json

IMAGES, EDGE, BAR = 250, 256, 3.0
OURS = {
    "run": "`vesalius predict`, its own precision",
    "run-fp32": "`vesalius predict`, 32 bits",
    "openvino": "`vesalius predict` on the export to OpenVINO",
    "openvino-int8": "`vesalius predict` on the export to OpenVINO, int8",
}
PEERS = {
    "nnunet-command": "nnU-Net, 3 processes that read, 3 that write (its command's)",
    "nnunet-method": "nnU-Net, 8 and 8 (its method's default)",
    "nnunet-sequential": "nnU-Net, one file after the other",
    "nnunet-arrays": "nnU-Net, arrays in memory, nothing read or written",
}


def data() -> Path:
    return Path(os.environ["VESALIUS_DATA"]) / "sunnybrook"


def pairs() -> list[tuple[Path, Path]]:
    """Return images and masks; those whose content fills the picture best come first."""
    images = sorted((data() / "images").iterdir())
    masks = sorted((data() / "labels").iterdir())
    if len(images) != len(masks):
        raise SystemExit("each image needs a mask")
    filled = [int((io.read(path).data > 0).any((0, 2, 3)).sum()) for path in images]
    order = np.argsort([-n for n in filled], kind="stable")
    return [(images[n], masks[n]) for n in order]


def prepare(work: Path, images: int, steps: int) -> None:
    """Plan, train and export; once."""
    import vesalius as vs
    from benchmarks.small_images_nnunet import CONFIGURATION, planned

    found = pairs()
    exam = work / "exam"
    shutil.rmtree(exam, ignore_errors=True)
    exam.mkdir(parents=True)
    for image, _ in found[:images]:
        shutil.copyfile(image, exam / image.name)
    if not (work / "cohort").exists():
        vs.scan(data(), out=work / "cohort")
    plans = planned(dict(enumerate_keys(found[:IMAGES])), work / "nnunet")
    made = plans["configurations"][CONFIGURATION]["architecture"]["arch_kwargs"]
    if not (work / "run" / "metrics.json").exists():
        shutil.rmtree(work / "run", ignore_errors=True)
        plan = vs.plan("segment", work / "cohort", steps=steps, normalize="zscore", model="unet")
        plan.decisions["network"]["options"] |= {
            "widths": made["features_per_stage"], "strides": made["strides"],
            "kernels": made["kernel_sizes"],
        }  # fmt: skip
        plan.decisions.update(patch=[EDGE, EDGE], spacing=[1.0, 1.0])
        vs.train("segment", work / "cohort", plan=plan, out=work / "run")
    for name, int8 in (("openvino", False), ("openvino-int8", True)):
        if not (work / name).exists():
            vs.export(work / "run", to="openvino", int8=int8, cohort=work / "cohort",
                      out=work / name)  # fmt: skip
    if not (work / "run-fp32").exists():
        shutil.copytree(work / "run", work / "run-fp32")
        held = read_json(work / "run-fp32" / "plan.json")
        held["decisions"]["precision"] = "32-true"
        write_json(work / "run-fp32" / "plan.json", held)


def enumerate_keys(found: list[tuple[Path, Path]]) -> list[tuple[str, tuple[Path, Path]]]:
    return [(f"heart{number:03}", pair) for number, pair in enumerate(found)]


def one(way: str, work: Path) -> Json:
    """Predict all images in this process; return seconds of the call and of the processor."""
    files, out = sorted((work / "exam").iterdir()), work / "out" / way
    shutil.rmtree(out, ignore_errors=True)
    if way in OURS:
        from vesalius.flows.predict import predict

        importlib.import_module("vesalius.tasks.segment.predict")  # with all libraries
        before, started = sum(os.times()[:4]), time.perf_counter()
        found = predict(work / way, work / "exam", out=out, keep_names=True)
        seconds = time.perf_counter() - started
        written = len(found.files)
    else:
        from benchmarks.small_images_nnunet import measure, own_network, planned
        from vesalius.tasks.run import Run
        from vesalius.tasks.segment.predict import whole_model

        run = Run.load(work / "run")
        trained = whole_model(run.decisions).eval()
        trained.load_state_dict(run.weights())
        plans = planned({}, work / "nnunet")
        network = own_network(plans, trained)
        plans["configurations"]["2d"]["patch_size"] = [EDGE, EDGE]
        before = sum(os.times()[:4])
        seconds = measure(way, plans, network, files, out, work=work / "nnunet")
        written = len(list(out.glob("*.png"))) or len(files)
    return {
        "seconds": seconds,
        "processor seconds": sum(os.times()[:4]) - before,
        "label maps": written,
    }


def dice(out: Path) -> float | None:
    """Return the mean Dice score of a way's label maps over the images that show the ventricle."""
    scores = []
    for image, mask in pairs():
        made = [out / f"{image.stem}{suffix}" for suffix in (".nii.gz", ".png")]
        path = next((p for p in made if p.exists()), None)
        truth = io.read_labels(mask).data > 0
        if path is None or not truth.any():
            continue
        found = io.read_labels(path).data > 0
        scores.append(2 * (found & truth).sum() / (found.sum() + truth.sum()))
    return round(float(np.mean(scores)), 4) if scores else None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--steps", type=int, default=150, help="of training")
    parser.add_argument("--work", type=Path, default=Path("runs/small-images"))
    parser.add_argument("--only", nargs="+", choices=[*OURS, *PEERS], default=[*OURS, *PEERS])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        write_json(asked.work / f"{asked.one}.json", one(asked.one, asked.work))
        return
    prepare(asked.work, asked.images, asked.steps)
    rows: list[dict[str, Any]] = []
    for way in asked.only:
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "benchmarks.small_images", "--one", way, "--work",
             str(asked.work)],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        whole = time.perf_counter() - started
        took = read_json(asked.work / f"{way}.json")
        if took["label maps"] != asked.images:
            raise SystemExit(f"{way} wrote {took['label maps']} label maps")
        rows.append({
            "way": {**OURS, **PEERS}[way],
            "images/s": round(asked.images / took["seconds"], 2),
            "seconds": round(took["seconds"], 1),
            "processor ms an image": round(1000 * took["processor seconds"] / asked.images, 1),
            "seconds with start of the process": round(whole, 1),
            "Dice": dice(asked.work / "out" / way),
        })  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)
    if asked.images == IMAGES and set(asked.only) == {*OURS, *PEERS}:
        _record(rows)


def _record(rows: list[dict[str, Any]]) -> None:
    rate = {row["way"]: row["images/s"] for row in rows}
    peer, fastest_peer = PEERS["nnunet-command"], max(rate[name] for name in PEERS.values())
    mine = {name: rate[OURS[name]] for name in ("run", "openvino")}
    record(
        "small_images",
        {
            "title": "Segmentation: many small images",
            "what": f"{IMAGES} pictures of {EDGE} x {EDGE}, files in, label maps out; one network, "
            "that nnU-Net planned (PlainConvUNet, 2D), with the same weights on both sides.",
            "data": "sunnybrook, the pictures whose content fills them best; training images of "
            "the network may be among them",
            "unit": "images/s of the call, a run's or exported network's loading included; "
            "milliseconds of all processes",
            "peer": "nnU-Net 2.8.1, nnUNetPredictor, mirroring off, patch 256 x 256",
            "noise": f"one call each, {len(os.sched_getaffinity(0))} cores",
            "remarks": [
                (
                    "nnU-Net's own patch for these images is smaller, and would need four windows "
                    "where they fill the picture; with 256 x 256 both sides compute one."
                ),
                (
                    "nnU-Net's command does not start beside a PyTorch without CUDA (torchvision); "
                    "its predictor is called with the command's numbers of processes."
                ),
                (
                    "On both sides the start of Python and the import of libraries are in the last "
                    "column of seconds alone."
                ),
                (
                    f"Against nnU-Net's fastest way: {mine['run'] / fastest_peer:.2f} (run), "
                    f"{mine['openvino'] / fastest_peer:.2f} (export)."
                ),
            ],
            "bars": [
                {"bar": f"images/s, {name} / nnU-Net's with its command's processes",
                 "target": f">= {BAR:g}", "measured": round(value / rate[peer], 2),
                 "met": value >= BAR * rate[peer]}
                for name, value in (("run", mine["run"]), ("export to OpenVINO", mine["openvino"]))
            ],
            "rows": rows,
        },
        data=data(),
    )  # fmt: skip


if __name__ == "__main__":
    main()
