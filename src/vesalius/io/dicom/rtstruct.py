# SPDX-License-Identifier: Apache-2.0
"""RT Structure Set to LabelMap on the grid of the image that was contoured (PS3.3 C.8.8.5, .6).

A voxel belongs to a region when its center lies inside the region's closed planar contours in its
slice, by the even-odd rule: inner contours cut holes, drawn apart or by keyhole.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from vesalius.errors import CorruptFile, GeometryError, UnsupportedFormat
from vesalius.geometry import LPS_TO_RAS
from vesalius.io.dicom.contours import fill
from vesalius.io.dicom.header import read_header
from vesalius.io.dicom.objects import beside, parsing, read_object, require_class
from vesalius.io.limits import DEFAULT_LIMITS, Limits
from vesalius.types import Array, PathLike
from vesalius.volume import LabelMap, Source, Volume

if TYPE_CHECKING:
    from pydicom import Dataset

STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
_CLOSED = {"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"}
_FARTHEST_MM = 1e6
_CONTOUR_DATA = 0x30060050
_OFF_PLANE = 0.25  # of a step: how far a contour may lie from the slice that it is drawn on


@dataclass
class _Region:
    name: str
    contours: list[Array] = field(default_factory=list)  # (n, 3) LPS+ millimeters
    references: set[str] = field(default_factory=set)
    skipped: int = 0  # points, lines and open curves, which enclose nothing


def read_rtstruct(
    path: PathLike, reference: Volume, *, limits: Limits = DEFAULT_LIMITS
) -> LabelMap:
    """Draw the regions of a structure set onto the grid of `reference`.

    Values are ROI numbers where these lie in 1..65535, else 1, 2, … in the order of the file.
    Regions that overlap lie in different layers. Regions without a closed contour stay empty;
    `source.metadata["skipped"]` counts the points, lines and open curves of each.

    Raises:
        UnsupportedFormat: no structure set, or none of its regions has a closed contour.
        GeometryError: contours refer to images that `reference` was not made of (checked where it
            came from DICOM files), or lie outside it or between its slices.
        CorruptFile: contours of broken coordinates.
    """
    name = os.fspath(path)
    header, data_set = read_object(path, limits=limits)
    require_class(header, {STRUCTURE_SET: "RT Structure Set Storage"}, path=name)
    with parsing(name):
        regions = _regions(data_set, name)
        label = str(data_set.get("StructureSetLabel", ""))
    if not any(region.contours for region in regions.values()):
        raise UnsupportedFormat("the structure set holds no closed contour", path=name)
    _check_references(regions, reference, limits, name)
    numbers = _values(regions)
    dtype = np.dtype(np.uint8 if max(numbers.values()) < 256 else np.uint16)
    voxels = int(np.prod(reference.shape))
    limits = beside(reference, limits)
    size = header.file_size or 0
    layers: list[Array] = []
    for number, region in regions.items():
        value = numbers[number]
        planes = _draw(region, reference, name)
        for layer in layers:
            if all(_is_free(_plane(layer, at)[mask], value) for at, mask in planes.items()):
                break
        else:
            wanted = (len(layers) + 1) * voxels * dtype.itemsize + 6 * voxels
            limits.check(wanted, size, what=f"{len(layers) + 1} layers of regions", path=name)
            layer = np.zeros(reference.shape, dtype)
            layers.append(layer)
        for at, mask in planes.items():
            _plane(layer, at)[mask] = value
    return LabelMap(
        np.stack(layers),
        reference.affine,
        modality="RTSTRUCT",
        calibrated=reference.calibrated,
        source=Source(
            (name,),
            "rtstruct",
            metadata={
                "label": label,
                "referenced_series": list(header.referenced_series or ()),
                "skipped": {
                    region.name: region.skipped for region in regions.values() if region.skipped
                },
            },
        ),
        names={numbers[number]: region.name for number, region in regions.items()},
    )


def _regions(data_set: Dataset, path: str) -> dict[int, _Region]:
    """Return ROI number -> region."""
    regions: dict[int, _Region] = {}
    for item in data_set.get("StructureSetROISequence") or []:
        number = int(item.get("ROINumber", -1))
        if number in regions:
            raise CorruptFile(f"ROI number {number} is repeated", path=path)
        regions[number] = _Region(str(item.get("ROIName", "") or f"ROI {number}"))
    for item in data_set.get("ROIContourSequence") or []:
        number = int(item.get("ReferencedROINumber", -1))
        if number not in regions:
            raise CorruptFile(f"contours belong to ROI {number}, which is not described", path=path)
        region = regions[number]
        for contour in item.get("ContourSequence") or []:
            if contour.get("ContourGeometricType") not in _CLOSED:
                region.skipped += 1
                continue
            points = _points(contour, region.name, path)
            if len(points) < 3:
                region.skipped += 1
                continue
            region.contours.append(points)
            for image in contour.get("ContourImageSequence") or []:
                region.references.add(str(image.get("ReferencedSOPInstanceUID", "")))
    return regions


def _points(contour: Dataset, name: str, path: str) -> Array:
    raw = contour.get_item(_CONTOUR_DATA)
    value: Any = raw.value if raw is not None else []
    try:
        # Straight from the bytes: pydicom would make an object of each of a million numbers.
        numbers = value.split(b"\\") if isinstance(value, bytes) else list(value or [])
        points = np.array([float(number) for number in numbers]).reshape(-1, 3)
    except (ValueError, TypeError) as error:
        raise CorruptFile(
            f"a contour of region '{name}' is no list of points", path=path
        ) from error
    if not (np.abs(points) < _FARTHEST_MM).all():  # NaN too
        raise CorruptFile(
            f"a contour of region '{name}' has points at no place in a patient", path=path
        )
    return points


def _check_references(
    regions: dict[int, _Region], reference: Volume, limits: Limits, path: str
) -> None:
    """Refuse contours drawn on images that the reference was not made of."""
    source = reference.source
    if source.format != "dicom" or not all(os.path.isfile(file) for file in source.files):
        return
    present = {_instance(file, limits) for file in source.files}
    for region in regions.values():
        absent = region.references - present
        if absent:
            raise GeometryError(
                f"region '{region.name}' is drawn on {len(absent)} image(s) that the reference "
                f"does not contain ({len(present)} image(s)); hand over the whole series that was "
                "contoured",
                path=path,
                kind="absent-reference",
                absent=len(absent),
                present=len(present),
            )


def _instance(file: str, limits: Limits) -> str:
    """Return a file's instance UID; some anonymizers leave it in the meta information alone."""
    from pydicom.filereader import read_file_meta_info

    stated = read_header(file, limits=limits).sop_instance
    return stated or str(read_file_meta_info(file).get("MediaStorageSOPInstanceUID", ""))


