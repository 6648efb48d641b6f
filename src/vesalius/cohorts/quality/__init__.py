# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with data: the table of findings, and the checks that raise them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vesalius.cohorts.quality import artifacts, intensity
from vesalius.cohorts.quality.cohort import check_cohort
from vesalius.cohorts.quality.findings import FINDINGS, Kind, finding
from vesalius.cohorts.quality.masks import check_mask
from vesalius.cohorts.quality.slices import check_slices
from vesalius.cohorts.quality.stack import check_stack
from vesalius.results import Finding
from vesalius.volume import LabelMap, Volume

__all__ = [
    "FINDINGS",
    "Kind",
    "check_cohort",
    "check_image",
    "check_mask",
    "check_slices",
    "check_stack",
    "finding",
]


def check_image(
    volume: Volume, row: Mapping[str, Any], mask: LabelMap | None = None
) -> list[Finding]:
    """Return what is wrong with one decoded image, and with its mask.

    `row` holds the columns of `assess(volume)` (`stat_min` … `stat_snr`), and `key` if known.
    A label map that is an image of its own is checked as a mask; Hounsfield units and acquisition
    artifacts are not expected of secondary captures and localizers (`row["kind"]`).
    The cost is small beside decoding: checks that need a neighborhood look at a sample or at few
    slices, and those that make no sense below a size are passed over.
    """
    found = [*intensity.check_size(volume), *intensity.check_finite(volume)]
    if isinstance(volume, LabelMap):
        found += check_mask(volume)
    elif row.get("stat_min") is not None:
        constant = list(intensity.check_constant(row))
        found += constant
        if not constant:
            found += intensity.check_clipping(volume, row)
            found += intensity.check_noise(volume, row)
            found += intensity.check_photometric(volume, row)
            found += artifacts.check_text(volume, row)
            if row.get("kind") in (None, "", "image"):
                found += intensity.check_hounsfield(volume, row)
                found += artifacts.check_bias_field(volume, row)
                found += artifacts.check_ghosting(volume, row)
                found += check_slices(volume)
    if mask is not None:
        found += check_mask(mask, volume)
    key = str(row.get("key") or "")
    return [replace(one, key=key) for one in found] if key else found
