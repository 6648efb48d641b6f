# SPDX-License-Identifier: Apache-2.0
"""LabelMap to DICOM Segmentation, with references to its source, read back before it counts."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vesalius.errors import CorruptFile, UsageError
from vesalius.files import write_atomically
from vesalius.io.dicom.segment_codes import codes_for
from vesalius.io.dicom.segmentation import read_segmentation
from vesalius.io.dicom.source_planes import SourcePlanes, source_planes
from vesalius.io.limits import DEFAULT_LIMITS, Limits
from vesalius.types import Array, PathLike
from vesalius.volume import LabelMap

if TYPE_CHECKING:
    from pydicom import Dataset

_DEFLATED = "1.2.840.10008.1.2.1.99"
_EXPLICIT = "1.2.840.10008.1.2.1"
_RLE = "1.2.840.10008.1.2.5"


def write_segmentation(
    label_map: LabelMap,
    path: PathLike,
    *,
    source_files: Sequence[PathLike],
    kind: Literal["BINARY", "LABELMAP"] = "BINARY",
    compressed: bool = True,
    algorithm: str = "Vesalius",
    version: str = "",
    series_description: str = "",
    series_number: int = 300,
    limits: Limits = DEFAULT_LIMITS,
) -> Path:
    """Write a label map as a DICOM Segmentation that refers to its source images.

    Args:
        label_map: on the source's grid, in any order and direction of axes.
        path: the file to write, atomically and durably.
        source_files: all DICOM files of the image that was labeled, in any order.
        kind: `BINARY` (one bit plane per segment; every viewer) or `LABELMAP` (Supplement 243;
            small; no overlaps). BINARY numbers segments 1, 2, … in the order of the values;
            LABELMAP keeps the values.
        compressed: BINARY as a deflated data set, LABELMAP as RLE frames.
        algorithm, version: what made the label map.
        series_description, series_number: of the new series.
        limits: for reading the sources and the result.

    Returns:
        The path. The file was read back and holds the same voxels at the same place.

    Raises:
        GeometryError: the label map is off the source's grid.
        UsageError: nothing is labeled, negative values, or overlaps in LABELMAP.
    """
    if kind not in ("BINARY", "LABELMAP"):
        raise UsageError(f"kind must be 'BINARY' or 'LABELMAP', got {kind!r}")
    values = label_values(label_map)
    if kind == "LABELMAP" and len(label_map.data) > 1:
        raise UsageError(
            "a LABELMAP segmentation holds one layer, this label map has "
            f"{len(label_map.data)} (overlaps); use kind='BINARY'"
        )
    planes = source_planes(label_map, source_files, limits=limits)
    numbers = {value: value if kind == "LABELMAP" else n for n, value in enumerate(values, 1)}
    data_set = _build(
        planes,
        numbers,
        label_map,
        kind,
        algorithm,
        version,
        series_description,
        series_number,
    )
    if compressed and kind == "BINARY":
        data_set.file_meta.TransferSyntaxUID = _DEFLATED
    elif compressed:
        _run_length_encode(data_set)

    def save(stream: Any) -> None:
        from pydicom import dcmwrite

        dcmwrite(stream, data_set, enforce_file_format=True)

    target = write_atomically(path, save)
    try:
        _check(target, label_map, numbers, limits)
    except BaseException:
        target.unlink()
        raise
    return target


def label_values(label_map: LabelMap) -> list[int]:
    """Return the values that become segments or regions: those present and those named."""
    if label_map.data.dtype.kind == "b":
        present = {1} if label_map.data.any() else set()
    else:
        if label_map.data.dtype.kind == "i" and label_map.data.min(initial=0) < 0:
            raise UsageError("labels must not be negative")
        if label_map.data.max(initial=0) > 65535:
            raise UsageError(f"labels must be at most 65535, got {int(label_map.data.max())}")
        bins = np.bincount(label_map.data.ravel()) if label_map.data.size else np.zeros(1)
        present = {int(value) for value in np.flatnonzero(bins)} - {0}
    values = sorted(present | {int(value) for value in label_map.names if value > 0})
    if not values:
        raise UsageError("the label map names and holds no structure; there is nothing to write")
    return values


def _build(
    planes: SourcePlanes,
    numbers: Mapping[int, int],
    label_map: LabelMap,
    kind: str,
    algorithm: str,
    version: str,
    series_description: str,
    series_number: int,
) -> Dataset:
    import highdicom as hd

    version = version or _version()
    segments = label_map.source.metadata.get("segments", {})
    known: Mapping[Any, Any] = segments if isinstance(segments, Mapping) else {}
    identification = hd.AlgorithmIdentificationSequence(
        name=algorithm[:64],
        version=version,
        family=hd.sr.CodedConcept("123109", "DCM", "Artificial Intelligence"),
    )
    descriptions = []
    for value, number in numbers.items():
        name = label_map.names.get(value, f"label {value}")
        category, kind_code = codes_for(name)
        stated = known.get(value) or {}
        descriptions.append(
            hd.seg.SegmentDescription(
                segment_number=number,
                segment_label=name[:64],
                segmented_property_category=hd.sr.CodedConcept(
                    *(stated.get("category") or category)
                ),
                segmented_property_type=hd.sr.CodedConcept(*(stated.get("type") or kind_code)),
                algorithm_type="AUTOMATIC",
                algorithm_identification=identification,
                tracking_uid=hd.UID(),
                tracking_id=name[:64],
            )
        )
    with warnings.catch_warnings():
        # The source's own values (a long name, an odd date) are copied as they are.
        warnings.simplefilter("ignore")
        data_set = hd.seg.Segmentation(
            source_images=list(planes.datasets),
            pixel_array=_frames(planes, numbers),
            segmentation_type=kind,
            segment_descriptions=descriptions,
            series_instance_uid=hd.UID(),
            series_number=series_number,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer="Vesalius",
            manufacturer_model_name=algorithm[:64],
            software_versions=version,
            device_serial_number="none",
            content_label="SEGMENTATION",
            content_creator_name="Vesalius",
            series_description=series_description or f"Segmentation by {algorithm}"[:64],
            transfer_syntax_uid=_EXPLICIT,
        )
    if planes.is_placed and len(planes.slices) == 1:  # highdicom writes 1 mm where it knows none
        measures = data_set.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        measures.SpacingBetweenSlices = f"{planes.step:.9g}"
    result: Dataset = data_set
    return result


def _frames(planes: SourcePlanes, numbers: Mapping[int, int]) -> Array:
    """Return segment numbers `(frame, row, column)`, or masks `(…, segment)` of several layers."""
    layers = planes.data[..., list(planes.index)]  # (layer, column, row, frame)
    highest = max(numbers.values())
    table = np.zeros(max(numbers) + 1, np.uint8 if highest < 256 else np.uint16)
    for value, number in numbers.items():
        table[value] = number
    if len(layers) == 1:
        numbered: Array = np.take(table, layers[0].transpose(2, 1, 0))
        return numbered
    masks: Array = np.zeros((*layers.shape[:0:-1], len(numbers)), np.uint8)  # (F, R, C, S)
    for layer in layers:
        for value, number in numbers.items():
            masks[..., number - 1] |= (layer == value).transpose(2, 1, 0)
    return masks


def _run_length_encode(data_set: Dataset) -> None:
    """Turn native frames into RLE frames.

    pydicom would hand them to GDCM where that is installed, which aborts the process on frames of
    an odd number of pixels; pylibjpeg-rle does not.
    """
    import rle
    from pydicom.encaps import encapsulate

    size = data_set.Rows * data_set.Columns * data_set.BitsAllocated // 8
    pixels = data_set.PixelData
    frames = [
        rle.encode_pixel_data(
            pixels[n * size : (n + 1) * size],
            rows=data_set.Rows,
            columns=data_set.Columns,
            samples_per_pixel=1,
            bits_allocated=data_set.BitsAllocated,
            byteorder="<",
        )
        for n in range(int(data_set.NumberOfFrames))
    ]
    data_set.PixelData = encapsulate(frames)
    data_set["PixelData"].VR = "OB"
    data_set["PixelData"].is_undefined_length = True
    data_set.file_meta.TransferSyntaxUID = _RLE


def _check(path: Path, wanted: LabelMap, numbers: Mapping[int, int], limits: Limits) -> None:
    """Read the file back onto the label map's own grid and compare voxel for voxel."""
    found = read_segmentation(path, reference=wanted, limits=limits)
    for value, number in numbers.items():
        if not np.array_equal((found.data == number).any(0), (wanted.data == value).any(0)):
            raise CorruptFile(
                f"the segmentation just written does not hold label {value} as it was; it was "
                "removed",
                path=str(path),
                value=value,
            )


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("vesalius")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "unknown"