def _values(regions: dict[int, _Region]) -> dict[int, int]:
    if all(1 <= number <= 65535 for number in regions):
        return {number: number for number in regions}
    return {number: n for n, number in enumerate(regions, 1)}


def _draw(region: _Region, reference: Volume, path: str) -> dict[tuple[int, int], Array]:
    """Return the region's masks, by axis and index of the planes that its contours lie in."""
    to_index = np.linalg.inv(reference.affine) @ LPS_TO_RAS
    planes: dict[tuple[int, int], list[Array]] = {}
    for points in region.contours:
        index = points @ to_index[:3, :3].T + to_index[:3, 3]
        axis = int(np.ptp(index, axis=0).argmin())
        k = round(float(index[:, axis].mean()))
        off = float(np.abs(index[:, axis] - k).max())
        if off > _OFF_PLANE or not 0 <= k < reference.shape[axis]:
            raise GeometryError(
                f"a contour of region '{region.name}' lies at {index[:, axis].mean():.2f} along "
                f"axis {'ijk'[axis]}, on none of the reference's {reference.shape[axis]} slices",
                path=path,
                kind="contour-off-slice",
                index=float(index[:, axis].mean()),
                slices=reference.shape[axis],
            )
        planes.setdefault((axis, k), []).append(np.delete(index, axis, axis=1))
    return {
        (axis, k): fill(contours, tuple(np.delete(reference.shape, axis)))
        for (axis, k), contours in planes.items()
    }


def _plane(layer: Array, at: tuple[int, int]) -> Array:
    """Return a view of one plane of a layer; `at` is its axis and its index."""
    axis, k = at
    return layer[(slice(None),) * axis + (k,)]


def _is_free(values: Array, number: int) -> bool:
    return not bool(((values != 0) & (values != number)).any())
