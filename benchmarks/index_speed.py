# SPDX-License-Identifier: Apache-2.0
"""Images a second that `vesalius index` works on with decoding, its memory, and a kill in between.

    python -m benchmarks.index_speed [--images 1500] [--encoder frozen] [--out FILE]

JPEG photographs of 384 pixels with content of their own are scanned and indexed, a third of them
first, then all in a new archive: memory must not grow with their number. A third run is killed
(`kill -9`) at a random moment; the same command must do what is left and nothing twice.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from benchmarks.record import record
from vesalius.flows.scan import scan
from vesalius.store.lance import open_archive

SIDE = 384
RATE, GROWTH = 15, 1.15


def write_images(folder: Path, count: int) -> None:
    """Write JPEG files of smooth random content."""
    folder.mkdir(parents=True)
    for number in range(count):
        rng = np.random.default_rng(number)
        coarse = Image.fromarray(rng.integers(0, 256, (12, 12), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32)
        noisy = (smooth + rng.normal(0, 8, smooth.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{number:06}.jpg", quality=90)


def command(cohort: Path, out: Path, encoder: str) -> list[str]:
    """Return the command that fills an archive."""
    return [sys.executable, "-m", "vesalius.cli.main", "index", str(cohort), "--out", str(out),
            "--encoder", encoder, "--json"]  # fmt: skip


def run(cohort: Path, out: Path, encoder: str) -> tuple[dict[str, Any], float]:
    """Return what the command says it did, and its largest resident memory in MB."""
    with subprocess.Popen(command(cohort, out, encoder), stdout=subprocess.PIPE) as child:
        peak = [0]
        watched = psutil.Process(child.pid)

        def watch() -> None:
            while child.poll() is None:
                try:
                    peak[0] = max(peak[0], watched.memory_info().rss)
                except psutil.NoSuchProcess:
                    return
                time.sleep(0.05)

        thread = threading.Thread(target=watch)
        thread.start()
        told, _ = child.communicate()
        thread.join()
        if child.returncode:
            raise SystemExit(f"the command failed with {child.returncode}")
    return json.loads(told), peak[0] / 1e6


def killed(cohort: Path, out: Path, encoder: str, seconds: float, rng: random.Random) -> int:
    """Kill a run at a random moment; return how many images it had acknowledged."""
    with subprocess.Popen(command(cohort, out, encoder), stdout=subprocess.DEVNULL) as child:
        time.sleep(rng.uniform(0.4, 0.9) * seconds)
        child.send_signal(signal.SIGKILL)
    return len(open_archive(out).held()) if (out / "archive.json").exists() else 0


def measure(count: int, encoder: str, seed: int) -> dict[str, Any]:
    """Return the benchmark's payload."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_images(work / "few", count // 3)
        write_images(work / "many", count)
        for name in ("few", "many"):
            scan(work / name, out=work / f"{name}.cohort")
        few, small = run(work / "few.cohort", work / "few.index", encoder)
        begun = time.perf_counter()
        many, large = run(work / "many.cohort", work / "many.index", encoder)
        wall = time.perf_counter() - begun
        before = killed(
            work / "many.cohort", work / "again.index", encoder, wall, random.Random(seed)
        )
        rest, _ = run(work / "many.cohort", work / "again.index", encoder)
        same = sorted(open_archive(work / "again.index").held()) == sorted(
            open_archive(work / "many.index").held()
        )
    rate = many["embedded"] / many["seconds"]
    return {
        "title": "Index: speed, memory, resume",
        "what": "`vesalius index` of JPEG files of 384 pixels, seen at 224, with decoding, small "
        "pictures and fsync.",
        "data": f"{count} images of random content",
        "unit": "images/s; MB",
        "noise": f"one run each; {len(os.sched_getaffinity(0))} cores",
        "bars": [
            {"bar": "images/s, reading and embedding", "target": f">= {RATE}",
             "measured": round(rate, 1), "met": rate >= RATE},
            {"bar": "peak memory of three times as many images", "target": f"<= {GROWTH} times",
             "measured": round(large / small, 3), "met": large <= GROWTH * small},
            {"bar": "after kill -9 the same command does what is left, and nothing twice",
             "target": "yes", "measured": f"{before} before, {rest['embedded']} after",
             "met": same and before + rest["embedded"] == count},
        ],
        "rows": [
            {"images": few["embedded"], "images/s": few["embedded"] / few["seconds"],
             "peak MB": small},
            {"images": many["embedded"], "images/s": rate, "peak MB": large},
        ],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--encoder", default="frozen")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write there instead of among the results")
    options = parser.parse_args()
    payload = measure(options.images, options.encoder, options.seed)
    if options.out:
        options.out.write_text(json.dumps(payload, indent=1))
        return
    record("index_speed", payload, seed=options.seed)


if __name__ == "__main__":
    main()
