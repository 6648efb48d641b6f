# SPDX-License-Identifier: Apache-2.0
"""Simulated images as DICOM objects: CT, MR, DX and CR instances, and SEG for the truth.

Every type 1 and type 2 attribute of the IODs (DICOM PS3.3 A.2, A.3, A.4, A.26, A.51) is present.
Identifiers are hashes of what they identify, so one seed always gives the same bytes.
"""

from __future__ import annotations

import hashlib
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rle
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian

from vesalius.cohorts.phantom.anatomy import STRUCTURE_NAMES
from vesalius.cohorts.phantom.exam import Exam, Image, Patient
from vesalius.cohorts.phantom.scanners import EXPLICIT, JPEG_LS, RLE, SITES
from vesalius.geometry import LPS_TO_RAS
from vesalius.types import Array

SIMULATED = "SIMULATED IMAGE. NOT A PATIENT. NOT FOR DIAGNOSTIC USE."
_IMPLEMENTATION = UID("2.25.262016712487234172351239184753098765431")
_SEG_STORAGE = UID("1.2.840.10008.5.1.4.1.1.66.4")

# structure -> (category, type), SNOMED CT codes of DICOM PS3.16 CID 7150, 4030, 6202
_ANATOMY = ("123037004", "Anatomical Structure")
_LESION = ("49755003", "Morphologically Abnormal Structure")
_CODES = {
    "liver": (_ANATOMY, ("10200004", "Liver"), (221, 170, 101)),
    "spleen": (_ANATOMY, ("78961009", "Spleen"), (157, 108, 162)),
    "kidneys": (_ANATOMY, ("64033007", "Kidney"), (185, 102, 83)),
    "spine": (_ANATOMY, ("421060004", "Vertebral column"), (226, 202, 134)),
    "lesion": (_LESION, ("52988006", "Lesion"), (144, 238, 144)),
    "implant": (("260787004", "Physical object"), ("40388003", "Implant"), (128, 128, 160)),
}


@dataclass
class Instance:
    """One object before it is encoded: header and stored values `(rows, columns)`.

    `pixels` None: the header carries its pixel data already. `cut` bytes are taken off the end of
    the finished file.
    """

    header: Dataset
    pixels: Array | None
    syntax: str = EXPLICIT
    cut: int = 0


@dataclass
class Series:
    """One series about to be written: what it shows, its instances and its place on disk."""

    kind: str  # "CT" | "T1" | "T2" | "DX" | "SEG"
    patient_id: str
    instances: list[Instance]
    folder: str = ""  # relative to the root of the DICOM tree
    files: list[str] = field(default_factory=list)

    @property
    def uid(self) -> str:
        """The SeriesInstanceUID of the first instance."""
        return str(self.instances[0].header.SeriesInstanceUID)


def uid(*parts: object) -> UID:
    """Return a UID below 2.25 (a hash, PS3.5 B.2) that the same parts always give."""
    digest = hashlib.sha256("/".join(map(str, ("vesalius-phantom", *parts))).encode()).digest()
    return UID(f"2.25.{int.from_bytes(digest[:16], 'big')}")


def opaque(*parts: object) -> str:
    """Return an eight-digit hexadecimal name for a folder, as archives give."""
    digest = hashlib.sha256("/".join(map(str, ("name", *parts))).encode())
    return digest.hexdigest()[:8].upper()


def make_series(seed: int, exam: Exam) -> list[Series]:
    """Return all image series of one exam, ready to be written (or spoiled first)."""
    return [_make(seed, exam.patient, image) for image in exam.images.values()]


