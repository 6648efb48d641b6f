# SPDX-License-Identifier: Apache-2.0
"""Inference of 256^3 voxels and 20 classes: ours and MONAI's sliding windows, gain by gain.

    python -m benchmarks.segmentation_speed [--edge 256] [--steps 300] [--work runs/speed]

The labeled part of a torso CT with its 19 largest structures, upsampled; a U-Net of the plan learns
it
for a few minutes, since labels by chance would be no test of agreement. Then one network, patch,
overlap and number of windows a call, from the normalized image in memory to its label map: MONAI's
`sliding_window_inference` and the argmax of its answer, and ours, one gain after the other. Each
way in a process of its own, on all cores. With another edge nothing is recorded.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.record import record
from vesalius import io
from vesalius.files import read_json, write_json
from vesalius.geometry import resample
from vesalius.tasks.segment import plan, slide
from vesalius.tasks.segment.argmax import Argmax
from vesalius.tasks.segment.predict import Segmenter, new_model
from vesalius.training import checkpoint
from vesalius.training.loss import deep_supervision_loss, dice_cross_entropy
from vesalius.types import Array, Json

EDGE, STRUCTURES, PATCH, BATCH = 256, 19, 64, 2
MEMORY = 2 << 30  # for our sums; MONAI's take what they take
BARS = {"wall": 0.5, "dice": 0.99}
# way -> (whose, network, whether empty windows are left out)
WAYS = {
    "MONAI, 32 bits, as its users run it": ("monai", "32-true", False),
    "MONAI, bf16 autocast": ("monai", "bf16-mixed", False),
    "ours, 32 bits, every window computed": ("ours", "32-true", False),
    "ours, bf16, every window computed": ("ours", "bf16-mixed", False),
    "ours, bf16, empty windows left out": ("ours", "bf16-mixed", True),
    "ours, export to OpenVINO, 32 bits, empty windows left out": ("ours", "openvino", True),
    "ours, export to OpenVINO, bf16, empty windows left out": ("ours", "openvino-bf16", True),
    "ours, export to OpenVINO, int8, empty windows left out": ("ours", "openvino-int8", True),
}
PEER = "MONAI, 32 bits, as its users run it"
DEFAULT = "ours, bf16, empty windows left out"


def prepare(work: Path, edge: int, steps: int) -> None:
    """Write the image, its labels, the decisions and the trained weights; once."""
    if (work / "network.xml").exists():
        return
    work.mkdir(parents=True, exist_ok=True)
    image, truth = _torso(edge)
    np.save(work / "image.npy", image)
    np.save(work / "truth.npy", truth)
    decisions = _decisions(edge)
    write_json(work / "decisions.json", decisions)
    model = new_model(decisions, 0)
    _learn(model, decisions, image, truth, steps)
    checkpoint.save_model(work / "model.safetensors", model, {})
    _export(model, image, work)


def _torso(edge: int) -> tuple[Array, Array]:
    """Return the CT `(1, i, j, k)` as a plan normalizes it, and labels `(i, j, k)` 0 to 19."""
    folder = Path(os.environ["VESALIUS_DATA"]) / "ct_abdomen"
    source, masks = (
        io.read(folder / "example_ct.nii.gz"),
        io.read_labels(folder / "example_seg.nii.gz"),
    )
    shape = (edge, edge, edge)
    spread = np.array(masks.shape) / edge  # the labels cover a part of the CT
    affine = masks.affine @ np.diag([*spread, 1.0])
    affine[:3, 3] += masks.affine[:3, :3] @ (0.5 * spread - 0.5)
    volume, labels = resample(source, affine, shape), resample(masks, affine, shape).data[0]
    values, sizes = np.unique(labels[labels > 0], return_counts=True)
    truth = np.zeros(shape, np.uint8)
    for index, value in enumerate(values[np.argsort(-sizes)][:STRUCTURES], 1):
        truth[labels == value] = index
    # CT is cut to the values of labeled voxels, which makes air one value.
    inside = volume.data[0][truth > 0]
    low, high = np.percentile(inside, (0.5, 99.5))
    cut = np.clip(volume.data, low, high).astype(np.float32)
    return ((cut - inside.mean()) / inside.std()).astype(np.float32), truth


def _decisions(edge: int) -> Json:
    found = {
        "spatial_dims": 3, "channels": 1, "modalities": {"CT": 1},
        "labels": {str(n): f"structure {n}" for n in range(1, STRUCTURES + 1)},
        "median_shape": [edge] * 3, "median_spacing": [1.5] * 3, "fine_spacing": [1.5] * 3,
    }  # fmt: skip
    return plan.decide(found, model="unet", budget={"steps": 1}) | {"patch": [PATCH] * 3}


def _learn(model: nn.Module, decisions: Json, image: Array, truth: Array, steps: int) -> None:
    """Train on patches of the one image, half of them centered on a structure."""
    rng = np.random.default_rng(0)
    places = [np.argwhere(truth == n) for n in range(1, STRUCTURES + 1)]
    rate = decisions["optimizer"]["lr"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    half = decisions["precision"] == "bf16-mixed"
    model.train()
    for step in range(steps):
        crops, labels = [], []
        for number in range(BATCH):
            start = rng.integers(0, np.array(truth.shape) - PATCH + 1)
            if number % 2 == 0:
                some = places[step % STRUCTURES]
                start = some[rng.integers(len(some))] - PATCH // 2
            start = np.clip(start, 0, np.array(truth.shape) - PATCH)
            here = tuple(slice(int(a), int(a) + PATCH) for a in start)
            crops.append(image[(slice(None), *here)])
            labels.append(truth[here])
        x, y = torch.from_numpy(np.stack(crops)), torch.from_numpy(np.stack(labels)).long()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = deep_supervision_loss(dice_cross_entropy, model(x), y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), decisions["optimizer"]["clip_norm"])
        optimizer.step()
        schedule.step()
        if step % 25 == 0:
            print(f"step {step}: loss {float(loss.detach()):.3f}", file=sys.stderr, flush=True)
    model.eval()


def _export(model: nn.Module, image: Array, work: Path) -> None:
    """Write the network for OpenVINO, and its 8-bit form, calibrated on patches of the image."""
    from vesalius.deployment.graph import write_graph
    from vesalius.deployment.int8 import quantize
    from vesalius.deployment.openvino import write_openvino

    graph = write_graph(
        model, torch.zeros(2, 1, *[PATCH] * 3), work / "network.onnx", given="patches", got="logits"
    )
    small = write_openvino(graph, work / "network-int8.xml")
    rng = np.random.default_rng(0)
    patches = []
    for _ in range(32):
        start = rng.integers(0, np.array(image.shape[1:]) - PATCH + 1)
        here = tuple(slice(int(a), int(a) + PATCH) for a in start)
        patches.append(np.ascontiguousarray(image[(slice(None), *here)][None]))
    quantize(small, patches, given="patches")
    write_openvino(graph, work / "network.xml")


def one(way: str, work: Path) -> Json:
    """Answer the image in one of the `WAYS`; write the label map and return what it took."""
    whose, kind, skipping = WAYS[way]
    image, decisions = np.load(work / "image.npy"), read_json(work / "decisions.json")
    model = new_model(decisions, 0).eval()
    model.load_state_dict(checkpoint.load_tensors(work / "model.safetensors")[0])
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    if whose == "monai":
        answer: Callable[[], tuple[Array, int]] = partial(_monai, model, kind, image, decisions)
    else:
        answer = partial(_ours, model, kind, image, decisions, skipping, work)
    warm = torch.from_numpy(np.ascontiguousarray(image[None, :, :PATCH, :PATCH, :PATCH]))
    with torch.inference_mode():
        model(warm)  # libraries choose their kernels
        started, before = time.perf_counter(), time.process_time()
        labels, windows = answer()
        seconds, processor = time.perf_counter() - started, time.process_time() - before
    np.save(work / f"{_slug(way)}.npy", labels)
    return {"seconds": seconds, "processor": processor, "windows": windows}


def _monai(model: nn.Module, kind: str, image: Array, decisions: Json) -> tuple[Array, int]:
    from monai.inferers import sliding_window_inference

    asked = 0

    def network(x: Tensor) -> Tensor:
        nonlocal asked
        asked += len(x)
        return model(x)

    half = kind == "bf16-mixed"
    with torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
        logits = sliding_window_inference(
            torch.from_numpy(image)[None], decisions["patch"], BATCH, network,
            overlap=decisions["overlap"], mode="gaussian",
        )  # fmt: skip
    assert isinstance(logits, Tensor)  # noqa: S101 - of one output
    return logits.argmax(1)[0].numpy().astype(np.uint8), asked


def _ours(
    model: nn.Module, kind: str, image: Array, decisions: Json, skipping: bool, work: Path
) -> tuple[Array, int]:
    if kind.startswith("openvino"):
        from vesalius.networks.engine import EngineNetwork

        name = "network-int8.xml" if kind.endswith("int8") else "network.xml"
        model = EngineNetwork(work / name, half=kind.endswith("bf16"))
        kind = "32-true"
    segmenter = Segmenter(model, decisions | {"precision": kind}, None)  # type: ignore[arg-type]  # the image is normalized
    if not skipping:
        slide._empty = lambda *_: False
    asked = 0

    def network(x: Tensor) -> Tensor:
        nonlocal asked
        asked += len(x)
        return segmenter.logits(x)

    i, j, k = image.shape[1:]
    layout = slide.lay_out((i, j, k), decisions, classes=STRUCTURES + 1, memory=MEMORY)
    labels = np.zeros((i, j, k), np.uint8)
    found = Argmax(labels, range(STRUCTURES + 1), layout.shape)
    slide.slide(network, image, replace(layout, batch=BATCH), found.take)
    return labels, asked


def dice(one: Array, other: Array) -> list[float]:
    """Return the Dice score of two label maps for each structure that either shows."""
    scores = []
    for n in range(1, STRUCTURES + 1):
        a, b = one == n, other == n
        if a.any() or b.any():
            scores.append(float(2 * (a & b).sum() / (a.sum() + b.sum())))
    return scores


def _slug(way: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in way.lower())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--edge", type=int, default=EDGE)
    parser.add_argument("--steps", type=int, default=300, help="of training")
    parser.add_argument("--work", type=Path, default=Path("runs/speed"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(one(asked.one, asked.work)))
        return
    prepare(asked.work, asked.edge, asked.steps)
    truth, rows = np.load(asked.work / "truth.npy"), []
    for way in WAYS:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.segmentation_speed", "--one", way, "--work",
             str(asked.work)],
            stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
        took = json.loads(done.stdout.strip().splitlines()[-1])
        labels = np.load(asked.work / f"{_slug(way)}.npy")
        peer = np.load(asked.work / f"{_slug(PEER)}.npy")
        rows.append({
            "way": way,
            "seconds": round(took["seconds"], 1),
            "processor seconds": round(took["processor"], 1),
            "windows computed": took["windows"],
            "lowest Dice with MONAI's": round(min(dice(labels, peer)), 4),
            "mean Dice with the labels": round(float(np.mean(dice(labels, truth))), 3),
            "structures found": len(np.unique(labels)) - 1,
        })  # fmt: skip
        print(rows[-1], flush=True)
    if asked.edge == EDGE:
        _record(rows)


def _record(rows: list[dict[str, Any]]) -> None:
    by_way = {row["way"]: row for row in rows}
    peer, mine = by_way[PEER]["seconds"], by_way[DEFAULT]
    for row in rows:
        row["share of MONAI's time"] = round(row["seconds"] / peer, 3)
    record(
        "segmentation_speed",
        {
            "title": "Segmentation: speed of one large image",
            "what": f"{EDGE}^3 voxels, {STRUCTURES + 1} classes, patch {PATCH}^3, overlap 0.5, "
            f"{BATCH} windows a call, Gaussian weights: from the normalized image to its labels.",
            "data": "ct_abdomen/example_ct.nii.gz, the part with labels, upsampled; a U-Net "
            "trained on it",
            "unit": "seconds of wall time",
            "peer": "MONAI's sliding_window_inference and argmax, the same network object",
            "noise": f"one pass each, {len(os.sched_getaffinity(0))} cores",
            "bars": [
                {"bar": "wall time of the default / MONAI's", "target": f"<= {BARS['wall']}",
                 "measured": round(mine["seconds"] / peer, 3),
                 "met": mine["seconds"] <= BARS["wall"] * peer},
                {"bar": "Dice of the two label maps, lowest of the structures",
                 "target": f">= {BARS['dice']}", "measured": mine["lowest Dice with MONAI's"],
                 "met": mine["lowest Dice with MONAI's"] >= BARS["dice"]},
            ],
            "rows": rows,
        },
        data=Path(os.environ["VESALIUS_DATA"]) / "ct_abdomen",
    )  # fmt: skip


if __name__ == "__main__":
    main()
