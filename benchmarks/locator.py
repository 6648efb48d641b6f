# SPDX-License-Identifier: Apache-2.0
"""Simulated MR torsos, kidneys and spleen: what the coarse network saves, and what it costs.

    python -m benchmarks.locator [--steps 300] [--work runs/locator]

The phantom's torsos of 3 mm with noise in the air too, so that no window is empty. `train` learns
them with its own plan, in which the coarse network is; the test images are then predicted as a user
does, and with every window computed (`--everywhere`).
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import record
from vesalius import io
from vesalius.cohorts import Cohort
from vesalius.cohorts.phantom.anatomy import draw_anatomy
from vesalius.cohorts.phantom.physics import Tissue, bias_field, rician, spin_echo, table
from vesalius.files import read_json
from vesalius.flows.scan import scan
from vesalius.flows.train import train
from vesalius.tasks.run import Run
from vesalius.tasks.segment import slide
from vesalius.tasks.segment.locate import RECORD
from vesalius.tasks.segment.predict import Segmenter
from vesalius.types import Array
from vesalius.volume import LabelMap, Volume

TORSOS, SPACING = 44, 3.0
SHAPE = (136, 96, 112)
STRUCTURES = {
    "kidneys": (Tissue.KIDNEY_CORTEX, Tissue.KIDNEY_MEDULLA),
    "spleen": (Tissue.SPLEEN,),
}
REPETITION, ECHO = 600.0, 12.0  # ms
LOSS, BAR = 0.002, 0.5


def write(folder: Path) -> None:
    """Write torsos and masks, NIfTI."""
    t1, t2, density = (table(name) for name in ("t1", "t2", "density"))
    signal = spin_echo(t1, t2, density, REPETITION, ECHO)
    signal = 1000 * signal / signal.max()
    for number in range(TORSOS):
        rng = np.random.default_rng(number)
        anatomy = draw_anatomy(rng, female=bool(number % 2), lesions=())
        affine = np.diag([SPACING, SPACING, SPACING, 1.0])
        middle = np.array([0.0, 0.0, 20.0]) + rng.uniform(-15, 15, 3)
        affine[:3, 3] = middle - SPACING * (np.array(SHAPE) - 1) / 2
        tissues = anatomy.tissues(affine, SHAPE)
        image = rician(signal[tissues] * bias_field(SHAPE, 0.15, rng), 25.0, rng)
        mask = np.zeros(SHAPE, np.uint8)
        for value, members in enumerate(STRUCTURES.values(), 1):
            mask[np.isin(tissues, members)] = value
        names = dict(enumerate(STRUCTURES, 1))
        for part, volume in (
            ("images", Volume(image[None].astype(np.float32), affine)),
            ("labels", LabelMap(mask[None], affine, names=names)),
        ):
            (folder / part).mkdir(parents=True, exist_ok=True)
            io.write(volume, folder / part / f"torso_{number:03}.nii.gz")


def answered(segmenter: Segmenter, volume: Volume) -> tuple[Array, float, int]:
    """Return the labels, seconds and windows that the network was asked for."""
    asked = 0
    plain = Segmenter.logits

    def counted(self: Segmenter, patch: Any) -> Any:
        nonlocal asked
        asked += len(patch)
        return plain(self, patch)

    Segmenter.logits = counted  # type: ignore[method-assign]
    started = time.perf_counter()
    found = segmenter.predict(volume).data[0]
    seconds = time.perf_counter() - started
    Segmenter.logits = plain  # type: ignore[method-assign]
    return found, seconds, asked


def dice(found: Array, truth: Array) -> float:
    scores = []
    for value in range(1, len(STRUCTURES) + 1):
        a, b = found == value, truth == value
        scores.append(2 * (a & b).sum() / max(1, a.sum() + b.sum()))
    return float(np.mean(scores))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--work", type=Path, default=Path("runs/locator"))
    asked = parser.parse_args()
    work = asked.work
    if not (work / "cohort").exists():
        write(work / "data")
        scan(work / "data", out=work / "cohort")
    train("segment", work / "cohort", steps=asked.steps, out=work / "run")
    run, cohort = Run.load(work / "run"), Cohort.open(work / "cohort")
    segmenter = Segmenter.load(run)
    rows: dict[str, list[tuple[float, int, float]]] = {"located": [], "everywhere": []}
    same = []
    for key, subset in sorted(run.subsets().items()):
        if subset != "test":
            continue
        row = cohort.row(key)
        volume, truth = cohort.read(row), cohort.read_mask(row).data[0]
        maps = []
        for name, way in (("located", segmenter), ("everywhere", segmenter.everywhere())):
            found, seconds, windows = answered(way, volume)
            rows[name].append((seconds, windows, dice(found, truth)))
            maps.append(found)
        same.append(dice(*maps))
    i, j, k = SHAPE
    total = slide.lay_out((i, j, k), run.decisions, classes=2, memory=1 << 40).windows
    means = {name: np.mean(values, axis=0) for name, values in rows.items()}
    table_rows = [
        {"way": name, "seconds an image": round(float(seconds), 2),
         "windows computed": round(float(windows), 1), "of": total, "Dice": round(float(score), 4)}
        for name, (seconds, windows, score) in means.items()
    ]  # fmt: skip
    held = read_json(run.path / RECORD)
    share = means["located"][0] / means["everywhere"][0]
    loss = means["everywhere"][2] - means["located"][2]
    record(
        "locator",
        {
            "title": "Segmentation: windows that need no look",
            "what": f"{TORSOS} simulated MR torsos of {'x'.join(map(str, SHAPE))} voxels, "
            f"{len(same)} of them test images; a coarse network rules windows out.",
            "data": "phantom, kidneys and spleen",
            "unit": "seconds an image; Dice, mean of the structures",
            "peer": "the same run with every window computed",
            "noise": f"one pass an image, {len(os.sched_getaffinity(0))} cores",
            "remarks": [
                (
                    f"On {held.get('images')} validation images it looks at "
                    f"{held.get('windows')} of the windows, at a threshold of "
                    f"{held.get('threshold', 0):.3f}; the two label maps of a test image have a "
                    f"Dice score of {np.mean(same):.4f} with each other, {min(same):.4f} at least."
                ),
            ],
            "bars": [
                {"bar": "seconds, located / everywhere", "target": f"<= {BAR}",
                 "measured": round(float(share), 3), "met": share <= BAR},
                {"bar": "Dice that it costs", "target": f"<= {LOSS}",
                 "measured": round(float(loss), 4), "met": loss <= LOSS},
            ],
            "rows": table_rows,
        },
        seed=0,
    )  # fmt: skip


if __name__ == "__main__":
    main()