def _make(seed: int, patient: Patient, image: Image) -> Series:
    common = _common(seed, patient, image)
    columns, rows, slices = image.stored.shape
    row_axis, column_axis, _ = (LPS_TO_RAS @ image.affine).T[:3, :3]
    spacing = np.linalg.norm(image.affine[:3, :3], axis=0)
    instances = []
    for k in range(slices):
        header = Dataset({element.tag: copy(element) for element in common})
        number = slices - k if image.scanner.instances_from_top else k + 1
        header.SOPInstanceUID = uid(seed, patient.index, image.kind, "instance", k)
        header.InstanceNumber = number
        header.Rows, header.Columns = rows, columns
        if image.kind != "DX":
            position = (LPS_TO_RAS @ image.affine @ (0, 0, k, 1))[:3]
            header.ImagePositionPatient = _numbers(position)
            header.ImageOrientationPatient = _numbers(
                [*(row_axis / spacing[0]), *(column_axis / spacing[1])]
            )
            header.PixelSpacing = _numbers([spacing[1], spacing[0]])
            header.SliceThickness = _number(spacing[2])
            if image.kind != "CT":
                header.SpacingBetweenSlices = _number(spacing[2])
            header.SliceLocation = _number(
                np.cross(row_axis, column_axis) @ position / (spacing[0] * spacing[1])
            )
        instances.append(
            Instance(header, np.ascontiguousarray(image.stored[:, :, k].T), image.scanner.syntax)
        )
    order = sorted(instances, key=lambda instance: int(instance.header.InstanceNumber))
    folder = f"{opaque(seed, patient.index)}/{opaque(seed, patient.index, image.kind)}"
    return Series(image.kind, patient.patient_id, order, folder)


def _common(seed: int, patient: Patient, image: Image) -> Dataset:
    """Return what all instances of a series share."""
    scanner, number = image.scanner, patient.index
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 192"
    header.SOPClassUID = UID(scanner.sop_class)
    identify(header, seed, patient)
    header.Modality = scanner.modality
    header.SeriesInstanceUID = uid(seed, number, image.kind, "series")
    header.SeriesNumber = {"CT": 2, "T1": 3, "T2": 4, "DX": 1}[image.kind]
    words = {"CT": "CT abdomen", "T1": "T1w SE", "T2": "T2w TSE", "DX": "Torso AP"}[image.kind]
    plane = "" if image.kind == "DX" else f" {scanner.plane}"
    header.SeriesDescription = f"SIMULATED {words}{plane}"
    header.ProtocolName = f"Simulated {words}"
    header.BodyPartExamined = "CHEST" if image.kind == "DX" else "ABDOMEN"
    header.Manufacturer = scanner.manufacturer
    header.ManufacturerModelName = scanner.model
    header.InstitutionName = SITES["ABC".index(scanner.site)]
    header.StationName = scanner.station
    header.DeviceSerialNumber = f"SIM-{scanner.station}"
    header.SoftwareVersions = scanner.software
    header.SeriesDate = header.AcquisitionDate = header.ContentDate = header.StudyDate
    hour = {"DX": 9, "CT": 10, "T1": 11, "T2": 12}[image.kind]
    header.SeriesTime = header.AcquisitionTime = header.ContentTime = f"{hour:02d}0000"
    header.AcquisitionNumber = 1
    header.ImageComments = SIMULATED
    header.BurnedInAnnotation = "NO"
    header.LossyImageCompression = "00"
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation = "MONOCHROME1" if scanner.inverted else "MONOCHROME2"
    header.BitsAllocated = 16
    header.BitsStored = scanner.bits
    header.HighBit = scanner.bits - 1
    header.PixelRepresentation = int(scanner.signed)
    {"CT": _add_ct, "T1": _add_mr, "T2": _add_mr, "DX": _add_xray}[image.kind](header, image)
    if image.kind != "DX":
        header.PatientPosition = "HFS"
        modality = "CT" if image.kind == "CT" else "MR"
        header.FrameOfReferenceUID = uid(seed, number, modality, "frame of reference")
        header.PositionReferenceIndicator = ""
    return header


def identify(header: Dataset, seed: int, patient: Patient) -> None:
    """Write who and which study into a header."""
    header.PatientName = patient.name
    header.PatientID = patient.patient_id
    header.PatientBirthDate = ""
    header.PatientSex = patient.sex
    header.PatientAge = f"{patient.age:03d}Y"
    header.PatientIdentityRemoved = "YES"
    header.DeidentificationMethod = "Simulated: there is no person"
    header.StudyInstanceUID = uid(seed, patient.index, "study")
    header.StudyDate = f"2024{1 + patient.index // 28 % 12:02d}{1 + patient.index % 28:02d}"
    header.StudyTime = "080000"
    header.StudyID = f"{patient.index:04d}"
    header.StudyDescription = "SIMULATED torso"
    header.AccessionNumber = ""
    header.ReferringPhysicianName = ""


