# SPDX-License-Identifier: Apache-2.0
"""A stack of slices to one Volume: RAS+ affine, scaled values, color, time, provenance.

Axes: i runs along image columns, j along rows, k along the normal. Each slice is scaled by its own
slope and intercept (PS3.3 C.11.1). Time points become channels `t0`, `t1`, …; color becomes `red`,
`green`, `blue`. What is no regular grid raises `GeometryError` unless resampling is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vesalius.errors import CorruptFile, GeometryError, UnsupportedFormat, UsageError
from vesalius.geometry import resample
from vesalius.io.dicom import color, pixels
from vesalius.io.dicom.header import Header, read_header
from vesalius.io.dicom.kinds import IMAGES
from vesalius.io.dicom.modality import (
    ModalityTable,
    invert,
    modality_values,
    read_modality_table,
)
from vesalius.io.dicom.series import Stack, stacks
from vesalius.io.dicom.slices import Slice
from vesalius.io.limits import DEFAULT_LIMITS, Limits
from vesalius.types import Array, PathLike
from vesalius.volume import Source, Volume

# Modalities whose values are measurements: MONOCHROME1 is a wish for display there.
_MEASURED = frozenset({"CT", "MR", "PT", "NM", "RTDOSE"})
_COLORS = ("red", "green", "blue")
_UNITS = {"HU": "HU", "BQML": "Bq/ml", "GML": "g/ml", "CNTS": "counts", "GY": "Gy", "HZ": "Hz"}
_NO_UNIT = frozenset({"US", "UNSPECIFIED", "NORMALIZED", "NONE", "1", "RELATIVE"})
_INTEGERS, _FLOATS, _DOUBLES = 0x7FE00010, 0x7FE00008, 0x7FE00009
_CHUNK = 16 << 20  # bytes of frames of one file that are decoded at a time


def assemble(
    stack: Stack,
    *,
    limits: Limits = DEFAULT_LIMITS,
    allow_gaps: bool = False,
    resample_irregular: bool = False,
) -> Volume:
    """Read the pixels of a stack and put them on their grid.

    Args:
        stack: from `series.stacks`.
        limits: how much memory it may take; checked before anything is allocated.
        allow_gaps: fill missing slices by linear interpolation between their neighbors; their
            indices are listed in `source.metadata["filled_slices"]`.
        resample_irregular: straighten a tilted gantry (shear, linear in the plane) and bring
            uneven slices to an even grid (linear along k).

    Returns:
        A volume (channel, i, j, k). Integers where every slope is 1 and every intercept whole,
        else float32. MONOCHROME1 is turned so that larger is brighter, except for measured values
        (CT, MR, PT, NM, dose); `source.metadata` says so.

    Raises:
        GeometryError: gaps, tilt, uneven or unplaced slices that were not allowed.
        UnsupportedFormat: the stack holds no image plane.
        CorruptFile, LimitExceeded: see `pixels.decode`.
    """
    _check(stack, allow_gaps=allow_gaps, resample_irregular=resample_irregular)
    slices = [s for time in stack.times for s in time]
    _check_scaling(slices)
    head = stack.header
    palette = color.read_palette(slices[0].path, head, limits=limits) if _is_palette(head) else None
    samples = 3 if palette is not None else head.samples or 1
    dtype = _dtype(slices, is_palette=palette is not None)
    columns, rows, depth = stack.shape
    full = depth + sum(count for _, count in stack.gaps)
    is_resampled = bool(stack.tilt or not stack.even)
    voxels = len(stack.times) * samples * rows * columns
    wanted = voxels * depth * dtype.itemsize + _CHUNK
    if stack.gaps:
        wanted += voxels * full * dtype.itemsize
    if is_resampled:  # to the straight grid: as float32, and in between as float64
        wanted += 3 * voxels * full * 4
    limits.check(
        wanted,
        sum({s.path: s.header.file_size or 0 for s in slices}.values()),
        what=f"a volume of {columns:,} x {rows:,} x {full:,} voxels",
        path=slices[0].path,
    )

    data = np.empty((len(stack.times), samples, depth, rows, columns), dtype)
    places = {id(s): (t, k) for t, time in enumerate(stack.times) for k, s in enumerate(time)}
    inverted = _is_inverted(head)
    tables: dict[str, ModalityTable] = {}  # of the file at hand
    for s, frame in _frames(slices, limits):
        t, k = places[id(s)]
        if palette is not None:
            values = color.palette_to_rgb(frame, palette)
        else:
            if s.header.modality_lut and s.path not in tables:
                tables = {s.path: read_modality_table(s.path, s.header, limits=limits)}
            values = _values(frame, s, table=tables.get(s.path), inverted=inverted)
        data[t, :, k] = np.moveaxis(values, -1, 0)

    number = {path: n for n, path in enumerate(stack.files)}
    unit = next(iter(tables.values())).unit if tables else None
    metadata: dict[str, Any] = {
        "kind": stack.kind,
        "label": stack.label,
        "manufacturer": head.manufacturer,
        "model": head.model,
        "photometric": head.photometric,
        "inverted": inverted,
        "spacing_source": stack.slices[0].spacing_source,
        "slices": [[number[s.path], s.frame] for s in slices],
        "problems": [problem.name for problem in stack.problems],
    }
    offsets = np.asarray(stack.offsets)
    if stack.gaps:
        data, offsets, metadata["filled_slices"] = _fill(data, offsets, stack.gaps)
    affine = stack.affine
    if not stack.even:
        data, step = _even(data, offsets)
        along = float(np.cross(affine[:3, 0], affine[:3, 1]) @ affine[:3, 2])
        along /= float(np.linalg.norm(np.cross(affine[:3, 0], affine[:3, 1])))
        affine = affine.copy()
        affine[:3, 2] *= step / along
    volume = Volume(
        # (time, sample, k, row, column) -> (channel, column, row, k)
        data.reshape(-1, *data.shape[2:]).transpose(0, 3, 2, 1),
        affine,
        modality=stack.modality,
        unit=unit_of(stack.slices[0], stack.kind, table_unit=unit),
        channels=_channels(len(stack.times), samples),
        calibrated=stack.calibrated,
        source=Source(stack.files, "dicom", "", metadata),
    )
    return _straighten(volume) if stack.tilt else volume


def read_series(
    paths: Iterable[PathLike],
    *,
    limits: Limits = DEFAULT_LIMITS,
    allow_gaps: bool = False,
    resample_irregular: bool = False,
) -> list[Volume]:
    """Read the files of one series into one volume for each stack of image planes.

    Objects without image planes (reports, plans, segmentations, …) are left out. See `stacks` and
    `assemble` for the order, the arguments and the errors.

    Raises:
        UsageError: the files belong to several series.
        UnsupportedFormat: none of the files holds image planes.
    """
    headers = [(os.fspath(path), read_header(path, limits=limits)) for path in paths]
    count = len({header.series_uid for _, header in headers})
    if count > 1:
        raise UsageError(f"paths must be the files of one series, got those of {count}")
    images = [stack for stack in stacks(headers, limits=limits) if stack.kind in IMAGES]
    if not images:
        raise UnsupportedFormat(f"none of the {len(headers)} files holds image planes")
    return [
        assemble(
            stack,
            limits=limits,
            allow_gaps=allow_gaps,
            resample_irregular=resample_irregular,
        )
        for stack in images
    ]


def _check(stack: Stack, *, allow_gaps: bool, resample_irregular: bool) -> None:
    path = stack.slices[0].path
    if stack.kind not in IMAGES:
        raise UnsupportedFormat(
            f"a {stack.kind} object holds no image planes to read as a volume", path=path
        )
    refused = []
    if not stack.placed and len(stack.slices) > 1:
        refused.append("no-position")
    if stack.gaps and not allow_gaps:
        refused.append("missing-slices")
    if not resample_irregular:
        refused += ["gantry-tilt"] if stack.tilt else []
        refused += [] if stack.even else ["uneven-spacing"]
    for problem in stack.problems:
        # No resampling can mend what is unsound.
        if problem.name in refused or "unsound" in problem.evidence:
            raise GeometryError(
                problem.message, path=path, problem=problem.name, **problem.evidence
            )


def _frames(slices: Sequence[Slice], limits: Limits) -> Iterator[tuple[Slice, Array]]:
    """Decode file by file, frames of one file together: `(slice, (rows, columns, samples))`."""
    by_file: dict[str, list[Slice]] = {}
    for s in slices:
        by_file.setdefault(s.path, []).append(s)
    for path, members in by_file.items():
        header = members[0].header
        together = max(1, _CHUNK // max(1, header.frame_bytes or 1))
        for n in range(0, len(members), together):
            part = members[n : n + together]
            whole = len(part) == (header.frames or 1) == 1
            decoded = pixels.decode(
                path, header, limits=limits, frames=None if whole else [s.frame for s in part]
            )
            yield from zip(part, decoded, strict=True)


def _is_palette(header: Header) -> bool:
    return bool(header.photometric == "PALETTE COLOR")


def _is_inverted(header: Header) -> bool:
    return (
        header.photometric == "MONOCHROME1"
        and header.modality not in _MEASURED
        and header.pixel_tag == _INTEGERS
    )


def _check_scaling(slices: Iterable[Slice]) -> None:
    """Refuse a slope or intercept that is stated and unreadable: its values are not known."""
    for s in slices:
        broken = {"slope", "intercept"} & set(s.header.invalid or ())
        if broken and not s.header.modality_lut:
            raise CorruptFile(
                f"its rescale {' and '.join(sorted(broken))} cannot be read as a number, so its "
                "values are not known; mend the header",
                path=s.path,
                attributes=sorted(broken),
            )


def _scaling(s: Slice) -> tuple[float, float]:
    return 1.0 if s.slope is None else s.slope, s.intercept or 0.0


def _dtype(slices: Iterable[Slice], *, is_palette: bool) -> np.dtype[Any]:
    """Return the smallest type that holds all scaled values exactly, or float32."""
    low = high = 0
    for s in slices:
        header = s.header
        slope, intercept = _scaling(s)
        if is_palette:
            return np.dtype(np.uint8)
        if header.modality_lut:
            return np.dtype(np.int32)
        if header.pixel_tag == _DOUBLES:
            return np.dtype(np.float64)
        if header.pixel_tag == _FLOATS or slope != 1 or not intercept.is_integer():
            return np.dtype(np.float32)
        bits = header.bits_stored or header.bits_allocated or 16
        signed = header.pixel_representation == 1
        low = min(low, int(intercept) - (1 << (bits - 1) if signed else 0))
        high = max(high, int(intercept) + (1 << (bits - signed)) - 1)
    for kind in (np.uint8, np.int16, np.int32):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return np.dtype(kind)
    return np.dtype(np.float64)


def _values(stored: Array, s: Slice, *, table: ModalityTable | None, inverted: bool) -> Array:
    """Return modality values (rows, columns, samples) of one frame."""
    if table is not None:
        values: Array = modality_values(stored[None], table=table)[0]
        if inverted:
            values = table.table.min() + table.table.max() - values
        return values
    if inverted:
        bits = s.header.bits_stored or 8 * stored.dtype.itemsize
        stored = invert(stored, bits_stored=bits, is_signed=stored.dtype.kind == "i")
    slope, intercept = _scaling(s)
    scaled: Array = modality_values(stored[None], slope=slope, intercept=intercept)[0]
    return scaled


def unit_of(s: Slice, kind: str, *, table_unit: str | None = None) -> str:
    """Return the unit of the scaled values: `HU`, `Bq/ml`, `Gy`, …, or `` when arbitrary."""
    header = s.header
    stated = (
        header.dose_units
        if kind == "dose"
        else header.units or table_unit or s.unit or s.rescale_type
    )
    if stated is None:
        scaled = s.slope is not None or s.intercept is not None
        stated = "HU" if header.modality == "CT" and kind == "image" and scaled else ""
    stated = stated.strip()
    if stated.upper() in _NO_UNIT:
        return ""
    return _UNITS.get(stated.upper(), stated)


def _channels(times: int, samples: int) -> tuple[str, ...]:
    colors = _COLORS if samples == 3 else ()
    moments = [f"t{n}" for n in range(times)] if times > 1 else []
    if moments and colors:
        return tuple(f"{moment} {name}" for moment in moments for name in colors)
    return tuple(moments) or colors


def _fill(
    data: Array, offsets: Array, gaps: Sequence[tuple[int, int]]
) -> tuple[Array, Array, list[int]]:
    """Return the slices with missing ones interpolated, their offsets, and which were filled."""
    missing = dict(gaps)
    sources: list[float] = []
    for k in range(len(offsets)):
        count = missing.get(k, 0)
        sources += [k + n / (count + 1) for n in range(count + 1)]
    at = np.array(sources)
    filled = [n for n, place in enumerate(sources) if place != int(place)]
    return _between(data, at), np.interp(at, np.arange(len(offsets)), offsets), filled


def _even(data: Array, offsets: Array) -> tuple[Array, float]:
    """Return the slices on an even grid from the first to the last, and its step in mm."""
    total = float(offsets[-1])
    steps = max(1, round(total / float(np.median(np.diff(offsets)))))
    grid = np.linspace(0.0, total, steps + 1)
    at = np.interp(grid, offsets, np.arange(len(offsets)))
    return _between(data, at), total / steps


def _between(data: Array, at: Array) -> Array:
    """Return slices at fractional indices, linear between neighbors; integers are rounded."""
    lower = np.minimum(at.astype(int), data.shape[2] - 1)
    upper = np.minimum(lower + 1, data.shape[2] - 1)
    out = np.empty((*data.shape[:2], len(at), *data.shape[3:]), data.dtype)
    for n, (a, b, share) in enumerate(zip(lower, upper, at - lower, strict=True)):
        if share == 0:
            out[:, :, n] = data[:, :, a]
            continue
        mixed = data[:, :, a] * (1 - share) + data[:, :, b] * share
        out[:, :, n] = np.rint(mixed) if data.dtype.kind in "iu" else mixed
    return out


def _straighten(volume: Volume) -> Volume:
    """Resample a sheared grid onto the upright one that covers it, linear in the plane."""
    affine = volume.affine
    normal = np.cross(affine[:3, 0], affine[:3, 1])
    normal /= np.linalg.norm(normal)
    upright = affine.copy()
    upright[:3, 2] = normal * float(normal @ affine[:3, 2])
    # How far each slice moves along i and j in voxels of the upright grid.
    shift = np.linalg.solve(upright[:3, :3], affine[:3, 2])[:2] * (volume.shape[2] - 1)
    first = np.floor(np.minimum(0.0, shift) + 1e-6)
    last = np.ceil(np.maximum(0.0, shift) - 1e-6)
    upright[:3, 3] += upright[:3, :2] @ first
    extra = (last - first).astype(int)
    shape = (volume.shape[0] + int(extra[0]), volume.shape[1] + int(extra[1]), volume.shape[2])
    straight = resample(volume, upright, shape, outside=float(volume.data.min()))
    metadata = {**volume.source.metadata, "straightened": True}
    return replace(straight, source=replace(volume.source, metadata=metadata))
