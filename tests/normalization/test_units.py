# SPDX-License-Identifier: Apache-2.0
"""Which images have a physical unit, and which values cannot have it."""

from __future__ import annotations

import numpy as np
import pytest

from vesalius.normalization.units import HU, PhysicalUnit, implausible, physical_unit
from vesalius.volume import Volume

CT = np.linspace(-1000, 1200, 1000).reshape(1, 10, 10, 10)


def of(data, modality="", unit="") -> PhysicalUnit | None:
    return physical_unit(Volume(np.asarray(data), np.eye(4), modality=modality, unit=unit))


def test_a_stated_unit_counts() -> None:
    assert of(CT, "CT", "HU") == PhysicalUnit("HU", True)
    assert of(CT, "PT", "Bq/ml") == PhysicalUnit("Bq/ml", True)
    assert of(CT, "MR", "mm2/s") == PhysicalUnit("mm2/s", True)


def test_an_unstated_unit_is_concluded_from_modality_and_values() -> None:
    assert of(CT, "CT") == PhysicalUnit(HU, False)
    assert of(CT.astype(np.int16), "CT") == PhysicalUnit(HU, False)
    assert of(CT + 1024, "CT") is None  # raw values before the rescale
    assert of((CT / 20 + 50).astype(np.uint8), "CT") is None  # a picture of a CT
    assert of(np.abs(CT), "PT") == PhysicalUnit("unstated", False)
    assert of(np.abs(CT / 10).astype(np.uint8), "PT") is None  # a picture of a PET
    assert of(CT, "MR") is None
    assert of(CT) is None
    assert of(np.zeros((1, 0, 1, 1)), "CT") is None


@pytest.mark.parametrize(
    ("values", "unit", "word"),
    [
        (np.linspace(-800, 300, 1000), "HU", ""),
        (np.linspace(-800, 300, 1000) + 1024, "HU", "a body lies between"),
        (np.linspace(-800, 300, 1000) * 3, "HU", "no HU of any tissue"),
        (np.full(1000, -1000.0), "HU", "a body lies between"),
        (np.linspace(0, 9, 1000), "g/ml", ""),
        (np.linspace(-0.1, 9, 1000), "g/ml", ""),  # noise about 0
        (np.linspace(-3, 9, 1000), "g/ml", "cannot be negative, the least is -3"),
        (np.linspace(-9, -3, 1000), "Bq/ml", "cannot be negative"),
        (np.linspace(-3, 9, 1000), "10*-6.mm2/s", "cannot be negative"),
        (np.linspace(-90, 90, 1000), "Hz", ""),  # a field map
        (np.r_[-5000.0, np.linspace(0, 9, 1000)], "Bq/ml", ""),  # one stray voxel of 1000
    ],
)
def test_values_that_cannot_have_the_unit(values, unit: str, word: str) -> None:
    reason = implausible(values, PhysicalUnit(unit, True))
    assert bool(reason) == bool(word)
    assert word in reason
