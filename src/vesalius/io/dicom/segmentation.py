# SPDX-License-Identifier: Apache-2.0
"""DICOM Segmentation to LabelMap: BINARY, FRACTIONAL and LABELMAP (PS3.3 section A.51, C.8.20).

Values are segment numbers. Segments share a layer as long as they do not overlap. Frames that
were omitted because they hold nothing become background, between the outermost frames or over the
whole reference grid.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vesalius.errors import CorruptFile, GeometryError
from vesalius.io.dicom.dataset import DEFLATED
from vesalius.io.dicom.frame_grid import FrameGrid, frame_grid, signed_permutation
from vesalius.io.dicom.header import Header
from vesalius.io.dicom.multiframe import slices_of
from vesalius.io.dicom.objects import beside, parsing, read_object, refuse_tiles, require_class
from vesalius.io.dicom.pixels import decode
from vesalius.io.limits import DEFAULT_LIMITS, Limits
from vesalius.types import Array, PathLike
from vesalius.volume import LabelMap, Source, Volume

if TYPE_CHECKING:
    from pydicom import Dataset

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
LABELMAP_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.7"
_CLASSES = {
    SEGMENTATION: "Segmentation Storage",
    LABELMAP_SEGMENTATION: "Label Map Segmentation Storage",
}
_CHUNK = 32 << 20  # bytes of frames decoded at once


def read_segmentation(
    path: PathLike,
    *,
    reference: Volume | None = None,
    threshold: float = 0.5,
    limits: Limits = DEFAULT_LIMITS,
) -> LabelMap:
    """Read a DICOM Segmentation.

    Args:
        path: the file.
        reference: the image that was segmented; the result then lies on its grid. Without it the
            grid reaches from the first to the last frame present.
        threshold: FRACTIONAL alone: the fraction from which on a voxel belongs to a segment.
        limits: how much memory it may take.

    Returns:
        A label map `(layer, i, j, k)`; `names` are the segment labels, and
        `source.metadata["segments"]` holds each segment's codes, `["segmentation_type"]` the type.

    Raises:
        UnsupportedFormat: no segmentation, or one of slide tiles.
        GeometryError: frames on no regular grid, or off the reference's grid.
        CorruptFile, LimitExceeded: see `pixels.decode`.
    """
    name = os.fspath(path)
    header, data_set = read_object(path, limits=limits)
    require_class(header, _CLASSES, path=name)
    refuse_tiles(header, path=name)
    limits = beside(reference, limits)
    slices = slices_of(path, header, limits=limits)
    with parsing(name):
        kind = str(data_set.get("SegmentationType", "")).upper()
        if kind not in ("BINARY", "FRACTIONAL", "LABELMAP"):
            raise CorruptFile(
                f"SegmentationType must be BINARY, FRACTIONAL or LABELMAP, got {kind!r}", path=name
            )
        segments = _segments(data_set, name)
        numbers = None if kind == "LABELMAP" else _numbers(data_set, len(slices), segments, name)
        padding = int(data_set.get("PixelPaddingValue") or 0)
        full = float(data_set.get("MaximumFractionalValue") or 255)
    grid = frame_grid(slices, header, path=name, reference=reference)
    highest = (
        max(segments, default=0) if kind != "LABELMAP" else (1 << (header.bits_stored or 8)) - 1
    )
    dtype = np.dtype(np.uint8 if highest < 256 else np.uint16 if highest < 65536 else np.uint32)
    voxels = int(np.prod(grid.shape))
    limits.check(
        2 * voxels * dtype.itemsize + _CHUNK,
        header.file_size or 0,
        what=f"a label map of {' x '.join(f'{n:,}' for n in grid.shape)} voxels",
        path=name,
    )
    frames = _frames(path, header, limits)
    if numbers is None:
        data = _label_frames(frames, grid, padding, dtype)
    else:
        cut = max(1.0, threshold * full) if kind == "FRACTIONAL" else 1.0
        data = _binary_frames(frames, grid, numbers, cut, dtype, header, limits, name)
    segments.pop(0, None)  # a LABELMAP may describe its background
    label_map = LabelMap(
        data,
        grid.affine,
        modality="SEG",
        calibrated=grid.calibrated,
        source=Source(
            (name,),
            "dicom-seg",
            metadata={
                "segmentation_type": kind,
                "segments": segments,
                "referenced_series": list(header.referenced_series or ()),
            },
        ),
        names={number: str(segment["label"]) for number, segment in segments.items()},
    )
    return label_map if reference is None else on_reference(label_map, reference, path=name)


def on_reference(label_map: LabelMap, reference: Volume, *, path: str = "") -> LabelMap:
    """Return a label map placed on the grid of `reference`, voxel for voxel, no interpolation.

    Raises `GeometryError` where the grids are not the same up to order, direction and extent, or
    where a labeled voxel lies outside the reference.
    """
    if not label_map.calibrated and label_map.shape == reference.shape:
        return replace(label_map, affine=reference.affine, calibrated=reference.calibrated)
    found = signed_permutation(np.linalg.inv(reference.affine) @ label_map.affine)
    if found is None:
        raise GeometryError(
            "the label map does not lie on the grid of the reference; resample it with "
            "geometry.resample, or hand over the image that was labeled",
            path=path,
            spacing=list(label_map.spacing),
            reference_spacing=list(reference.spacing),
        )
    axes, signs, offset = found
    out = np.zeros((len(label_map.data), *reference.shape), label_map.data.dtype)
    inverse = np.argsort(axes)
    moved = label_map.data.transpose(0, *(1 + inverse))  # now along the reference's axes
    target: list[slice] = [slice(None)]
    source: list[slice] = [slice(None)]
    for axis in range(3):
        n = int(inverse[axis])
        count, total = label_map.shape[n], reference.shape[axis]
        low = int(offset[axis]) if signs[n] > 0 else int(offset[axis]) - count + 1
        if signs[n] < 0:
            moved = np.flip(moved, axis + 1)
        begin, end = max(low, 0), min(low + count, total)
        target.append(slice(begin, max(begin, end)))
        source.append(slice(begin - low, max(begin, end) - low))
    kept = moved[tuple(source)]
    if np.count_nonzero(kept) != np.count_nonzero(moved):
        raise GeometryError(
            "labeled voxels lie outside the reference; hand over the image that was labeled",
            path=path,
            outside=int(np.count_nonzero(moved) - np.count_nonzero(kept)),
        )
    out[tuple(target)] = kept
    return replace(label_map, data=out, affine=reference.affine)


def _segments(data_set: Dataset, path: str) -> dict[int, dict[str, Any]]:
    segments: dict[int, dict[str, Any]] = {}
    for item in data_set.get("SegmentSequence", []):
        number = item.get("SegmentNumber")
        if number is None or int(number) in segments or not 0 <= int(number) <= 65535:
            raise CorruptFile("segment numbers are missing, repeated or out of range", path=path)
        segments[int(number)] = {
            "label": str(item.get("SegmentLabel", "") or f"segment {number}"),
            "category": _code(item, "SegmentedPropertyCategoryCodeSequence"),
            "type": _code(item, "SegmentedPropertyTypeCodeSequence"),
            "anatomy": _code(item, "AnatomicRegionSequence"),
            "algorithm_type": str(item.get("SegmentAlgorithmType", "")),
            "algorithm": str(item.get("SegmentAlgorithmName", "")),
            "tracking_id": str(item.get("TrackingID", "")),
        }
    if not segments:
        raise CorruptFile("the segmentation describes no segment", path=path)
    return segments


def _code(item: Dataset, keyword: str) -> list[str] | None:
    """Return `[value, scheme, meaning]` of the first code of a sequence."""
    for code in item.get(keyword) or []:
        value = code.get("CodeValue") or code.get("LongCodeValue") or code.get("URNCodeValue", "")
        return [
            str(value),
            str(code.get("CodingSchemeDesignator", "")),
            str(code.get("CodeMeaning", "")),
        ]
    return None


def _numbers(
    data_set: Dataset, count: int, segments: dict[int, dict[str, Any]], path: str
) -> list[int]:
    """Return the segment number of each frame, from its own or the shared functional groups."""
    shared = data_set.get("SharedFunctionalGroupsSequence") or []
    common = _identified(shared[0]) if shared else None
    frames = data_set.get("PerFrameFunctionalGroupsSequence") or []
    numbers = [_identified(frame) or common for frame in frames]
    if len(numbers) != count or None in numbers:
        raise CorruptFile("frames do not name their segment", path=path)
    known = [int(number or 0) for number in numbers]
    unknown = sorted(set(known) - set(segments))
    if unknown:
        raise CorruptFile(f"frames name segments {unknown[:5]} that are not described", path=path)
    return known


def _identified(groups: Dataset) -> int | None:
    for item in groups.get("SegmentIdentificationSequence") or []:
        number = item.get("ReferencedSegmentNumber")
        return None if number is None else int(number)
    return None


def _frames(path: PathLike, header: Header, limits: Limits) -> Iterator[Array]:
    """Yield frames `(rows, columns)`, a bounded number decoded at once."""
    count = header.frames or 1
    size = max(
        1, (header.rows or 1) * (header.columns or 1) * max(1, (header.bits_allocated or 8) // 8)
    )
    together = count if header.transfer_syntax in DEFLATED else max(1, _CHUNK // size)
    for start in range(0, count, together):
        chunk = range(start, min(start + together, count))
        wanted = None if len(chunk) == count else chunk
        yield from decode(path, header, limits=limits, frames=wanted)[..., 0]


def _label_frames(
    frames: Iterator[Array], grid: FrameGrid, padding: int, dtype: np.dtype[Any]
) -> Array:
    data = np.zeros((1, *grid.shape), dtype)
    for k, frame in zip(grid.index, frames, strict=True):
        if padding:
            frame = np.where(frame == padding, 0, frame)
        np.copyto(data[0, :, :, k], frame.T, where=frame.T != 0, casting="same_kind")
    return data


def _binary_frames(
    frames: Iterator[Array],
    grid: FrameGrid,
    numbers: list[int],
    cut: float,
    dtype: np.dtype[Any],
    header: Header,
    limits: Limits,
    path: str,
) -> Array:
    """Draw each segment into the first layer in which it meets no other segment.

    Frames of a segment may be drawn into a layer before an overlap shows; then the segment moves
    to a layer of its own further up, with all that was drawn.
    """
    layers: list[Array] = [np.zeros(grid.shape, dtype)]
    layer_of: dict[int, int] = {}
    for k, number, frame in zip(grid.index, numbers, frames, strict=True):
        mask = (frame >= cut).T
        if not mask.any():
            continue
        here = layer_of.setdefault(number, 0)
        if _is_free(layers[here][:, :, k], mask, number):
            layers[here][:, :, k][mask] = number
            continue
        drawn = layers[here] == number
        drawn[:, :, k] |= mask
        layers[here][layers[here] == number] = 0
        for target in range(here + 1, len(layers) + 1):
            if target == len(layers):
                limits.check(
                    (target + 2) * int(np.prod(grid.shape)) * dtype.itemsize + _CHUNK,
                    header.file_size or 0,
                    what=f"{target + 1} layers of overlapping segments",
                    path=path,
                )
                layers.append(np.zeros(grid.shape, dtype))
            if not layers[target][drawn].any():
                layers[target][drawn] = number
                layer_of[number] = target
                break
    return np.stack(layers) if len(layers) > 1 else layers[0][None]


def _is_free(plane: Array, mask: Array, number: int) -> bool:
    there = plane[mask]
    return not bool(((there != 0) & (there != number)).any())
