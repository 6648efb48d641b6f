# SPDX-License-Identifier: Apache-2.0
"""Multi-frame files taken apart into slices: functional groups, dose grids, cine (PS3.3 C.7.6.16).

Shared functional groups speak for all frames, per-frame ones for one; the latter win. Which
frames lie in one stack, and which are time points of it, is decided by `series`, for frames and
for files alike.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

from vesalius.errors import CorruptFile
from vesalius.io.dicom import values as v
from vesalius.io.dicom.dataset import open_data_set, open_file
from vesalius.io.dicom.elements import Found, Tables
from vesalius.io.dicom.header import Floats, Header
from vesalius.io.dicom.slices import Slice, slice_of
from vesalius.io.limits import DEFAULT_LIMITS, Limits
from vesalius.types import PathLike

_TYPE = {0x00089007: "image_type", 0x00089208: "component"}
_GROUPS = {
    0x00189114: ("echo", {0x00189082: "echo_time"}),
    0x00189117: ("diffusion", {0x00189087: "b_value"}),
    0x00189118: ("cardiac", {0x00189153: "trigger_time"}),
    0x00189226: ("mr_type", _TYPE),
    0x00189329: ("ct_type", _TYPE),
    0x00189751: ("pet_type", _TYPE),
    0x00209111: (
        "content",
        {
            0x00189074: "time",
            0x00209056: "stack",
            0x00209128: "temporal",
            0x00209156: "acquisition",
        },
    ),
    0x00209113: ("plane_position", {0x00200032: "position"}),
    0x00209116: ("plane_orientation", {0x00200037: "orientation"}),
    0x00289110: (
        "measures",
        {0x00180050: "thickness", 0x00180088: "spacing_between", 0x00280030: "pixel_spacing"},
    ),
    0x00289145: (
        "transformation",
        {0x00281052: "intercept", 0x00281053: "slope", 0x00281054: "rescale_type"},
    ),
    0x00409096: (
        "mapping",
        {
            0x004008EA: ("units", {0x00080100: "code"}),
            0x00409224: "mapped_intercept",
            0x00409225: "mapped_slope",
        },
    ),
}
_TABLES = Tables({0x52009229: ("shared", _GROUPS), 0x52009230: ("frames", _GROUPS)})


def _readers(big: bool) -> dict[str, Callable[[bytes], Any]]:
    return {
        "echo_time": v.binary("d", big=big),
        "b_value": v.binary("d", big=big),
        "trigger_time": v.binary("d", big=big),
        "image_type": v.codes,
        "component": v.code,
        "time": v.code,
        "stack": v.code,
        "temporal": v.binary("I", big=big),
        "acquisition": v.binary("H", big=big),
        "position": v.decimals(3),
        "orientation": v.decimals(6),
        "thickness": v.decimal,
        "spacing_between": v.decimal,
        "pixel_spacing": v.decimals(2),
        "intercept": v.decimal,
        "slope": v.decimal,
        "rescale_type": v.code,
        "mapped_intercept": v.binary("d", big=big),
        "mapped_slope": v.binary("d", big=big),
    }


_READERS = (_readers(False), _readers(True))


def slices_of(path: PathLike, header: Header, *, limits: Limits = DEFAULT_LIMITS) -> list[Slice]:
    """Return one slice for each frame of a file; a single-frame file is not opened again.

    Raises:
        CorruptFile: more frames announced than the pixel data or the functional groups hold.
    """
    name = os.fspath(path)
    count = header.frames or 1
    if count < 1:
        raise CorruptFile(f"NumberOfFrames must be at least 1, got {count}", path=name)
    if header.functional_groups:
        return _from_groups(name, header, count, limits)
    if count == 1:
        return [slice_of(name, header)]
    _check_count(name, header, count)
    if header.frame_offsets and header.position and header.orientation:
        offsets = header.frame_offsets
        return _from_offsets(name, header, offsets, header.position, header.orientation)
    return [slice_of(name, header, n, number=n + 1, temporal=n + 1) for n in range(count)]


def _check_count(path: str, header: Header, count: int) -> None:
    """Refuse a number of frames that the pixel data cannot hold, before making a slice of each."""
    if header.pixel_length is None or header.pixel_offset is None:
        return
    if header.pixel_length >= 0:
        bits = (header.rows or 0) * (header.columns or 0) * (header.bits_allocated or 0)
        most = header.pixel_length * 8 // max(1, bits)
    elif header.file_size is not None:
        most = max(0, header.file_size - header.pixel_offset) // 8  # a fragment's head takes 8
    else:
        return
    if count > most:
        raise CorruptFile(
            f"NumberOfFrames says {count:,}, the pixel data hold at most {most:,}",
            path=path,
            announced=count,
            held=most,
        )


def _from_offsets(
    path: str, header: Header, offsets: Floats, position: Floats, orientation: Floats
) -> list[Slice]:
    """Place the frames of a dose grid along its normal (PS3.3 C.8.8.3.2)."""
    if len(offsets) != header.frames:
        raise CorruptFile(
            f"GridFrameOffsetVector holds {len(offsets)} offsets for {header.frames} frames",
            path=path,
        )
    x, y, z = position
    a, b, c, d, e, f = orientation
    normal = (b * f - c * e, c * d - a * f, a * e - b * d)
    # Offsets are relative to the position when they start at 0, else absolute along z.
    begin = 0.0 if offsets[0] == 0 else z
    return [
        slice_of(
            path,
            header,
            n,
            number=n + 1,
            position=tuple(
                p + (offset - begin) * along for p, along in zip((x, y, z), normal, strict=True)
            ),
        )
        for n, offset in enumerate(offsets)
    ]


def _from_groups(path: str, header: Header, count: int, limits: Limits) -> list[Slice]:
    with open_file(path) as (handle, size):
        data_set = open_data_set(
            lambda offset, wanted: os.pread(handle, wanted, offset), size, limits=limits, path=path
        )
        found, _ = data_set.collect(_TABLES, limits, path)
    frames: list[Found] = found.get("frames", [])
    if len(frames) != count:
        raise CorruptFile(
            f"NumberOfFrames says {count:,}, the functional groups describe {len(frames):,}",
            path=path,
            announced=count,
            held=len(frames),
        )
    readers = _READERS[data_set.order.big]
    shared = _values(found.get("shared", [{}])[0] if found.get("shared") else {}, readers, path)
    slices = []
    for n, frame in enumerate(frames):
        found_here = {"number": n + 1} | shared | _values(frame, readers, path)
        # A real-world mapping names the unit of the scaled values when it is the same scaling.
        unit = found_here.pop("units", None)
        if unit and all(
            math.isclose(found_here.get(f"mapped_{name}", math.nan), found_here.get(name, math.nan),
                         rel_tol=1e-6, abs_tol=1e-12)
            for name in ("slope", "intercept")
        ):  # fmt: skip
            found_here["unit"] = unit
        for name in ("mapped_slope", "mapped_intercept"):
            found_here.pop(name, None)
        slices.append(slice_of(path, header, n, **found_here))
    return slices


def _values(groups: Found, readers: dict[str, Callable[[bytes], Any]], path: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, items in groups.items():
        for item in items[:1]:
            for attribute, raw in item.items():
                if attribute == "units":
                    values[attribute] = v.code(raw[0].get("code", b"")) if raw else None
                    continue
                try:
                    values[attribute] = readers[attribute](raw)
                except ValueError as error:
                    raise CorruptFile(
                        f"functional group {name}: {attribute} is unreadable", path=path
                    ) from error
    return values
