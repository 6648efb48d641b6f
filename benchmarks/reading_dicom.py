# SPDX-License-Identifier: Apache-2.0
"""DICOM against pydicom with gdcm's decoders, frame by frame at its place, and against dcm2niix."""

from __future__ import annotations

import io as bytes_io
import os
import shutil
import subprocess
import tempfile
import time
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, convert_color_space
from pydicom.uid import JPEG2000, JPEGLSNearLossless

from vesalius import io
from vesalius.errors import VesaliusError
from vesalius.geometry import reorient
from vesalius.io.formats import is_dicom_file
from vesalius.volume import LabelMap, Volume

_LOSSY = {JPEG2000, JPEGLSNearLossless, *(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 53, 55))}


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as pydicom sees it: values `(rows, columns, samples)` and its plane in RAS mm."""

    values: np.ndarray
    corners: np.ndarray | None  # world of first pixel, last of first row, last of first column
    lossy: bool
    slope: float
    segment: int | None
    label_map: bool


def zip_against_pydicom(path: Path, ours: list[Volume]) -> tuple[str, str]:
    """Compare with every DICOM member of a zip."""
    with zipfile.ZipFile(path) as archive:
        members = [archive.read(n) for n in archive.namelist() if n.endswith(".dcm")]
    return against_pydicom([bytes_io.BytesIO(member) for member in members], ours)


def against_pydicom(sources: list[Any], ours: list[Volume]) -> tuple[str, str]:
    """Look every frame up at its place in our volumes."""
    worst, placed, levels, lossy = 0.0, 0, 0.0, False
    for source in sources:
        for frame in frames(pydicom.dcmread(source, force=True)):
            off = difference(frame, ours)
            if off is None:
                return "different", "a frame has no place in the volumes"
            lossy |= frame.lossy
            if frame.lossy:
                levels = max(levels, off / abs(frame.slope))
            else:
                scale = float(np.abs(frame.values).max(initial=1))
                worst = max(worst, off / scale)
            placed += 1
    if lossy:
        fits = levels <= 2 and worst <= 1e-6
        return ("lossy" if fits else "different"), f"{placed} frames, {levels:.2g} gray levels"
    note = f"{placed} frames, relative {worst:.1g}"
    return ("equal" if placed and worst <= 1e-6 else "different"), note


def frames(data_set: Dataset) -> Iterator[Frame]:
    """Yield a file's frames; gdcm decodes what is compressed."""
    syntax = data_set.file_meta.get("TransferSyntaxUID", pydicom.uid.ImplicitVRLittleEndian)
    data_set.file_meta.TransferSyntaxUID = syntax
    if syntax.is_encapsulated and syntax != pydicom.uid.RLELossless:
        values = by_gdcm(data_set)
    else:
        keys = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
        raw = next(key for key in keys if key in data_set) == "PixelData"
        data_set.pixel_array_options(raw=raw)
        values = data_set.pixel_array
    count = int(data_set.get("NumberOfFrames", 1) or 1)
    samples = int(data_set.SamplesPerPixel)
    values = values.reshape(count, data_set.Rows, data_set.Columns, samples)
    if "YBR" in data_set.PhotometricInterpretation and str(syntax) not in _LOSSY:
        values = convert_color_space(values, data_set.PhotometricInterpretation, "RGB")
    shared = (data_set.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    own = data_set.get("PerFrameFunctionalGroupsSequence") or [Dataset()] * count
    for plane, groups in zip(values, own, strict=True):
        slope, intercept = 1.0, 0.0
        scaling = group(groups, shared, "PixelValueTransformationSequence") or data_set
        if "RescaleSlope" in scaling:
            slope, intercept = float(scaling.RescaleSlope), float(scaling.RescaleIntercept)
        segment = None
        label_map = str(data_set.SOPClassUID).endswith(".66.7")
        if "SegmentSequence" in data_set and not label_map:
            found = group(groups, shared, "SegmentIdentificationSequence")
            segment = int(found.ReferencedSegmentNumber) if found is not None else 1
            maximum = int(data_set.get("MaximumFractionalValue", 1))
            plane = plane >= 0.5 * maximum
        elif data_set.PhotometricInterpretation == "PALETTE COLOR" and not label_map:
            plane = apply_color_lut(plane[..., 0], data_set)
            plane = plane >> 8 if plane.dtype == np.uint16 else plane
        elif data_set.get("PhotometricInterpretation") == "MONOCHROME1" and data_set.get(
            "Modality"
        ) not in ("CT", "MR", "PT"):
            plane = 2 ** int(data_set.BitsStored) - 1 - plane.astype(np.int64)
        if segment is None and (slope, intercept) != (1.0, 0.0):
            plane = plane * slope + intercept
        yield Frame(
            plane,
            corners(data_set, groups, shared),
            str(syntax) in _LOSSY,
            slope,
            segment,
            label_map,
        )


def by_gdcm(data_set: Dataset) -> np.ndarray:
    """Decode with gdcm itself, which takes syntaxes that pydicom does not hand to it."""
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(os.fspath(data_set.filename))
    if not reader.Read():
        raise ValueError(f"gdcm cannot read {data_set.filename}")
    image = reader.GetImage()
    form = image.GetPixelFormat()
    dtype = np.dtype(
        f"{'i' if form.GetPixelRepresentation() else 'u'}{form.GetBitsAllocated() // 8}"
    )
    buffer = image.GetBuffer().encode("utf-8", errors="surrogateescape")
    values = np.frombuffer(buffer, dtype)
    if image.GetPlanarConfiguration():
        values = values.reshape(-1, data_set.SamplesPerPixel, data_set.Rows, data_set.Columns)
        values = np.moveaxis(values, 1, -1)
    return values


def group(groups: Dataset, shared: Dataset, keyword: str) -> Dataset | None:
    found = groups.get(keyword) or shared.get(keyword)
    return found[0] if found else None


def corners(data_set: Dataset, groups: Dataset, shared: Dataset) -> np.ndarray | None:
    """Return three corners of the frame in RAS mm by PS3.3 C.7.6.2.1.1, None without a place."""
    position = group(groups, shared, "PlanePositionSequence") or data_set
    orientation = group(groups, shared, "PlaneOrientationSequence") or data_set
    measures = group(groups, shared, "PixelMeasuresSequence") or data_set
    if "ImagePositionPatient" not in position or "ImageOrientationPatient" not in orientation:
        return None
    if "PixelSpacing" not in measures:
        return None
    origin = np.array(position.ImagePositionPatient, float)
    along = np.array(orientation.ImageOrientationPatient, float)
    between_rows, between_columns = (float(v) for v in measures.PixelSpacing)
    row_end = origin + along[:3] * between_columns * (data_set.Columns - 1)
    column_end = origin + along[3:] * between_rows * (data_set.Rows - 1)
    return np.array([origin, row_end, column_end]) * [-1, -1, 1]


def difference(frame: Frame, ours: list[Volume]) -> float | None:
    """Return the largest difference at the frame's place, over the best of the volumes there."""
    best: float | None = None
    for volume in ours:
        for k in places(frame, volume):
            planes = volume.data[:, :, :, k].transpose(0, 2, 1)  # (channel, rows, columns)
            for off in differences(frame, planes, isinstance(volume, LabelMap)):
                best = off if best is None else min(best, off)
    return best


def places(frame: Frame, volume: Volume) -> list[int]:
    rows, columns = frame.values.shape[:2]
    if volume.shape[:2] != (columns, rows):
        return []
    if frame.corners is None:
        return list(range(volume.shape[2]))
    index = np.linalg.inv(volume.affine) @ np.vstack([frame.corners.T, np.ones(3)])
    k = round(float(index[2, 0]))
    expected = np.array([[0, columns - 1, 0], [0, 0, rows - 1], [k, k, k]], float)
    away = np.abs(volume.affine[:3, :3] @ (index[:3] - expected)).max()
    return [k] if away <= 2e-2 and 0 <= k < volume.shape[2] else []


def differences(frame: Frame, planes: np.ndarray, labels: bool) -> Iterator[float]:
    if labels:
        if frame.label_map:
            yield float(np.abs(planes.max(0).astype(int) - frame.values[..., 0]).max())
        else:
            found = (planes == frame.segment).any(0)
            yield float((found != frame.values[..., 0].astype(bool)).sum())
        return
    samples = frame.values.shape[2]
    for first in range(0, len(planes), samples):
        pixels = np.moveaxis(planes[first : first + samples], 0, -1)
        yield float(np.abs(pixels.astype(np.float64) - frame.values).max())


def series(root: Path) -> dict[str, list[Path]]:
    """Return the image series below `root`: name, and files that all state one study and series."""
    found: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    for path in sorted(p for p in root.rglob("*") if p.is_file() and is_dicom_file(p)):
        header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        kind = str(header.get("SOPClassUID", ""))
        if header.get("Modality") in ("CT", "MR", "PT") and "Rows" in header and ".66" not in kind:
            key = (str(path.parent), header.StudyInstanceUID, header.SeriesInstanceUID)
            found[key].append(path)
    return {
        str(Path(folder).relative_to(root)): files
        for (folder, *_), files in found.items()
        if len(files) > 1 or int(pydicom.dcmread(files[0]).get("NumberOfFrames", 1) or 1) > 1
    }


def unzipped(path: Path, folder: Path) -> list[Path]:
    """Unpack the DICOM members of a zip that is known to be harmless."""
    files = []
    with zipfile.ZipFile(path) as archive:
        for n, member in enumerate(archive.namelist()):
            if member.endswith(".dcm"):
                files.append(folder / f"{n}.dcm")
                files[-1].write_bytes(archive.read(member))
    return files


def against_dcm2niix(files: list[Path]) -> tuple[str, str, float] | None:
    """Compare the volumes of one series with dcm2niix's; None where it converts none."""
    import dcm2niix
    import nibabel

    with tempfile.TemporaryDirectory() as name:
        source, out = Path(name, "in"), Path(name, "out")
        source.mkdir()
        out.mkdir()
        for n, file in enumerate(files):
            shutil.copy(file, source / f"{n}.dcm")
        subprocess.run(
            [dcm2niix.bin, "-d", "0", "-z", "n", "-b", "n", "-p", "n", "-f", "%s_%n_%z", "-o",
             str(out), str(source)],
            capture_output=True, check=False,
        )  # fmt: skip
        theirs = []
        for path in sorted(out.glob("*.nii")):
            image: Any = nibabel.load(path)
            if image.get_data_dtype().names is None and image.ndim >= 3 and image.shape[2] > 1:
                times = np.moveaxis(image.get_fdata().reshape(*image.shape[:3], -1), 3, 0)
                theirs += [reorient(Volume(one[None], image.affine)) for one in times]
    if not theirs:
        return None
    start = time.perf_counter()
    try:
        ours = [reorient(volume) for volume in io.read_all(files)]
    except VesaliusError as error:
        return "different", f"{type(error).__name__}: {error}", 0.0
    seconds = time.perf_counter() - start
    worst, away = 0.0, 0.0
    for other in theirs:
        fits = [
            (near(channel, other.data[0]), position(volume, other))
            for volume in ours
            if volume.shape == other.shape
            for channel in volume.data
        ]
        if not fits:
            shapes = [volume.shape for volume in ours]
            return "different", f"dcm2niix has {other.shape}, ours {shapes}", seconds
        off, mm = min(fits)
        worst, away = max(worst, off), max(away, mm)
    verdict = "equal" if worst <= 1e-5 and away <= 2e-2 else "different"
    note = f"{len(theirs)} volume(s), relative {worst:.1g}, positions {away:.1g} mm"
    return verdict, note, seconds


def near(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours.astype(np.float64) - theirs).max() / max(1, np.abs(theirs).max()))


def position(ours: Volume, theirs: Volume) -> float:
    ends = np.array([[0, 0, 0, 1], [*(np.array(ours.shape) - 1), 1]])
    return float(np.abs((ours.affine - theirs.affine) @ ends.T).max())
