# SPDX-License-Identifier: Apache-2.0
"""Random `kill -9` during training: the same command must end with the uninterrupted weights.

Makes a small cohort of generated images, trains it once undisturbed and once killed at random
moments, both by the command line with `--steps`, and compares weights, splits and logs.

    python -m benchmarks.training_crash --kills 20
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

from benchmarks.record import record

STEPS = 150
TOLERANCE = 1e-6


def make_images(folder: Path, count: int = 80) -> None:
    """Write stripes along one axis or the other, one folder a class."""
    rng = np.random.default_rng(0)
    for number in range(count):
        name = ("along", "across")[number % 2]
        wave = np.sin(np.arange(28) * 0.9 + rng.uniform(0, 6))
        pixels = np.repeat(wave[None], 28, axis=0)
        pixels = 128 + 40 * (pixels if number % 2 else pixels.T) + rng.normal(0, 25, (28, 28))
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name / f"{number}.png")


def command(cohort: Path, run: Path) -> list[str]:
    """Return the command line that trains; the same for both runs and every resume."""
    arguments = ["train", "classify", str(cohort), "--steps", str(STEPS), "--model", "resnet10"]
    return [sys.executable, "-m", "vesalius.cli.main", *arguments, "--out", str(run)]


def state_step(run: Path) -> int:
    """Return the step of the saved state, -1 where there is none."""
    from safetensors import safe_open

    path = run / "checkpoint" / "state.safetensors"
    if not path.exists():
        return -1
    with safe_open(path, framework="np") as stream:
        return int(json.loads(stream.metadata()["record"])["step"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    source = str(Path(__file__).parents[1] / "src")
    environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    chance = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_images(root / "images")
        scan = [sys.executable, "-m", "vesalius.cli.main", "scan", str(root / "images")]
        subprocess.run([*scan, "--out", str(root / "cohort")], env=environment, check=True)
        cohort, whole, broken = root / "cohort", root / "whole", root / "broken"
        start = time.perf_counter()
        subprocess.run(command(cohort, whole), env=environment, check=True)
        undisturbed = time.perf_counter() - start
        killed_at: list[int] = []
        largest, finished, same_split = 0.0, 0, True
        while len(killed_at) < asked.kills or broken.exists():
            child = subprocess.Popen(command(cohort, broken), env=environment)
            if len(killed_at) < asked.kills:
                time.sleep(chance.uniform(0.2, 0.8) * undisturbed)
                if child.poll() is None:
                    child.send_signal(signal.SIGKILL)
                    child.wait()
                    killed_at.append(state_step(broken))
                    continue
            if child.wait():
                raise SystemExit(f"a resumed training failed with {child.returncode}")
            one = load_file(whole / "model.safetensors")
            two = load_file(broken / "model.safetensors")
            change = max(float(np.abs(one[name] - two[name]).max(initial=0)) for name in one)
            largest, finished = max(largest, change), finished + 1
            same_split &= (whole / "split.json").read_text() == (broken / "split.json").read_text()
            shutil.rmtree(broken)
    passed = largest <= TOLERANCE and same_split and len(killed_at) == asked.kills
    payload = {
        "title": "Crash: training",
        "what": "Random kill -9 during training with --steps; the same command ends the run.",
        "data": "80 generated images of 28 x 28, two classes",
        "unit": "largest absolute difference of any weight",
        "peer": "the same command, undisturbed",
        "bars": [
            {"bar": f"largest difference after {len(killed_at)} kills", "target": "<= 1e-6",
             "measured": largest, "met": largest <= TOLERANCE},
            {"bar": "kills that hit", "target": f"{asked.kills}", "measured": len(killed_at),
             "met": len(killed_at) == asked.kills},
        ],
        "steps": STEPS,
        "finished": finished,
        "kills": len(killed_at),
        "saved_step_at_kill": killed_at,
        "undisturbed_seconds": round(undisturbed, 1),
        "largest_difference": largest,
        "tolerance": TOLERANCE,
        "same_split": same_split,
        "passed": passed,
    }  # fmt: skip
    record("training_crash", payload, seed=asked.seed)
    print(f"{len(killed_at)} kills, largest difference of a weight {largest:g}")
    if not passed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
