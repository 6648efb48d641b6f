# SPDX-License-Identifier: Apache-2.0
"""LabelMap to RT Structure Set, contour by contour, with references to its source images."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vesalius.errors import GeometryError, UsageError
from vesalius.files import write_atomically
from vesalius.geometry import LPS_TO_RAS
from vesalius.io.dicom.contours import outlines
from vesalius.io.dicom.rtstruct import STRUCTURE_SET
from vesalius.io.dicom.segmentation_writer import label_values
from vesalius.io.dicom.source_planes import SourcePlanes, slice_affine, source_planes
from vesalius.io.limits import DEFAULT_LIMITS, Limits
from vesalius.types import Array, PathLike
from vesalius.volume import LabelMap

if TYPE_CHECKING:
    from pydicom import Dataset

_EXPLICIT = "1.2.840.10008.1.2.1"
_COLORS = (
    (230, 25, 75), (60, 180, 75), (255, 225, 25), (0, 130, 200), (245, 130, 48), (145, 30, 180),
    (70, 240, 240), (240, 50, 230), (210, 245, 60), (250, 190, 212), (0, 128, 128), (170, 110, 40),
)  # fmt: skip


def write_rtstruct(
    label_map: LabelMap,
    path: PathLike,
    *,
    source_files: Sequence[PathLike],
    label: str = "Vesalius",
    series_description: str = "",
    series_number: int = 301,
    limits: Limits = DEFAULT_LIMITS,
) -> Path:
    """Write a label map as an RT Structure Set; returns the path.

    Contours pass half way between voxel centers, in the planes of the source images; holes are
    joined to the outer contour by keyholes. `read_rtstruct` gives the same voxels back.

    Args:
        label_map: on the source's grid, in any order and direction of axes.
        path: the file to write, atomically and durably.
        source_files: all DICOM files of the image that was labeled, in any order.
        label: StructureSetLabel, at most 16 characters.
        series_description, series_number: of the new series.
        limits: for reading the sources.

    Raises:
        GeometryError: the label map is off the source's grid, or the source states no positions.
        UsageError: nothing is labeled.
    """
    values = label_values(label_map)
    if len(label) > 16:
        raise UsageError(f"label must have at most 16 characters, got {len(label)}")
    planes = source_planes(label_map, source_files, limits=limits)
    if not planes.is_placed:
        raise GeometryError("a structure set needs source images that state their position")
    data_set = _frame_of(planes, label, series_description, series_number)
    _add_regions(data_set, planes, label_map, values)

    def save(stream: Any) -> None:
        from pydicom import dcmwrite

        dcmwrite(stream, data_set, enforce_file_format=True)

    return write_atomically(path, save)


def _frame_of(
    planes: SourcePlanes, label: str, series_description: str, series_number: int
) -> Dataset:
    """Return the structure set without its regions."""
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import generate_uid

    source = planes.datasets[0]
    now = datetime.datetime.now(tz=datetime.UTC)
    data_set = Dataset()
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = _EXPLICIT
    data_set.SpecificCharacterSet = source.get("SpecificCharacterSet", "ISO_IR 192")
    data_set.SOPClassUID = STRUCTURE_SET
    data_set.SOPInstanceUID = generate_uid()
    data_set.file_meta.MediaStorageSOPClassUID = STRUCTURE_SET
    data_set.file_meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
    for keyword in (
        "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "PatientName",
        "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID",
    ):  # fmt: skip
        setattr(data_set, keyword, source.get(keyword, ""))
    data_set.Modality = "RTSTRUCT"
    data_set.Manufacturer = "Vesalius"
    data_set.OperatorsName = ""
    data_set.SeriesInstanceUID = generate_uid()
    data_set.SeriesNumber = series_number
    data_set.SeriesDescription = series_description or "Structure set by Vesalius"
    data_set.InstanceCreationDate = data_set.StructureSetDate = now.strftime("%Y%m%d")
    data_set.InstanceCreationTime = data_set.StructureSetTime = now.strftime("%H%M%S")
    data_set.StructureSetLabel = label
    data_set.FrameOfReferenceUID = source.FrameOfReferenceUID
    data_set.PositionReferenceIndicator = ""
    series = Dataset()
    series.SeriesInstanceUID = source.SeriesInstanceUID
    series.ContourImageSequence = [_image(image) for image in planes.datasets]
    study = Dataset()
    study.ReferencedSOPClassUID = "1.2.840.10008.3.1.2.3.1"  # retired, required all the same
    study.ReferencedSOPInstanceUID = source.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame = Dataset()
    frame.FrameOfReferenceUID = data_set.FrameOfReferenceUID
    frame.RTReferencedStudySequence = [study]
    data_set.ReferencedFrameOfReferenceSequence = [frame]
    data_set.ApprovalStatus = "UNAPPROVED"
    return data_set


def _image(source: Dataset, frame: int | None = None) -> Dataset:
    from pydicom import Dataset

    item = Dataset()
    item.ReferencedSOPClassUID = source.SOPClassUID
    item.ReferencedSOPInstanceUID = source.SOPInstanceUID
    if frame is not None:
        item.ReferencedFrameNumber = frame
    return item


def _add_regions(
    data_set: Dataset, planes: SourcePlanes, label_map: LabelMap, values: Sequence[int]
) -> None:
    from pydicom import Dataset

    by_path = dict(zip(dict.fromkeys(s.path for s in planes.slices), planes.datasets, strict=True))
    data_set.StructureSetROISequence = []
    data_set.ROIContourSequence = []
    data_set.RTROIObservationsSequence = []
    for n, value in enumerate(values):
        roi = Dataset()
        roi.ROINumber = value
        roi.ReferencedFrameOfReferenceUID = data_set.FrameOfReferenceUID
        roi.ROIName = label_map.names.get(value, f"label {value}")[:64]
        roi.ROIGenerationAlgorithm = "AUTOMATIC"
        data_set.StructureSetROISequence.append(roi)

        contours = Dataset()
        contours.ReferencedROINumber = value
        contours.ROIDisplayColor = list(_COLORS[n % len(_COLORS)])
        contours.ContourSequence = []
        mask = (planes.data == value).any(axis=0)  # (column, row, k)
        labeled = mask.any(axis=(0, 1))
        drawn: set[int] = set()
        for s, k in zip(planes.slices, planes.index, strict=True):
            if k in drawn or not labeled[k]:  # a slice may have several time points
                continue
            drawn.add(k)
            frame = s.frame + 1 if (s.header.frames or 1) > 1 else None
            image = _image(by_path[s.path], frame)
            for outline in outlines(mask[:, :, k]):
                contours.ContourSequence.append(
                    _contour(outline, LPS_TO_RAS @ slice_affine(s, 1.0), image)
                )
        data_set.ROIContourSequence.append(contours)

        observation = Dataset()
        observation.ObservationNumber = n + 1
        observation.ReferencedROINumber = value
        observation.RTROIInterpretedType = ""
        observation.ROIInterpreter = ""
        data_set.RTROIObservationsSequence.append(observation)


def _contour(outline: Array, to_lps: Array, image: Dataset) -> Dataset:
    """Return one contour item; `outline` in pixel indices `(column, row)`."""
    from pydicom import Dataset

    points = outline @ to_lps[:3, :2].T + to_lps[:3, 3]
    item = Dataset()
    item.ContourImageSequence = [image]
    item.ContourGeometricType = "CLOSED_PLANAR"
    item.NumberOfContourPoints = len(points)
    item.ContourData = [_decimal(value) for value in np.ravel(points)]
    return item


def _decimal(value: float) -> str:
    """Return a decimal string of at most 16 characters, to a millionth of a millimeter."""
    text = f"{value:.6f}"
    if len(text) > 16:
        raise GeometryError(f"a coordinate of {value:g} mm does not fit a structure set")
    return text
