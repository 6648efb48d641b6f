# SPDX-License-Identifier: Apache-2.0
"""Checks of a label map against its image."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vesalius.cohorts.quality.findings import finding
from vesalius.geometry import same_grid
from vesalius.results import Finding
from vesalius.volume import LabelMap, Volume

_MOST = 1 << 16  # distinct values that a mask may sensibly hold


def check_mask(mask: LabelMap, volume: Volume | None = None) -> list[Finding]:
    """Return what is wrong with a mask, and with its place on `volume` where that is given.

    - mask-off-grid: another shape, or a voxel more than a quarter of the spacing away in the world.
      Where one of the two states no millimeters (`calibrated` False), shapes alone count.
    - empty-mask, constant-mask: marks nothing, or everything (of more than one voxel).
    - unknown-label-value: a value without a name where the mask names its values, or a negative.
    """
    return [*_grid(mask, volume), *_values(mask)]


def _grid(mask: LabelMap, volume: Volume | None) -> Iterator[Finding]:
    if volume is None:
        return
    if mask.shape != volume.shape:
        yield finding(
            "mask-off-grid",
            f"the mask has shape {_by(mask.shape)}, its image {_by(volume.shape)}",
            {"mask_shape": list(mask.shape), "image_shape": list(volume.shape)},
        )
    elif mask.calibrated and volume.calibrated:
        tolerance = 0.25 * min(volume.spacing)
        if not same_grid(
            mask.affine, mask.shape, volume.affine, volume.shape, tolerance_mm=tolerance
        ):
            away = float(np.abs(mask.affine[:3, 3] - volume.affine[:3, 3]).max())
            yield finding(
                "mask-off-grid",
                f"mask and image have one shape and lie apart in the world (first voxels {away:.3g}"
                " mm)",
                {"origin_apart_mm": away, "tolerance_mm": tolerance},
            )


def _values(mask: LabelMap) -> Iterator[Finding]:
    data = mask.data
    low, high = int(data.min()), int(data.max())
    if low == high == 0:
        yield finding("empty-mask", "no voxel is marked", {"voxels": 0})
        return
    if low > 0 and data.size > 1 and len(data) == 1:
        yield finding("constant-mask", f"every voxel is marked (least value {low})", {"min": low})
    if low >= 0 and high < _MOST:
        present = np.zeros(high + 1, bool)
        for plane in data.transpose(3, 0, 1, 2):
            present[plane.reshape(-1).astype(np.intp)] = True
        values = np.flatnonzero(present).tolist()
    else:
        values = np.unique(data).tolist()
    known = {0, *(int(value) for value in mask.names)}
    unknown = [v for v in values if v < 0 or (mask.names and v not in known)]
    if unknown:
        yield finding(
            "unknown-label-value",
            f"the mask holds {unknown[:10]}{' and more' if len(unknown) > 10 else ''}, "
            f"named are {sorted(known - {0}) or 'values from 0'}",
            {"values": unknown[:100], "count": len(unknown)},
        )


def _by(shape: tuple[int, int, int]) -> str:
    return " x ".join(map(str, shape))
