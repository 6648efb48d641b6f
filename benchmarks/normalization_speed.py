# SPDX-License-Identifier: Apache-2.0
"""Seconds and memory of the default on one brain-sized volume, and a cohort on two cores.

    python -m benchmarks.normalization_speed

Needs `intensity-normalization` 3.0.1, the peer of the FCM comparison.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import record

SHAPE = (240, 240, 155)
ROUNDS = 9
COHORT_ROUNDS = 5  # wall time of one round depends on what else the machine does


def volume() -> tuple[Any, Any]:
    """Return a seeded three-tissue volume, float32, and its mask."""
    rng = np.random.default_rng(0)
    place = np.mgrid[tuple(slice(-1, 1, n * 1j) for n in SHAPE)].astype(np.float32)
    mask = (place**2).sum(axis=0) < 0.75
    values = np.zeros(SHAPE, np.float32)
    tissue = rng.choice(np.float32([300, 700, 1000]), mask.sum(), p=[0.15, 0.4, 0.45])
    values[mask] = tissue + rng.normal(0, 60, mask.sum()).astype(np.float32)
    return values, mask


def seconds(work: Callable[[], object]) -> float:
    """Return the processor seconds of one call: what other processes take does not count."""
    start = time.process_time()
    work()
    return time.process_time() - start


def numpy_floor(values: Any, mask: Any) -> None:
    """Mean, standard deviation and one median over the mask."""
    inside = values[mask]
    inside.mean()
    inside.std()
    np.median(inside)


def peak_volumes() -> float:
    """Return the peak memory of a process that normalizes one volume, in volumes, input included.

    The kernel's high-water mark of resident memory, reset once the input and the libraries are
    there, less what was resident then.
    """
    code = (
        "import re, numpy as np\n"
        "from vesalius.normalization.intensity.mad import Mad\n"
        f"x = np.empty({SHAPE}, np.float32); rng = np.random.default_rng(0)\n"
        "for plane in x: plane[:] = rng.gamma(4, 100, plane.shape)\n"
        f"m = np.ones({SHAPE}, bool)\n"
        "def kib(name):\n"
        "    text = open('/proc/self/status').read()\n"
        "    return int(re.search(name + r':\\s+(\\d+)', text)[1])\n"
        "Mad().solve(x[:4], m[:4]).apply(x[:4])\n"
        "open('/proc/self/clear_refs', 'w').write('5')\n"
        "before = kib('VmRSS')\n"
        "y = Mad().solve(x, m).apply(x)\n"
        "print((kib('VmHWM') - before) * 1024 / x.nbytes)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return 1.0 + float(out.stdout)


def cohort_ratios() -> tuple[list[float], list[dict[str, Any]]]:
    """Return how much faster two workers are than one, on generated MR volumes, round by round."""
    import nibabel

    from vesalius.flows.normalize import normalize
    from vesalius.flows.scan import scan

    wall: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "data").mkdir()
        rng = np.random.default_rng(1)
        for number in range(48):
            data = rng.gamma(4, 100, (96, 96, 64)).astype(np.float32)
            data[:12] = 0
            nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), root / "data" / f"{number:03}.nii")
        scan(root / "data", out=root / "cohort")
        for number in range(COHORT_ROUNDS):
            for workers in (1, 2):
                started = time.perf_counter()
                normalize(root / "cohort", to=root / f"out{number}-{workers}", workers=workers)
                wall[workers].append(time.perf_counter() - started)
    rows = [
        {
            "what": f"48 volumes of 96x96x64, {workers} worker(s)",
            "seconds": sorted(took)[len(took) // 2],
        }
        for workers, took in wall.items()
    ]
    return sorted(one / two for one, two in zip(wall[1], wall[2], strict=True)), rows


def main() -> None:
    import intensity_normalization as peer
    from intensity_normalization.normalizers.individual.fcm import FCMNormalizer

    from vesalius.normalization.intensity.fcm import Fcm
    from vesalius.normalization.intensity.mad import Mad

    values, mask = volume()
    image, whole = peer.create_image(values), peer.create_image(mask.astype(np.float64))

    def ours() -> None:
        Mad().solve(values, mask).apply(values)

    ours()
    numpy_floor(values, mask)
    pairs = [(seconds(lambda: numpy_floor(values, mask)), seconds(ours)) for _ in range(ROUNDS)]
    ratios = sorted(b / a for a, b in pairs)
    fcm = seconds(lambda: FCMNormalizer().fit_transform(image, whole))
    own_fcm = seconds(lambda: Fcm().solve(values, mask).apply(values))
    middle = sorted(b for _, b in pairs)[ROUNDS // 2]
    memory = peak_volumes()
    speedups, cohort = cohort_ratios()
    speedup = speedups[COHORT_ROUNDS // 2]
    cores = len(os.sched_getaffinity(0))
    floor = sorted(a for a, _ in pairs)[ROUNDS // 2]
    rows = [
        {"what": "NumPy mean, SD, median over the mask", "seconds": floor},
        {"what": "default (mad), solve and apply", "seconds": middle},
        {"what": "FCM, ours", "seconds": own_fcm},
        {"what": "FCM, intensity-normalization 3.0.1", "seconds": fcm},
        *cohort,
    ]  # fmt: skip
    record(
        "normalization_speed",
        {
            "title": "Normalization: speed",
            "what": "One volume of 240 x 240 x 155, float32; a cohort with one and two workers.",
            "data": "seeded three-tissue volume; 48 generated volumes",
            "unit": "processor seconds of one process; wall seconds for the cohort",
            "peer": "NumPy; intensity-normalization 3.0.1",
            "noise": f"{ROUNDS} rounds; {COHORT_ROUNDS} of the cohort, median",
            "bars": [
                {"bar": "default / NumPy mean + SD + median", "target": "<= 2",
                 "measured": round(ratios[ROUNDS // 2], 2),
                 "spread": f"{ratios[0]:.2f} to {ratios[-1]:.2f}", "met": ratios[ROUNDS // 2] <= 2},
                {"bar": "FCM of intensity-normalization / default", "target": ">= 10",
                 "measured": round(fcm / middle, 1), "met": fcm / middle >= 10},
                {"bar": "peak memory, input and output included", "target": "<= 2.5 volumes",
                 "measured": round(memory, 2), "met": memory <= 2.5},
                {"bar": f"cohort, two workers / one ({cores} cores)", "target": ">= 1.8",
                 "measured": round(speedup, 2),
                 "spread": f"{speedups[0]:.2f} to {speedups[-1]:.2f}", "met": speedup >= 1.8},
            ],
            "rows": rows,
        },
    )  # fmt: skip
    print(rows, ratios, memory, speedups)


if __name__ == "__main__":
    main()
