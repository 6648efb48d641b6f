# SPDX-License-Identifier: Apache-2.0
"""What all objects that are made of a study have in common: patient, study, and who made them."""

from __future__ import annotations

import datetime
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vesalius.files import write_atomically
from vesalius.io.maker import Maker
from vesalius.types import PathLike

if TYPE_CHECKING:
    from pydicom import Dataset

_EXPLICIT = "1.2.840.10008.1.2.1"
_COPIED = (
    "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "PatientName",
    "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID",
)  # fmt: skip
_PROCESSING = ("109102", "DCM", "Processing Equipment")  # PS3.16 context group 7005


def derived(source: Dataset, sop_class: str, modality: str, description: str) -> Dataset:
    """Return an object of a new series in the study of `source`, without its content.

    Args:
        source: an image of the study, with the attributes that `source_planes` fills.
        sop_class: of the object.
        modality: of its series.
        description: of its series.
    """
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import generate_uid

    now = datetime.datetime.now(tz=datetime.UTC)
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = _EXPLICIT
    made.SpecificCharacterSet = source.get("SpecificCharacterSet", "ISO_IR 192")
    made.SOPClassUID, made.SOPInstanceUID = sop_class, generate_uid()
    made.file_meta.MediaStorageSOPClassUID = sop_class
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    with warnings.catch_warnings():
        # The source's own values (a long name, an odd date) are copied as they are.
        warnings.simplefilter("ignore")
        for keyword in _COPIED:
            setattr(made, keyword, source.get(keyword, ""))
    made.Modality = modality
    made.Laterality = ""
    made.Manufacturer = "Vesalius"
    made.SeriesInstanceUID = generate_uid()
    made.SeriesDescription = description[:64]
    made.InstanceNumber = 1
    made.InstanceCreationDate = made.ContentDate = made.SeriesDate = now.strftime("%Y%m%d")
    made.InstanceCreationTime = made.ContentTime = made.SeriesTime = now.strftime("%H%M%S")
    return made


def reference(source: Dataset, frame: int | None = None) -> Dataset:
    """Return an item that refers to an image, and to one of its frames, counted from 0."""
    from pydicom import Dataset

    item = Dataset()
    item.ReferencedSOPClassUID = source.SOPClassUID
    item.ReferencedSOPInstanceUID = source.SOPInstanceUID
    if frame is not None:
        item.ReferencedFrameNumber = frame + 1
    return item


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """Return one item of a code sequence."""
    from pydicom import Dataset

    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def equipment(maker: Maker) -> Dataset:
    """Return what made an object as an item of ContributingEquipmentSequence (C.12.1.5)."""
    from pydicom import Dataset

    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [code(*_PROCESSING)]
    item.Manufacturer, item.ManufacturerModelName = "Vesalius", maker.model[:64]
    item.SoftwareVersions = maker.version
    item.DeviceSerialNumber = maker.run_id[:64]
    item.ContributionDescription = f"Plan {maker.run_id}. {maker.limits}"[:1024]
    return item


def sign(path: PathLike, maker: Maker) -> Path:
    """Write into an object's file what made it, and return the path."""
    from pydicom import dcmread

    data_set = dcmread(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        held = list(data_set.get("ContributingEquipmentSequence") or [])
        data_set.ContributingEquipmentSequence = [*held, equipment(maker)]
        return save(data_set, path)


def save(data_set: Dataset, path: PathLike) -> Path:
    """Write an object as a file, atomically and durably; returns the path."""

    def written(stream: Any) -> None:
        from pydicom import dcmwrite

        dcmwrite(stream, data_set, enforce_file_format=True)

    return write_atomically(path, written)
