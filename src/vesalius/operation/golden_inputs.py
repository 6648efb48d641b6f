# SPDX-License-Identifier: Apache-2.0
"""Inputs of golden cases, without who the patient is: what is kept is on a list, the rest goes.

Of DICOM files pixels, geometry and what says how values are meant are kept, identifiers are made
anew by a key of the state, and everything else (names, dates, institutions, descriptions, private
elements) is left out, as PS3.15 Annex E does it from the other side. Files of other formats are
written anew from their voxels under names without meaning. What is drawn or burned into the pixels
stays: a file that says so itself is refused, of others the person who chose them has to know.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.errors import DataError, UsageError

if TYPE_CHECKING:
    from pydicom import Dataset

    from vesalius.volume import Volume

_UIDS = frozenset({
    "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID",
    "DimensionOrganizationUID",
})  # fmt: skip
_KEPT = _UIDS | frozenset({
    # what it is and what made it
    "SOPClassUID", "Modality", "ImageType", "Manufacturer", "ManufacturerModelName",
    "BodyPartExamined", "Laterality", "ImageLaterality", "ViewPosition", "PatientPosition",
    "KVP", "ConvolutionKernel", "EchoTime", "RepetitionTime", "MagneticFieldStrength",
    "SeriesNumber", "InstanceNumber", "SpecificCharacterSet",
    # where it lies
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "ImagerPixelSpacing",
    "NominalScannedPixelSpacing", "PixelAspectRatio", "SliceThickness", "SpacingBetweenSlices",
    "SliceLocation",
    # pixels, and what their values mean
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "Rows", "Columns",
    "NumberOfFrames", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "PixelPaddingValue", "PixelPaddingRangeLimit", "PixelData", "RescaleSlope",
    "RescaleIntercept", "RescaleType", "WindowCenter", "WindowWidth", "Units",
    "RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData", "BluePaletteColorLookupTableData",
    "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
    # the same of multi-frame images
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    "PixelMeasuresSequence", "PlaneOrientationSequence", "PlanePositionSequence",
    "PixelValueTransformationSequence", "FrameContentSequence", "DimensionIndexValues",
    "StackID", "InStackPositionNumber", "DimensionOrganizationSequence",
    "DimensionIndexSequence", "DimensionIndexPointer", "FunctionalGroupPointer",
})  # fmt: skip
# What readers of a DICOM image look for, and what must not say anything
_EMPTY = ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber",
          "ReferringPhysicianName", "StudyID")  # fmt: skip
_PICTURES = frozenset({"png", "jpeg", "bmp", "tiff"})
_CHANNEL = re.compile(r"_\d{4}$")


def keep(exam: Path, folder: Path, pseudonym: Callable[[str], str]) -> str:
    """Write an exam's images without identity into a folder; return the case's name.

    Args:
        exam: a file, or a folder of DICOM files or of files of other formats.
        folder: for the files; empty.
        pseudonym: keyed hash, by which identifiers are made anew.

    Returns:
        A name made of the content, so that the same exam is the same case.

    Raises:
        UsageError: there is nothing, or a zip. DataError: a file says that names are burned in.
    """
    from vesalius.flows.patient_images import files_of
    from vesalius.io.formats import is_dicom_file

    if not exam.exists():
        raise UsageError(f"the golden case '{exam}' does not exist; give a file or a folder")
    files = [path for path in files_of(exam) if not path.name.startswith(".")]
    dicom = [path for path in files if is_dicom_file(path)]
    content = hashlib.sha256()
    for number, path in enumerate(dicom or files, 1):
        kept = _keep_dicom if dicom else _keep_other
        kept(path, folder, number, content, pseudonym)
    if not files:
        raise UsageError(f"the golden case '{exam}' holds no file; give another")
    return content.hexdigest()[:16]


def _keep_dicom(
    path: Path,
    folder: Path,
    number: int,
    content: hashlib._Hash,
    pseudonym: Callable[[str], str],
) -> None:
    from pydicom import dcmread

    read = dcmread(path)
    if str(read.get("BurnedInAnnotation", "NO")).upper() == "YES":
        raise DataError(
            f"'{path}' says that words are burned into its pixels; choose another golden case"
        )
    if "PixelData" not in read:
        return
    made = _clean(read, pseudonym)
    made.file_meta = read.file_meta.__class__()
    made.file_meta.TransferSyntaxUID = read.file_meta.TransferSyntaxUID
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.PatientName = made.PatientID = f"golden-{pseudonym(str(read.get('PatientID', '')))[:8]}"
    for keyword in _EMPTY:
        setattr(made, keyword, "")
    made.PatientIdentityRemoved = "YES"
    made.DeidentificationMethod = "Vesalius golden case: elements of a list kept, others left out"
    made.save_as(folder / f"{number:06d}.dcm", enforce_file_format=True)
    content.update(str(made.SOPInstanceUID).encode() + bytes(made.PixelData))


def _clean(read: Dataset, pseudonym: Callable[[str], str]) -> Dataset:
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence as Items

    from vesalius.serving.uids import made_uid

    made = Dataset()
    for element in read:
        if element.keyword not in _KEPT:
            continue
        if element.VR == "SQ":
            items = [_clean(item, pseudonym) for item in element.value]
            setattr(made, element.keyword, Items(items))
        elif element.keyword in _UIDS:
            setattr(made, element.keyword, made_uid("golden", pseudonym(str(element.value))))
        else:
            made.add(element)
    return made


def _keep_other(
    path: Path, folder: Path, number: int, content: hashlib._Hash, _: Callable[[str], str]
) -> None:
    import dataclasses

    from vesalius import io
    from vesalius.volume import Source

    for place, volume in enumerate(_images(path), 1):
        picture = volume.source.format in _PICTURES
        clean = dataclasses.replace(volume, source=Source())
        name = f"image-{number:03d}" + (f"-{place}" if place > 1 else "") + _said(path)
        io.write(clean, folder / f"{name}{'.png' if picture else '.nii.gz'}")
        content.update(volume.affine.tobytes() + volume.data.tobytes())


def _images(path: Path) -> Sequence[Volume]:
    from vesalius import io

    if path.suffix.lower() == ".zip":
        raise UsageError(f"the golden case '{path}' is a zip; unpack it, and give the folder")
    return list(io.read_all(path))


def _said(path: Path) -> str:
    """Return what a file's name says of modality, sequence and channel, and nothing else."""
    from vesalius.flows.patient_images import SEQUENCES

    stem = path.name.split(".")[0]
    known = (*SEQUENCES, "ct", "mr", "pt", "us", "nm")
    words = [word for word in re.split(r"[^A-Za-z0-9]+", stem.lower()) if word in known]
    channel = _CHANNEL.search(stem)
    return "".join(f"-{word}" for word in words) + (channel[0] if channel else "")
