# SPDX-License-Identifier: Apache-2.0
"""A small clinic for the tests of `index` and `find`: pictures with captions, and CT series.

Patients p00 to p14 have two pictures each of one of three patterns; D1 and D2 a CT series each.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from vesalius.flows.scan import scan

sys.path.insert(0, str(Path(__file__).parents[1] / "cohorts"))
import make

SIDE = 64
PATTERNS = ("ring", "stripes", "checks")
CAPTIONS = {
    "ring": "Ring-enhancing lesion in the left frontal lobe",
    "stripes": "Effusion of both sides, striped",
    "checks": "No effusion; checkered texture",
}


def picture(pattern: str, seed: int) -> np.ndarray:
    """Return `(SIDE, SIDE)` uint8 of a pattern: each seed has its own place, size and turn."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2 + rng.uniform(-12, 12, (2, 1, 1))
    turn, size = rng.uniform(0, np.pi), rng.uniform(0.7, 1.4)
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    if pattern == "ring":
        clean = 60 + 160 * (np.abs(np.hypot(u, 1.3 * v) - 17 * size) < 4)
    elif pattern == "stripes":
        clean = 110 + 80 * np.sin(u * 0.8 * size)
    else:
        clean = 110 + 90 * np.sign(np.sin(u * 0.45 * size) * np.sin(v * 0.45 * size))
    return (clean + rng.normal(0, 12, (SIDE, SIDE))).clip(0, 255).astype(np.uint8)


def pattern_of(number: int) -> str:
    return PATTERNS[number % len(PATTERNS)]


def write_clinic(root: Path, *, patients: int = 15) -> Path:
    """Write the clinic's files below `root/data`, scan them, and return the cohort's folder."""
    data = root / "data"
    data.mkdir(parents=True)
    rows = []
    for number in range(patients):
        for image in range(2):
            name = f"case{number:02}_{image}.png"
            Image.fromarray(picture(pattern_of(number), 10 * number + image)).save(data / name)
            rows.append({
                "file": name,
                "patient": f"SECRET{number:02}",
                "modality": "US" if number < 9 else "XC",
                "age": 20 + number,
                "sex": "FM"[number % 2],
                "grade": pattern_of(number),
                "caption": CAPTIONS[pattern_of(number)],
            })  # fmt: skip
    with open(data / "labels.csv", "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for number in (1, 2):
        for visit in (1, 2):
            make.series(
                data / f"ct{number}{visit}", patient=f"D{number}", uid=f"1.2.{number}.{visit}",
                seed=10 * number + visit,
            )  # fmt: skip
    scan(data, labels=data / "labels.csv", out=root / "cohort", workers=1)
    return root / "cohort"