def _add_ct(header: Dataset, image: Image) -> None:
    header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    header.KVP = "120"
    header.ExposureTime = "600"
    header.XRayTubeCurrent = "200"
    header.ConvolutionKernel = "SIM-SOFT"
    header.GantryDetectorTilt = "0"
    header.RescaleIntercept = _number(image.scanner.intercept)
    header.RescaleSlope = _number(image.scanner.slope)
    header.RescaleType = "HU"
    header.WindowCenter, header.WindowWidth = "40", "400"


def _add_mr(header: Dataset, image: Image) -> None:
    protocol, scanner = image.protocol, image.scanner
    if protocol is None:
        raise ValueError("an MR image has a protocol")
    header.ImageType = ["ORIGINAL", "PRIMARY", "M", "SE"]
    header.ScanningSequence = "SE"
    header.SequenceVariant = "NONE" if protocol.echo_train == 1 else "SK"
    header.ScanOptions = ""
    header.MRAcquisitionType = "2D"
    header.SequenceName = f"{protocol.name}SE"
    header.RepetitionTime = _number(protocol.tr)
    header.EchoTime = _number(protocol.te)
    header.EchoTrainLength = protocol.echo_train
    header.EchoNumbers = 1
    header.NumberOfAverages = "1"
    header.FlipAngle = "90"
    header.MagneticFieldStrength = _number(scanner.tesla)
    header.ImagingFrequency = _number(42.577 * scanner.tesla)
    header.ImagedNucleus = "1H"
    if scanner.slope:
        header.RescaleIntercept = _number(scanner.intercept)
        header.RescaleSlope = _number(scanner.slope)
        header.RescaleType = "US"


def _add_xray(header: Dataset, image: Image) -> None:
    scanner = image.scanner
    header.ImageType = ["ORIGINAL", "PRIMARY"]
    header.KVP = "90"
    header.ViewPosition = "AP"
    header.PatientOrientation = ["L", "F"]
    header.ImagerPixelSpacing = _numbers([scanner.spacing[1], scanner.spacing[0]])
    header.PixelSpacing = header.ImagerPixelSpacing
    if scanner.modality == "CR":
        header.Laterality = ""
        header.PatientPosition = "HFS"
        header.WindowCenter, header.WindowWidth = "3300", "1600"
        return
    header.PixelIntensityRelationship = "LOG"
    header.PixelIntensityRelationshipSign = 1
    header.PresentationIntentType = "FOR PRESENTATION"
    header.PresentationLUTShape = "IDENTITY"
    header.RescaleIntercept, header.RescaleSlope, header.RescaleType = "0", "1", "US"
    header.WindowCenter, header.WindowWidth = "1000", "2000"
    header.ImageLaterality = "U"
    header.AnatomicRegionSequence = Sequence([_code("51185008", "Thorax")])
    header.ViewCodeSequence = Sequence([_code("399348003", "antero-posterior")])
    header.ViewCodeSequence[0].ViewModifierCodeSequence = Sequence()
    header.AcquisitionContextSequence = Sequence()
    header.DetectorType = "DIRECT"
    header.DetectorID = f"SIM-{scanner.station}"
    header.PositionerType = "NONE"


