# SPDX-License-Identifier: Apache-2.0
"""Small DICOM series written on purpose, with any attribute of any slice changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
Edit = Callable[[int, Dataset], Any]


def slice_dataset(pixels: Any, modality: str, number: int) -> Dataset:
    """Return one plain slice; pixels (rows, columns) or (rows, columns, 3)."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = {"CT": CT, "MR": MR}.get(modality, "1.2.840.10008.5.1.4.1.1.1")
    ds.SOPInstanceUID = f"1.2.3.4.{number + 1}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    ds.PatientID, ds.Modality = "P1", modality
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL" if modality == "CT" else "M"]
    ds.InstanceNumber = number + 1
    ds.AcquisitionNumber = 1
    set_pixels(ds, pixels)
    return ds


def set_pixels(ds: Dataset, pixels: Any) -> None:
    """Store values as they are."""
    pixels = np.asarray(pixels)
    ds.Rows, ds.Columns = pixels.shape[-3:-1] if pixels.shape[-1] == 3 else pixels.shape[-2:]
    ds.SamplesPerPixel = 3 if pixels.shape[-1] == 3 else 1
    ds.PhotometricInterpretation = "RGB" if ds.SamplesPerPixel == 3 else "MONOCHROME2"
    if ds.SamplesPerPixel == 3:
        ds.PlanarConfiguration = 0
    ds.BitsAllocated = ds.BitsStored = 8 * pixels.dtype.itemsize
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    raw = pixels.tobytes()
    ds.PixelData = raw + bytes(len(raw) % 2)
    ds["PixelData"].VR = "OW" if ds.BitsAllocated > 8 else "OB"


@pytest.fixture
def write_series(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Path]]:
    """Return `write(volume, …)`: one file for each slice of (k, rows, columns), in that order."""

    def write(
        volume: Any,
        *,
        orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
        first: Sequence[float] = (-10, -20, 30),
        step: Sequence[float] = (0, 0, 2.5),
        spacing: tuple[float, float] = (0.8, 0.7),
        modality: str = "MR",
        edit: Edit | None = None,
    ) -> list[Path]:
        folder = tmp_path_factory.mktemp("series")
        paths = []
        for k, pixels in enumerate(np.asarray(volume)):
            ds = slice_dataset(pixels, modality, k)
            position = np.asarray(first, float) + k * np.asarray(step, float)
            ds.ImagePositionPatient = [f"{x:.9g}" for x in position]
            ds.ImageOrientationPatient = [f"{x:.9g}" for x in orientation]
            ds.PixelSpacing = [f"{x:.9g}" for x in spacing]
            ds.SliceThickness = "9"  # wrong on purpose: spacing comes from positions
            if edit is not None and edit(k, ds) == "leave out":
                continue
            path = folder / f"{(k * 7919) % 1009:04d}.dcm"  # names in no order
            ds.save_as(path, enforce_file_format=True)
            paths.append(path)
        return paths

    return write
