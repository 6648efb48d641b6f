# SPDX-License-Identifier: Apache-2.0
"""One frame as a screen shows it: modality values, window, 8 bits (PS3.3 sections C.11.1, C.11.2).

A frame's own window is used, or one that is asked for, or else the range of its values without the
extremes. Lookup tables in place of windows and windows of functional groups are not applied.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vesalius.errors import UsageError
from vesalius.io.dicom import values as v
from vesalius.io.dicom.color import palette_to_rgb, read_palette
from vesalius.io.dicom.dataset import open_data_set, open_file
from vesalius.io.dicom.elements import Tables
from vesalius.io.dicom.header import Header
from vesalius.io.dicom.modality import modality_values, read_modality_table
from vesalius.io.dicom.multiframe import slices_of
from vesalius.io.dicom.pixels import decode
from vesalius.io.limits import DEFAULT_LIMITS, Limits
from vesalius.types import Array, PathLike

Shape = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]
_SHAPES: tuple[Shape, ...] = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
_TABLES = Tables({0x00281050: "center", 0x00281051: "width", 0x00281056: "shape"})
_EXTREMES = (1.0, 99.5)  # percentiles between which values are spread where no window is stated


@dataclass(frozen=True, slots=True)
class Window:
    """Which modality values become which gray (PS3.3 C.11.2.1.2, C.11.2.1.3)."""

    center: float
    width: float
    shape: Shape = "LINEAR"

    def __post_init__(self) -> None:
        if self.shape not in _SHAPES:
            raise UsageError(f"a window's shape must be one of {_SHAPES}, got {self.shape!r}")
        least = 1.0 if self.shape == "LINEAR" else float(np.nextafter(0, 1))
        if not (np.isfinite([self.center, self.width]).all() and self.width >= least):
            raise UsageError(
                f"a window needs a center and a width of {least:g} or more, got {self.center} and "
                f"{self.width}"
            )

    def gray(self, values: Array) -> Array:
        """Return uint8 for modality values of any shape."""
        x = np.asarray(values, np.float64)
        if self.shape == "SIGMOID":
            with np.errstate(over="ignore"):
                share = 1 / (1 + np.exp(-4 * (x - self.center) / self.width))
        elif self.shape == "LINEAR_EXACT":
            share = (x - self.center) / self.width + 0.5
        elif self.width == 1:
            share = np.where(x <= self.center - 0.5, 0.0, 1.0)
        else:
            share = (x - (self.center - 0.5)) / (self.width - 1) + 0.5
        shown: Array = (np.clip(np.nan_to_num(share), 0, 1) * 255).round().astype(np.uint8)
        return shown


def displayed(
    path: PathLike,
    header: Header,
    frame: int = 0,
    *,
    window: Window | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Array:
    """Return a frame for a screen: `(rows, columns)` or `(rows, columns, 3)`, uint8.

    Args:
        path: the file.
        header: what `read_header` returned for it.
        frame: index of the frame.
        window: instead of the file's own; of no effect on color.
        limits: how much memory it may take.

    Raises what `pixels.decode` raises.
    """
    stored = decode(path, header, limits=limits, frames=[frame])[0]  # (R, C, S)
    if header.photometric == "PALETTE COLOR":
        return palette_to_rgb(stored, read_palette(path, header, limits=limits))
    if stored.shape[2] == 3:
        bits = header.bits_stored or 8 * stored.dtype.itemsize
        color: Array = (stored.astype(np.uint32) >> max(0, bits - 8)).astype(np.uint8)
        return color
    values = _modality(stored, path, header, frame, limits)[..., 0]
    chosen = window or stated_window(path, limits=limits) or _spread(stored[..., 0], values, header)
    shown = chosen.gray(values)
    return 255 - shown if header.photometric == "MONOCHROME1" else shown


def stated_window(path: PathLike, *, limits: Limits = DEFAULT_LIMITS) -> Window | None:
    """Return the first window that a file states, or None where it states none that is one."""
    name = os.fspath(path)
    with open_file(name) as (handle, size):
        data_set = open_data_set(
            lambda offset, count: os.pread(handle, count, offset), size, limits=limits, path=name
        )
        found, _ = data_set.collect(_TABLES, limits, name)
    shape = v.code(found["shape"]) if found.get("shape") else "LINEAR"
    try:
        center = (v.decimals()(found.get("center", b"")) or (np.nan,))[0]
        width = (v.decimals()(found.get("width", b"")) or (np.nan,))[0]
        return Window(center, width, shape or "LINEAR")  # type: ignore[arg-type]  # checked there
    except (ValueError, UsageError):
        return None


def _modality(stored: Array, path: PathLike, header: Header, frame: int, limits: Limits) -> Array:
    if header.modality_lut:
        table = read_modality_table(path, header, limits=limits)
        looked_up: Array = modality_values(stored[None], table=table)[0]
        return looked_up
    slope, intercept = header.slope, header.intercept
    if (header.frames or 1) > 1:
        one = slices_of(path, header, limits=limits)[frame]
        slope, intercept = one.slope, one.intercept
    scaled: Array = modality_values(stored[None], slope=slope, intercept=intercept)[0]
    return scaled


def _spread(stored: Array, values: Array, header: Header) -> Window:
    """Return the window that spreads a frame's values, padding and extremes left out."""
    kept = np.asarray(values, np.float64)
    if header.padding is not None and stored.dtype.kind in "iu":
        kept = kept[stored != np.array(header.padding, np.uint16).astype(stored.dtype)]
    kept = kept[np.isfinite(kept)]
    if not kept.size:
        return Window(0.0, 1.0, "LINEAR_EXACT")
    low, high = np.percentile(kept, _EXTREMES)
    if high <= low:
        low, high = kept.min(), kept.max()
    return Window(float(low + high) / 2, max(float(high - low), 1e-6), "LINEAR_EXACT")