def make_segmentation(
    seed: int,
    patient: Patient,
    images: list[Dataset],
    mask: Array,
    *,
    structures: tuple[str, ...] = STRUCTURE_NAMES,
) -> Series:
    """Return a BINARY DICOM SEG of `mask` `(i, j, k)` that refers to the image headers, in order.

    Value n of the mask is segment n, called `structures[n - 1]`. Frames without a voxel of their
    segment are left out, unless all are empty: then each segment keeps its frames.
    """
    import highdicom as hd
    from pydicom.sr.codedict import codes

    device = hd.AlgorithmIdentificationSequence(
        name="Simulation", family=codes.DCM.MorphologicalOperations, version="1.0"
    )
    descriptions = []
    for number, name in enumerate(structures, start=1):
        category, kind, color = _CODES[name]
        descriptions.append(
            hd.seg.SegmentDescription(
                segment_number=number,
                segment_label=name,
                segmented_property_category=hd.sr.CodedConcept(category[0], "SCT", category[1]),
                segmented_property_type=hd.sr.CodedConcept(kind[0], "SCT", kind[1]),
                algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
                algorithm_identification=device,
                tracking_id=name,
                tracking_uid=uid(seed, patient.index, "track", name),
                display_color=hd.color.CIELabColor.from_rgb(*color),
            )
        )
    stack = np.ascontiguousarray(mask.transpose(2, 1, 0))
    key = (seed, patient.index, "SEG", *structures)
    header = hd.seg.Segmentation(
        source_images=images,
        pixel_array=stack,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=descriptions,
        series_instance_uid=uid(*key, "series"),
        series_number=20,
        sop_instance_uid=uid(*key, "instance"),
        instance_number=1,
        manufacturer="Vesalius",
        manufacturer_model_name="Phantom",
        software_versions="1.0",
        device_serial_number="SIM-TRUTH",
        content_description="Simulated truth",
        series_description="SIMULATED truth",
        omit_empty_frames=bool(mask.any()),
    )
    first = images[0]
    header.SeriesDate = header.ContentDate = header.InstanceCreationDate = first.StudyDate
    header.SeriesTime = header.ContentTime = header.InstanceCreationTime = "130000"
    for item in header.get("ContributingEquipmentSequence", ()):
        item.ContributionDateTime = f"{first.StudyDate}130000"
    dimensions = uid(*key, "dimensions")
    for item in (*header.DimensionOrganizationSequence, *header.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimensions
    folder = f"{opaque(seed, patient.index)}/{opaque(*key)}"
    return Series("SEG", patient.patient_id, [Instance(header, None)], folder)


def write_series(series: Series, root: Path) -> None:
    """Write a series below `root/folder` and note the files, relative to `root`."""
    folder = root / series.folder
    folder.mkdir(parents=True, exist_ok=True)
    series.files = []
    for n, instance in enumerate(series.instances, start=1):
        name = f"IM{n:06d}"
        _write_instance(instance, folder / name)
        series.files.append(f"{series.folder}/{name}")


def _write_instance(instance: Instance, path: Path) -> None:
    syntax = UID(instance.syntax)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = instance.header.SOPClassUID
    meta.MediaStorageSOPInstanceUID = instance.header.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID = _IMPLEMENTATION
    meta.ImplementationVersionName = "VESALIUS"
    file = FileDataset(None, instance.header, file_meta=meta, preamble=b"\0" * 128)
    if instance.pixels is not None:
        if instance.syntax == RLE:
            packed = rle.encode_pixel_data(
                instance.pixels.tobytes(), instance.header, byteorder="<"
            )
            file.PixelData = encapsulate([packed])
            file["PixelData"].VR = "OB"
        elif instance.syntax == JPEG_LS:
            meta.TransferSyntaxUID = ExplicitVRLittleEndian
            file.compress(
                syntax,
                np.ascontiguousarray(instance.pixels),
                encoding_plugin="pyjpegls",
                generate_instance_uid=False,
            )
        else:
            file.PixelData = instance.pixels.astype(
                "<u2" if instance.pixels.dtype.kind == "u" else "<i2"
            ).tobytes()
            file["PixelData"].VR = "OW"
    file.save_as(path, enforce_file_format=True)
    if instance.cut:
        content = path.read_bytes()
        path.write_bytes(content[: -instance.cut])


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return item


def _number(value: float) -> str:
    """Return a decimal string of at most 16 characters."""
    return f"{round(float(value), 6) + 0.0:.10g}"


def _numbers(values: Array | list[float]) -> list[str]:
    return [_number(value) for value in values]
