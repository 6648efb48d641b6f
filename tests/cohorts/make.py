# SPDX-License-Identifier: Apache-2.0
"""Small files that the tests of `scan` write: DICOM series, images, masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

SIDE = 24


def series(
    folder: Path, *, patient: str = "P1", uid: str = "1.2.3", slices: int = 4, seed: int = 0
) -> list[Path]:
    """Write one CT series; return its files in order."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, slices])
    files = []
    for n in range(slices):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = f"{uid}.{n + 1}"
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        ds.StudyInstanceUID, ds.SeriesInstanceUID = f"{uid}.0.1", f"{uid}.0.2"
        ds.PatientID, ds.PatientName, ds.Modality = patient, f"Name^{patient}", "CT"
        ds.Manufacturer, ds.ManufacturerModelName = "Maker", "M1"
        ds.InstitutionName = "St. Elsewhere"
        ds.InstanceNumber = n + 1
        ds.Rows = ds.Columns = SIDE
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
        ds.PixelSpacing, ds.SliceThickness = [1.5, 1.5], 3
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.ImagePositionPatient = [0, 0, 3 * n]
        ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
        ds.PixelData = rng.integers(0, 2000, (SIDE, SIDE)).astype("<i2").tobytes()
        path = folder / f"{n:03d}.dcm"
        pydicom.dcmwrite(path, ds, enforce_file_format=True)
        files.append(path)
    return files


def png(path: Path, seed: int = 0) -> Path:
    """Write a gray image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 255, (SIDE, SIDE)).astype(np.uint8)
    Image.fromarray(values).save(path)
    return path


def mixed(root: Path, *, series_count: int = 3, pairs: int = 6) -> None:
    """Write DICOM series, image and mask pairs, broken files and a table of labels."""
    for n in range(series_count):
        series(root / f"dicom/p{n}/s", patient=f"P{n}", uid=f"1.2.{n + 1}", seed=n)
    for n in range(pairs):
        png(root / f"pairs/images/c{n}.png", seed=n)
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[4:9, 4 : 10 + n] = 1
        (root / "pairs/labels").mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(root / f"pairs/labels/c{n}.png")
    (root / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 40)
    (root / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 90)
    (root / "notes.txt").write_text("nothing to read here")
    lines = ["patient,grade"] + [f"P{n},{n}" for n in range(series_count)]
    (root.parent / "labels.csv").write_text("\n".join(lines) + "\nP99,9\n")
