# SPDX-License-Identifier: Apache-2.0
"""DICOM Parametric Map to Volume in real-world values and units (PS3.3 A.75, C.7.6.16.2.11)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vesalius.errors import CorruptFile, GeometryError, UnsupportedFormat
from vesalius.io.dicom.frame_grid import frame_grid
from vesalius.io.dicom.multiframe import slices_of
from vesalius.io.dicom.objects import parsing, read_object, refuse_tiles, require_class
from vesalius.io.dicom.pixels import decode
from vesalius.io.limits import DEFAULT_LIMITS, Limits
from vesalius.types import PathLike
from vesalius.volume import Source, Volume

if TYPE_CHECKING:
    from pydicom import Dataset

PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"
_NO_UNIT = {"1", "{counts}", "[arb'U]"}


@dataclass(frozen=True, slots=True)
class _Mapping:
    """Stored value -> real-world value: `slope * stored + intercept` of `quantity` in `unit`."""

    slope: float
    intercept: float
    unit: str
    quantity: str


def read_parametric_map(path: PathLike, *, limits: Limits = DEFAULT_LIMITS) -> Volume:
    """Read a parametric map; values are real-world values (float64 for double pixel data).

    Frames at one position become channels in the order of the file. `unit` is the UCUM code of
    the measurement units where all channels share it; `source.metadata["quantities"]` and
    `["units"]` name those of each channel.

    Raises:
        UnsupportedFormat: no parametric map, slide tiles, or a mapping by lookup table.
        GeometryError: frames on no regular grid, or slices missing.
        CorruptFile, LimitExceeded: see `pixels.decode`.
    """
    name = os.fspath(path)
    header, data_set = read_object(path, limits=limits)
    require_class(header, {PARAMETRIC_MAP: "Parametric Map Storage"}, path=name)
    refuse_tiles(header, path=name)
    slices = slices_of(path, header, limits=limits)
    with parsing(name):
        mappings = _mappings(data_set, len(slices), name)
    grid = frame_grid(slices, header, path=name)
    channel = _channels(grid.index)
    count = max(channel) + 1
    present = np.zeros((count, grid.shape[2]), bool)
    present[list(channel), list(grid.index)] = True
    if not present.all():
        missing = int((~present).sum())
        raise GeometryError(
            f"{missing} of {present.size} slices are missing from the parametric map",
            path=name,
            missing=missing,
        )
    stored_type = np.dtype(np.float64 if header.bits_allocated == 64 else np.float32)
    limits.check(
        2 * count * int(np.prod(grid.shape)) * stored_type.itemsize,
        header.file_size or 0,
        what=f"{count} channel(s) of {' x '.join(f'{n:,}' for n in grid.shape)} voxels",
        path=name,
    )
    frames = decode(path, header, limits=limits)[..., 0]  # (F, R, C)
    data = np.empty((count, *grid.shape), stored_type)
    labels: dict[int, _Mapping] = {}
    for frame, k, c, mapping in zip(frames, grid.index, channel, mappings, strict=True):
        # In double precision: an intercept may be much larger than a step.
        data[c, :, :, k] = frame.T.astype(np.float64) * mapping.slope + mapping.intercept
        first = labels.setdefault(c, mapping)
        if (first.unit, first.quantity) != (mapping.unit, mapping.quantity):
            raise CorruptFile("frames of one channel differ in quantity or unit", path=name)
    ordered = [labels[c] for c in range(count)]
    units = [mapping.unit for mapping in ordered]
    quantities = [mapping.quantity for mapping in ordered]
    return Volume(
        data,
        grid.affine,
        modality=header.modality or "",
        unit=units[0] if len(set(units)) == 1 and units[0] not in _NO_UNIT else "",
        channels=tuple(quantities) if count > 1 and all(quantities) else (),
        calibrated=grid.calibrated,
        source=Source(
            (name,),
            "dicom",
            metadata={
                "kind": "parametric-map",
                "quantities": quantities,
                "units": units,
                "referenced_series": list(header.referenced_series or ()),
            },
        ),
    )


def _channels(index: Sequence[int]) -> list[int]:
    """Return each frame's channel: how many frames at its position came before."""
    seen: dict[int, int] = {}
    channels = []
    for k in index:
        channels.append(seen.get(k, 0))
        seen[k] = channels[-1] + 1
    return channels


def _mappings(data_set: Dataset, count: int, path: str) -> list[_Mapping]:
    """Return the real-world value mapping of each frame, from its own or the shared groups."""
    shared = data_set.get("SharedFunctionalGroupsSequence") or []
    common = _mapping(shared[0], path) if shared else None
    frames = data_set.get("PerFrameFunctionalGroupsSequence") or []
    if len(frames) != count:
        raise CorruptFile(
            f"{count} frames have {len(frames)} functional groups", path=path, frames=count
        )
    mappings = [_mapping(frame, path) or common for frame in frames]
    if None in mappings:
        raise CorruptFile("the parametric map states no real-world value mapping", path=path)
    return [mapping for mapping in mappings if mapping is not None]


def _mapping(groups: Dataset, path: str) -> _Mapping | None:
    for item in groups.get("RealWorldValueMappingSequence") or []:
        slope, intercept = item.get("RealWorldValueSlope"), item.get("RealWorldValueIntercept")
        if slope is None or intercept is None:
            raise UnsupportedFormat(
                "a real-world value mapping by lookup table is not supported", path=path
            )
        if not np.isfinite([float(slope), float(intercept)]).all():
            raise CorruptFile("a real-world value mapping is not finite", path=path)
        units = item.get("MeasurementUnitsCodeSequence") or []
        unit = str(units[0].get("CodeValue", "")) if units else ""
        return _Mapping(float(slope), float(intercept), unit, _quantity(item))
    return None


def _quantity(item: Dataset) -> str:
    """Return what is measured: the quantity's definition, else the mapping's label."""
    for definition in item.get("QuantityDefinitionSequence") or []:
        for concept in definition.get("ConceptCodeSequence") or []:
            return str(concept.get("CodeMeaning", ""))
    return str(item.get("LUTExplanation", "") or item.get("LUTLabel", ""))
