# SPDX-License-Identifier: Apache-2.0
"""Color of DICOM pixels: YBR and palettes to RGB (PS3.3 sections C.7.6.3.1.2 and C.7.9)."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from vesalius.errors import CorruptFile, UnsupportedFormat, UsageError
from vesalius.io.dicom.dataset import open_data_set, open_file
from vesalius.io.dicom.elements import Tables
from vesalius.io.dicom.header import Header
from vesalius.io.limits import DEFAULT_LIMITS, Limits
from vesalius.types import Array, PathLike

_ONE_SAMPLE = {"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"}
_THREE_SAMPLES = {
    "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT",
}  # fmt: skip
_RETIRED = {"HSV", "ARGB", "CMYK", "YBR_PARTIAL_420", "XYB"}
_BLOCK = 1 << 18  # pixels converted at once

_PALETTE = Tables(
    {
        0x00281101: "red_descriptor",
        0x00281102: "green_descriptor",
        0x00281103: "blue_descriptor",
        0x00281201: "red",
        0x00281202: "green",
        0x00281203: "blue",
        0x00281221: "segmented",
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class Palette:
    """A palette: `first` is the stored value of row 0 of `table`, `(entries, 3)` uint8."""

    first: int
    table: Array


def check_photometric(stated: str | None, samples: int, columns: int, allocated: int) -> str:
    """Return the photometric interpretation, or raise where the pixels cannot be read by it."""
    name = stated or ("RGB" if samples == 3 else "MONOCHROME2")
    if name in _RETIRED:
        raise UnsupportedFormat(f"photometric interpretation {name} is not supported")
    wanted = 1 if name in _ONE_SAMPLE else 3 if name in _THREE_SAMPLES else None
    if wanted is None:
        raise UnsupportedFormat(
            f"photometric interpretation {name!r} is not supported; known are "
            f"{', '.join(sorted((_ONE_SAMPLE | _THREE_SAMPLES) - _RETIRED))}"
        )
    if samples != wanted:
        raise CorruptFile(
            f"{name} goes with SamplesPerPixel {wanted}, got {samples}",
            kind="bad-pixel-module",
            samples=samples,
        )
    if name.startswith("YBR_FULL") and allocated not in (8, 16):
        raise UnsupportedFormat(f"{name} of {allocated} bits is not supported")
    if name.endswith("_422") and (columns % 2 or allocated != 8):
        raise CorruptFile(
            f"{name} needs an even number of columns of 8 bits, got {columns} of {allocated}",
            kind="bad-pixel-module",
        )
    return name


def ybr_to_rgb(values: Array, *, partial: bool = False) -> Array:
    """Return RGB for YBR_FULL, or with `partial` YBR_PARTIAL, samples in the last axis.

    Works in place, block by block, on contiguous unsigned values.
    """
    peak = float(np.iinfo(values.dtype).max)
    half = (peak + 1) / 2
    black, scale_y, scale_c = (
        (16 / 256 * (peak + 1), 255 / 219, 255 / 224) if partial else (0.0, 1.0, 1.0)
    )
    flat = values.reshape(-1, 3)
    for start in range(0, len(flat), _BLOCK):
        block = flat[start : start + _BLOCK].astype(np.float32)
        y = (block[:, 0] - black) * scale_y
        cb, cr = ((block[:, n] - half) * scale_c for n in (1, 2))
        red = y + 1.402 * cr
        green = y - 0.344136 * cb - 0.714136 * cr
        blue = y + 1.772 * cb
        rgb = np.rint(np.stack([red, green, blue], axis=-1))
        flat[start : start + _BLOCK] = np.clip(rgb, 0, peak).astype(values.dtype)
    return flat.reshape(values.shape)


def from_422(values: Array, photometric: str) -> Array:
    """Return RGB `(frames, rows, columns, 3)` for pairs of pixels `(…, columns / 2, Y Y Cb Cr)`."""
    frames, rows, pairs, _ = values.shape
    out = np.empty((frames, rows, pairs * 2, 3), values.dtype)
    out[:, :, 0::2, 0] = values[..., 0]
    out[:, :, 1::2, 0] = values[..., 1]
    for n in (1, 2):
        out[:, :, 0::2, n] = out[:, :, 1::2, n] = values[..., n + 1]
    return ybr_to_rgb(out, partial=photometric.startswith("YBR_PARTIAL"))


def read_palette(source: PathLike, header: Header, *, limits: Limits = DEFAULT_LIMITS) -> Palette:
    """Return the palette of a PALETTE COLOR file.

    Raises `CorruptFile` where a table is missing or shorter than its descriptor says, and
    `UnsupportedFormat` for segmented tables.
    """
    path = os.fspath(source)
    with open_file(path) as (handle, size):
        data_set = open_data_set(
            lambda offset, count: os.pread(handle, count, offset), size, limits=limits, path=path
        )
        found, _ = data_set.collect(_PALETTE, limits, path)
    if "segmented" in found and "red" not in found:
        raise UnsupportedFormat("segmented palettes are not supported", path=path)
    order = ">" if data_set.order.big else "<"
    columns, firsts = [], set()
    for name in ("red", "green", "blue"):
        if f"{name}_descriptor" not in found or name not in found:
            raise CorruptFile(f"the palette has no {name} table", path=path, kind="bad-palette")
        descriptor = np.frombuffer(found[f"{name}_descriptor"][:6], f"{order}u2").tolist()
        if len(descriptor) != 3:
            raise CorruptFile("a palette descriptor is no triple", path=path, kind="bad-palette")
        entries, first, bits = descriptor
        entries = entries or 65536
        if header.pixel_representation == 1 and first > 32767:
            first -= 65536
        raw = found[name]
        table = np.frombuffer(raw[: len(raw) // 2 * 2], f"{order}u2")
        if bits != 16 and len(raw) < 2 * entries:  # two entries of 8 bits in each word
            table = table.astype("<u2").view(np.uint8)
        elif bits == 16 and table.max(initial=0) > 255:
            table = table >> 8  # 16-bit entries use the full range; some writers stay below 256
        if len(table) < entries:
            raise CorruptFile(
                f"the palette's {name} table holds {len(table):,} of {entries:,} entries",
                path=path,
                kind="bad-palette",
                got=len(table),
                expected=entries,
            )
        columns.append(table[:entries].astype(np.uint8))
        firsts.add((entries, first))
    if len(firsts) != 1:
        raise CorruptFile("the palette's tables differ in size", path=path, kind="bad-palette")
    return Palette(firsts.pop()[1], np.stack(columns, axis=1))


def palette_to_rgb(indices: Array, palette: Palette) -> Array:
    """Return RGB `(…, 3)` uint8 for indices `(…, 1)`; values off the table take its nearest end."""
    if indices.shape[-1] != 1 or indices.dtype.kind not in "iu":
        raise UsageError(f"indices must be integers of shape (…, 1), got {indices.shape}")
    rows = np.clip(indices[..., 0].astype(np.int64) - palette.first, 0, len(palette.table) - 1)
    return palette.table[rows]
