# SPDX-License-Identifier: Apache-2.0
"""Physical units: images whose values mean the same everywhere are checked, never rescaled.

Hounsfield units: PS3.3 C.11.1.1.2; air -1000, water 0, dense bone up to about 3000. Activity and
uptake (Bq/ml, g/ml) and diffusion (ADC) are not negative.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vesalius.types import Array
from vesalius.volume import Volume

HU = "HU"
_METAL = 4000.0  # HU; what a 12-bit CT can hold above dense bone
_BODY = (-950.0, 400.0)  # HU; where the median of a body lies, lungs and bone included
_PADDING = -1200.0  # HU; below lies what no tissue has
# of units whose values are amounts or speeds; a field map in Hz or a phase in rad may be negative
_NOT_NEGATIVE = frozenset({"Bq/ml", "g/ml", "counts", "Gy", "unstated"})
_DIFFUSION = "m2/s"  # mm2/s, um2/s, 10*-6.mm2/s, …
_ROUNDING = 0.02  # share of the range that may be negative: noise, interpolation


@dataclass(frozen=True, slots=True)
class PhysicalUnit:
    """The unit of an image, and whether its file says so or its values do.

    Attributes:
        name: `HU`, `Bq/ml`, `g/ml`, … ; `unstated` for PET whose file names none.
        stated: False where it was concluded from modality and values.
    """

    name: str
    stated: bool


def physical_unit(volume: Volume) -> PhysicalUnit | None:
    """Return the physical unit of an image, or None where its values are arbitrary.

    A CT whose file states no unit counts as HU where its values reach below -200: those of a
    picture of a CT (8 bit, PNG or JPEG) do not. PET is physical whatever the file states.
    """
    if volume.unit:
        return PhysicalUnit(volume.unit, True)
    if volume.modality == "PT" and volume.data.dtype.itemsize > 1:
        return PhysicalUnit("unstated", False)
    if volume.modality == "CT" and volume.data.size and float(volume.data.min()) < -200:
        return PhysicalUnit(HU, False)
    return None


def implausible(values: Array, unit: PhysicalUnit) -> str:
    """Return why the values in the mask (flat, finite) cannot have this unit, or ``."""
    middle = float(np.median(values))
    low, high = float(values.min()), float(values.max())
    if unit.name == HU:
        if not _BODY[0] <= middle <= _BODY[1]:
            return f"the median inside is {middle:g} HU, a body lies between -950 and 400"
        share = float(np.mean((values > _METAL) | (values < _PADDING)))
        if share > 0.05:
            return f"{share:.0%} of the values inside are no HU of any tissue"
        return ""
    amount = unit.name in _NOT_NEGATIVE or unit.name.replace("^", "").endswith(_DIFFUSION)
    if amount and low < -_ROUNDING * max(high, 0.0) and float(np.mean(values < 0)) > 0.01:
        return f"values in {unit.name} cannot be negative, the least is {low:g}"
    return ""
