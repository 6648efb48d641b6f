# SPDX-License-Identifier: Apache-2.0
"""The frames of a source series, each tied to the slice of a label map that lies on it.

A derived object (segmentation, structure set) refers to its source frame by frame. A label map
that does not lie on the source's grid is refused, never resampled in silence.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vesalius.errors import GeometryError, UsageError
from vesalius.geometry import LPS_TO_RAS
from vesalius.io.dicom.frame_grid import signed_permutation
from vesalius.io.dicom.header import read_header
from vesalius.io.dicom.multiframe import slices_of
from vesalius.io.dicom.placement import normal_of
from vesalius.io.dicom.slices import Slice
from vesalius.io.limits import DEFAULT_LIMITS, Limits
from vesalius.types import Affine, Array, PathLike
from vesalius.volume import LabelMap

if TYPE_CHECKING:
    from pydicom import Dataset

_OFF_GRID = 0.05  # of a pixel or step
_ROUNDING_MM = 0.02
# Type 2 attributes that derived objects copy: empty where the source leaves them out.
_COPIED = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
    "StudyDate", "StudyTime", "ReferringPhysicianName",
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class SourcePlanes:
    """A label map seen from its source.

    Attributes:
        data: `(layer, column, row, k)`, the label map's values turned along the source's axes.
        slices: the source's frames, in the order of the files.
        index: for each frame its k in `data`.
        datasets: one pydicom data set per file, pixel data left out, identifiers and type 2
            attributes filled.
        is_placed: whether the source states positions.
        step: mm from slice to slice of `data`, along the source's normal.
    """

    data: Array
    slices: tuple[Slice, ...]
    index: tuple[int, ...]
    datasets: tuple[Dataset, ...]
    is_placed: bool
    step: float


def source_planes(
    label_map: LabelMap, source_files: Sequence[PathLike], *, limits: Limits = DEFAULT_LIMITS
) -> SourcePlanes:
    """Tie a label map to the DICOM files of the image that was labeled.

    Raises:
        UsageError: no files, or files of several series.
        GeometryError: the label map is off the source's grid, or labels lie where no source
            frame is.
    """
    from pydicom import dcmread

    files = [os.fspath(file) for file in source_files]
    if not files:
        raise UsageError("source_files must name the DICOM files of the labeled image, got none")
    headers = [(file, read_header(file, limits=limits)) for file in files]
    if len({header.series_uid for _, header in headers}) != 1:
        raise UsageError("source_files must belong to one series; hand over the files of one")
    slices = [s for file, header in headers for s in slices_of(file, header, limits=limits)]
    data, index, is_placed, step = _tie(label_map, slices)
    uncovered = np.setdiff1d(np.arange(data.shape[3]), index)
    if len(uncovered) and data[..., uncovered].any():
        labeled = [int(k) for k in uncovered if data[..., k].any()]
        raise GeometryError(
            f"{len(labeled)} labeled slices have no source image (k = {labeled[:8]} along the "
            "source's normal); hand over all files of the series, or set these slices to 0",
            slices=labeled[:64],
        )
    datasets = [dcmread(file, stop_before_pixels=True) for file in files]
    for file, dataset in zip(files, datasets, strict=True):
        for keyword in _COPIED:
            if keyword not in dataset:
                setattr(dataset, keyword, "")
        if is_placed and not dataset.get("SliceThickness"):
            dataset.SliceThickness = f"{step:.9g}"
        identify(dataset, file)
    name_study(datasets, is_placed)
    return SourcePlanes(data, tuple(slices), tuple(index), tuple(datasets), is_placed, step)


def slice_affine(s: Slice, step: float) -> Affine:
    """Return `(column, row, normal)` index to RAS+ mm for one slice, `step` mm along its normal."""
    if s.position is None or s.orientation is None:
        raise GeometryError("a source frame states no position", path=s.path)
    spacing = s.pixel_spacing or (1.0, 1.0)
    affine = np.eye(4)
    affine[:3, 0] = np.multiply(s.orientation[:3], spacing[1])
    affine[:3, 1] = np.multiply(s.orientation[3:], spacing[0])
    affine[:3, 2] = normal_of(s.orientation) * step
    affine[:3, 3] = s.position
    return np.asarray(LPS_TO_RAS @ affine, np.float64)


def identify(dataset: Dataset, path: str) -> None:
    """Fill identifiers that anonymizers blank in the data set and leave in the meta information."""
    meta = dataset.file_meta
    for keyword, twin in (
        ("SOPClassUID", "MediaStorageSOPClassUID"),
        ("SOPInstanceUID", "MediaStorageSOPInstanceUID"),
    ):
        if not dataset.get(keyword):
            if not meta.get(twin):
                raise UsageError(
                    f"{path}: the source has no {keyword}, so nothing can refer to it; use files "
                    "that kept (or were given new) instance UIDs"
                )
            setattr(dataset, keyword, meta.get(twin))


def name_study(datasets: Sequence[Dataset], is_placed: bool) -> None:
    """Give a source without study, series or frame of reference UID one made of its instances'."""
    from pydicom.uid import generate_uid

    instances = sorted(str(dataset.SOPInstanceUID) for dataset in datasets)
    frame = ("FrameOfReferenceUID",) if is_placed else ()
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", *frame):
        for dataset in datasets:
            if not dataset.get(keyword):
                setattr(dataset, keyword, generate_uid(entropy_srcs=[keyword, *instances]))


