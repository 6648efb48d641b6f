# SPDX-License-Identifier: Apache-2.0
"""A cohort in memory: the few methods that tasks and flows call, over volumes made by a test."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from vesalius.cohorts.schema import empty_row
from vesalius.errors import CorruptFile
from vesalius.geometry import flat_affine
from vesalius.volume import LabelMap, Volume

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported


class MemoryCohort:
    """Rows and volumes by key; a volume of None is a file that cannot be read."""

    license = "CC0"
    version = 1
    path = Path("memory")

    def __init__(self, rows: list[dict], volumes: dict, masks: dict) -> None:
        self.rows, self.volumes, self.masks = rows, volumes, masks
        self.errors: list[str] = []

    @classmethod
    def of(cls, items: list[dict]) -> MemoryCohort:
        """Each item: volume, and any of mask, label, patient, columns."""
        rows, volumes, masks = [], {}, {}
        for number, item in enumerate(items):
            volume = item["volume"]
            key = item.get("key", f"{number:016x}")
            rows.append(
                {
                    **empty_row(),
                    "key": key,
                    "patient": item.get("patient", f"p-{number:04}"),
                    "modality": volume.modality if volume else item.get("modality", ""),
                    "kind": "image",
                    "shape": list(volume.data.shape) if volume else [1, 28, 28, 1],
                    "spacing": list(volume.spacing) if volume else [1.0, 1.0, 1.0],
                    "calibrated": bool(volume.calibrated) if volume else False,
                    "mask_files": ["mask"] if "mask" in item else [],
                    "mask_names": json.dumps(item.get("names", {})) or None,
                    **({"label_answer": item["label"]} if "label" in item else {}),
                    **item.get("columns", {}),
                }
            )
            volumes[key] = volume
            if "mask" in item:
                masks[key] = item["mask"]
        return cls(rows, volumes, masks)

    @property
    def targets(self) -> list[str]:
        return ["answer"] if any("label_answer" in row for row in self.rows) else []

    def __len__(self) -> int:
        return len(self.rows)

    def to_arrow(self, columns: list[str] | None = None) -> pa.Table:
        names = columns or list(self.rows[0])
        return pa.Table.from_pylist([{n: row.get(n) for n in names} for row in self.rows])

    def findings(self) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "key": self.errors,
                "name": ["constant-image"] * len(self.errors),
                "severity": ["error"] * len(self.errors),
            },
            dtype=object,
        )

    def digest(self) -> str:
        text = json.dumps([self.rows, self.errors], default=str, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def read(self, row: dict) -> Volume:
        if self.volumes[row["key"]] is None:
            raise CorruptFile("the file ends early", path="")
        return self.volumes[row["key"]]

    def read_mask(self, row: dict) -> LabelMap:
        return self.masks[row["key"]]


def flat(pixels: np.ndarray, modality: str = "US") -> Volume:
    """Return a 2D image from `(i, j)` or `(i, j, C)` pixels."""
    data = pixels[None, ..., None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)[..., None]
    return Volume(data, flat_affine(), modality=modality, calibrated=False)


@pytest.fixture
def memory() -> type[MemoryCohort]:
    return MemoryCohort


@pytest.fixture
def striped() -> MemoryCohort:
    """90 images of 28 x 28: stripes along i (answer `a`) or along j (`b`), in noise."""
    rng = np.random.default_rng(0)
    items = []
    for number in range(90):
        label = "ab"[number % 2]
        wave = np.sin(np.arange(28) * 0.9 + rng.uniform(0, 6))
        pixels = (
            np.add.outer(wave, np.zeros(28)) if label == "a" else np.add.outer(np.zeros(28), wave)
        )
        pixels = 100 + 40 * pixels + rng.normal(0, 20, (28, 28))
        items.append({"volume": flat(pixels.astype(np.float32)), "label": label})
    return MemoryCohort.of(items)


@pytest.fixture
def thirds() -> dict[str, str]:
    """A split of the striped cohort: 50 train, 20 val, 20 test."""
    return {f"{n:016x}": "train" if n < 50 else "val" if n < 70 else "test" for n in range(90)}