def _tie(label_map: LabelMap, slices: list[Slice]) -> tuple[Array, list[int], bool, float]:
    first = slices[0]
    rows, columns = first.header.rows, first.header.columns
    if first.position is None or first.orientation is None:
        if len(slices) != 1 or label_map.shape != (columns, rows, 1):
            raise GeometryError(
                f"the source states no positions: it must be one frame of {columns} x {rows} "
                f"pixels like the label map, got {len(slices)} frame(s) and a label map of "
                f"{label_map.shape}"
            )
        return label_map.data, [0], False, label_map.spacing[2]
    normal = LPS_TO_RAS[:3, :3] @ normal_of(first.orientation)
    directions = label_map.affine[:3, :3] / np.asarray(label_map.spacing)
    step = label_map.spacing[int(np.abs(normal @ directions).argmax())]
    plane = slice_affine(first, step)
    found = signed_permutation(np.linalg.inv(label_map.affine) @ plane)
    if found is None:
        raise _off_grid(label_map, first)
    axes, signs, offset = found
    data = label_map.data.transpose(0, *(1 + axes))
    start = []
    for n in range(3):
        at, size = int(offset[axes[n]]), label_map.shape[axes[n]]
        if signs[n] < 0:
            data, at = np.flip(data, n + 1), size - 1 - at
        start.append(at)
    if start[:2] != [0, 0] or data.shape[1:3] != (columns, rows):
        raise _off_grid(label_map, first)
    inverse = np.linalg.inv(plane)
    index = []
    for s in slices:
        relative = inverse @ slice_affine(s, step)
        shift = relative[:3, 3]
        k = round(float(shift[2])) + start[2]
        off = np.abs(shift - [0, 0, k - start[2]]) * [*reversed(s.pixel_spacing or (1, 1)), step]
        turned = np.abs(relative[:3, :3] - np.eye(3)).max()
        same_size = (s.header.rows, s.header.columns) == (rows, columns)
        allowed = max(_OFF_GRID * min(label_map.spacing), _ROUNDING_MM)
        if off.max() > allowed or turned > 1e-3 or not same_size or not 0 <= k < data.shape[3]:
            raise _off_grid(label_map, s)
        index.append(k)
    return data, index, True, step


def _off_grid(label_map: LabelMap, s: Slice) -> GeometryError:
    return GeometryError(
        f"the label map ({label_map.shape}, spacing {label_map.spacing}) does not lie on the "
        "grid of the source; resample it onto the image that was labeled (geometry.resample "
        "with its affine and shape)",
        path=s.path,
        frame=s.frame,
    )
