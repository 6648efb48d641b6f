# SPDX-License-Identifier: Apache-2.0
"""A classifier's answer as a DICOM Structured Report that refers to its source images (TID 1500).

A Comprehensive 3D SR after DICOM PS3.16: Measurement Report (TID 1500) with the sources in an
image library (TID 1600), the program as device observer (TID 1004) and one measurement group
(TID 1501) that holds the algorithm (TID 4019), numbers (TID 300) and evaluations. A name without
a standard code gets one of the private scheme 99VESALIUS, made of the name, so that equal names
have equal codes in every report. Where a code's meaning cannot be the name as it is (64
characters at most, no backslash; PS3.5), a text item under that code states the name in full.
"""

from __future__ import annotations

import datetime
import hashlib
import math
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vesalius.errors import DataError, UsageError
from vesalius.files import write_atomically
from vesalius.io.dicom.header import Header, read_header
from vesalius.io.dicom.kinds import IMAGES, kind_of
from vesalius.io.dicom.segment_codes import Code, codes_for
from vesalius.io.dicom.source_planes import identify, name_study
from vesalius.io.limits import DEFAULT_LIMITS, Limits
from vesalius.types import PathLike

if TYPE_CHECKING:
    from pydicom import Dataset

SCHEME = "99VESALIUS"
PREDICTED: Code = ("PREDICTED", SCHEME, "Predicted category")
LABEL_SET: Code = ("LABELSET", SCHEME, "Member of the label set")
ABSTAINED: Code = ("ABSTAINED", SCHEME, "Classifier abstained")
REASON: Code = ("REASON", SCHEME, "Reason stated by the classifier")

_COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
_CONTEXT = "HAS ACQ CONTEXT"
_EXPLICIT = "1.2.840.10008.1.2.1"
_COPIED = (
    "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "PatientName",
    "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID",
)  # fmt: skip
_IDENTIFIERS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID")
_IMAGES = IMAGES - {"dose"} | {"mosaic", "tiled"}
_WORDS = re.compile(r"[A-Za-z]+([ _-][A-Za-z]+)*")  # what a standard code may stand for
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_UCUM = re.compile(r"[!-\[\]-~]{1,16}")


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the classifier says, checked; see `write_measurement_report`."""

    finding: str
    probabilities: Mapping[str, float]
    label_set: Sequence[str] | None
    predicted: str | None
    reason: str
    values: Mapping[str, tuple[float, str]]

    def __post_init__(self) -> None:
        classes = tuple(self.probabilities)
        asked = [self.predicted] if self.predicted is not None else []
        for name in (*asked, *(self.label_set or ())):
            if name not in self.probabilities:
                raise UsageError(f"class {name!r} has no probability; classes are {classes}")
        for name, p in self.probabilities.items():
            if not 0 <= p <= 1:
                raise UsageError(f"the probability of {name!r} must be from 0 to 1, got {p}")
        for name, (value, unit) in self.values.items():
            if not math.isfinite(value):
                raise UsageError(f"value {name!r} must be finite, got {value}; leave it out")
            if not _UCUM.fullmatch(unit):
                raise UsageError(
                    f"the unit of {name!r} must be a UCUM code of 1 to 16 characters ('1' where "
                    f"there is none), got {unit!r}"
                )
        remark = [self.reason] if self.reason.strip() else []
        _check_texts((self.finding, *classes, *self.values, *remark))
        if self.abstained and not self.reason.strip():
            raise UsageError("predicted is None: reason must say why the classifier abstained")

    @property
    def abstained(self) -> bool:
        return self.predicted is None and (bool(self.probabilities) or not self.values)


def write_measurement_report(
    path: PathLike,
    *,
    source_files: Sequence[PathLike],
    finding: str,
    probabilities: Mapping[str, float],
    label_set: Sequence[str] | None,
    predicted: str | None,
    reason: str,
    algorithm_name: str,
    algorithm_version: str,
    run_id: str,
    values: Mapping[str, tuple[float, str]] | None = None,
    series_description: str = "",
    series_number: int = 302,
    limits: Limits = DEFAULT_LIMITS,
) -> Path:
    """Write what a classifier says about a case as a DICOM SR; returns the path.

    Args:
        path: the file to write, atomically and durably.
        source_files: all DICOM images of the case, of one study, in any order.
        finding: what was asked, for example `diagnosis`.
        probabilities: of each class, 0 to 1; empty where there are no classes (regression).
        label_set: the classes of the conformal set, may be empty; None where none was made.
        predicted: the class answered; None for an abstention, or where there are no classes.
        reason: why it abstained, or a remark on the answer; empty where there is none.
        algorithm_name, algorithm_version, run_id: what answered.
        values: other numbers, name to (value, UCUM unit; `1` for none): counts, a regression and
            the ends of its interval.
        series_description, series_number: of the new series.
        limits: for reading the sources.

    Raises:
        UsageError: a class without a probability, a number or text that a report cannot hold, an
            abstention without a reason, or a source without an instance UID.
        DataError: a source that is no image, or sources of several studies or patients.
    """
    answer = _Answer(finding, probabilities, label_set, predicted, reason, values or {})
    _check_texts((algorithm_name, algorithm_version, run_id))
    with warnings.catch_warnings():
        # The source's own values (a long name, an odd date) are copied as they are.
        warnings.simplefilter("ignore")
        headers, source = _sources(source_files, limits)
        data_set = _document(source, headers)
        data_set.update(_content(answer, algorithm_name, algorithm_version, run_id, headers))
        data_set.SeriesNumber = series_number
        description = series_description or f"Classification by {algorithm_name}"
        data_set.SeriesDescription = _meaning(description)
        data_set.ManufacturerModelName = _meaning(algorithm_name)
        data_set.SoftwareVersions = _meaning(algorithm_version)

        def save(stream: Any) -> None:
            from pydicom import dcmwrite

            dcmwrite(stream, data_set, enforce_file_format=True)

        return write_atomically(path, save)


def _check_texts(texts: Iterable[str]) -> None:
    for text in texts:
        if not text.strip() or _CONTROL.search(text):
            raise UsageError(
                "names, version and run must be text that is not blank and holds no control "
                f"characters, got {text!r}"
            )


def _sources(files: Sequence[PathLike], limits: Limits) -> tuple[list[Header], Dataset]:
    """Return the headers of the source images, one for each instance, and the first's patient."""
    from pydicom import dcmread

    if not files:
        raise UsageError("source_files must name the DICOM images of the case, got none")
    headers: dict[str, Header] = {}
    data_sets: dict[str, Dataset] = {}
    series: dict[Any, list[Dataset]] = {}
    for file in [os.fspath(file) for file in files]:
        header = read_header(file, limits=limits)
        kind = kind_of(header)
        if kind not in _IMAGES:
            raise DataError(f"{file}: the source is no image ({kind}); leave it out")
        tags = [*_COPIED, *_IDENTIFIERS]
        data_set = dcmread(file, force=True, stop_before_pixels=True, specific_tags=tags)
        identify(data_set, file)
        instance = str(data_set.SOPInstanceUID)
        if instance not in headers:
            headers[instance], data_sets[instance] = header, data_set
            series.setdefault((header.study_uid, header.series_uid), []).append(data_set)
    for images in series.values():
        name_study(images, is_placed=False)
    for what, many in (
        ("studies", {str(data_set.StudyInstanceUID) for data_set in data_sets.values()}),
        ("patients", {header.patient_id or "" for header in headers.values()}),
    ):
        if len(many) > 1:
            raise DataError(
                f"source_files belong to {len(many)} {what}, and a report belongs to one; write a "
                "report for each, with the sources of that one"
            )
    named = [
        replace(
            headers[instance],
            sop_class=str(data_set.SOPClassUID),
            sop_instance=instance,
            series_uid=str(data_set.SeriesInstanceUID),
        )
        for instance, data_set in data_sets.items()
    ]
    return named, next(iter(data_sets.values()))


def _meaning(name: str) -> str:
    """Return the name as DICOM's Long String may hold it: one line, 64 characters, no backslash."""
    line = " ".join(name.replace("\\", "/").split())
    return line if len(line) <= 64 else line[:61] + "..."


def _concepts(names: Iterable[str]) -> dict[str, Code]:
    """Return a code for each name: a standard one where it stands for this name alone."""
    names = dict.fromkeys(names)
    standard = {name: codes_for(name)[1] for name in names if _WORDS.fullmatch(name)}
    uses = Counter(code[:2] for code in standard.values())
    result = {}
    for name in names:
        value, scheme, meaning = standard.get(name, ("", SCHEME, ""))
        if scheme == SCHEME or uses[value, scheme] > 1:
            value, scheme = hashlib.sha256(name.encode()).hexdigest()[:12].upper(), SCHEME
            meaning = _meaning(name)
        result[name] = (value, scheme, meaning)
    return result


def _content(answer: _Answer, name: str, version: str, run: str, headers: list[Header]) -> Dataset:
    """Return the root of the content tree (TID 1500)."""
    from highdicom import sr
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    device = sr.DeviceObserverIdentifyingAttributes(
        uid=generate_uid(entropy_srcs=[name, version, run]),  # one run, one device
        name=name,
        manufacturer_name="Vesalius",
        model_name=name,
    )
    algorithm = sr.AlgorithmIdentification(
        name=name,
        version=version,
        manufacturer="Vesalius",
        parameters=[f"run {run}"],
        family=sr.CodedConcept("123109", "DCM", "Artificial Intelligence"),
    )
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(
            observer_device_context=sr.ObserverContext(codes.DCM.Device, device)
        ),
        procedure_reported=codes.SCT.ImagingProcedure,
        imaging_measurements=[_group(answer, algorithm, headers)],
    )
    root: Dataset = report[0]
    measurements = len(root.ContentSequence) - 1  # the library stands before them
    root.ContentSequence.insert(measurements, _library(headers))
    return root


def _group(answer: _Answer, algorithm: Any, headers: list[Header]) -> Any:
    """Return the measurement group (TID 1501)."""
    from highdicom import sr
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    of = {name: f"Probability of {name}" for name in answer.probabilities}
    names = _concepts((answer.finding, *answer.probabilities, *of.values(), *answer.values))
    concepts = {name: sr.CodedConcept(*code) for name, code in names.items()}
    finding = concepts[answer.finding]
    numbers = []
    for name, p in answer.probabilities.items():
        number = sr.Measurement(concepts[of[name]], float(p), codes.UCUM.NoUnits)
        number[0].ContentSequence = sr.ContentSequence(
            [sr.CodeContentItem(finding, concepts[name], "HAS CONCEPT MOD")]
        )
        numbers.append(number)
    for name, (value, unit) in answer.values.items():
        kind = codes.UCUM.NoUnits if unit == "1" else sr.CodedConcept(unit, "UCUM", unit)
        numbers.append(sr.Measurement(concepts[name], float(value), kind))
    said = [(ABSTAINED, codes.SCT.Yes if answer.abstained else codes.SCT.No)]
    if answer.predicted is not None:
        said.insert(0, (PREDICTED, concepts[answer.predicted]))
    if answer.label_set is not None:
        members = [concepts[name] for name in answer.label_set]
        said += [(LABEL_SET, member) for member in members or [codes.SCT.None_]]
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(generate_uid(), answer.finding),
        finding_type=finding,
        algorithm_id=algorithm,
        measurements=numbers,
        qualitative_evaluations=[
            sr.QualitativeEvaluation(sr.CodedConcept(*name), value) for name, value in said
        ],
        source_images=[
            sr.SourceImageForMeasurementGroup(header.sop_class, header.sop_instance)
            for header in headers
        ],
    )
    texts = [(sr.CodedConcept(*REASON), answer.reason)] if answer.reason.strip() else []
    for name, (_, scheme, meaning) in names.items():
        if scheme == SCHEME and meaning != name:
            texts.append((concepts[name], name))
    for concept, text in texts:
        group[0].ContentSequence.append(sr.TextContentItem(concept, text, "CONTAINS"))
    return group


def _library(headers: list[Header]) -> Any:
    """Return the image library (TID 1600): a group for each series, its images as they came."""
    from highdicom import sr
    from pydicom.sr.codedict import codes

    modalities = {code.value: code for code in codes.cid29.concepts.values()}
    pixels = sr.CodedConcept("{pixels}", "UCUM", "Pixels")
    groups: dict[Any, Any] = {}
    for header in headers:
        key = header.series_uid, header.modality, header.frame_of_reference
        if key not in groups:
            groups[key] = _container(codes.DCM.ImageLibraryGroup)
            if header.modality in modalities:
                item = sr.CodeContentItem(codes.DCM.Modality, modalities[header.modality], _CONTEXT)
                groups[key].ContentSequence.append(item)
            if header.frame_of_reference:
                frame = codes.DCM.FrameOfReferenceUID
                item = sr.UIDRefContentItem(frame, header.frame_of_reference, _CONTEXT)
                groups[key].ContentSequence.append(item)
        source = sr.CodedConcept("260753009", "SCT", "Source")
        image = sr.ImageContentItem(
            source, header.sop_class, header.sop_instance, relationship_type="CONTAINS"
        )
        sizes = (codes.DCM.PixelDataRows, header.rows), (codes.DCM.PixelDataColumns, header.columns)
        image.ContentSequence = sr.ContentSequence(
            [sr.NumContentItem(name, n, pixels, relationship_type=_CONTEXT) for name, n in sizes]
        )
        groups[key].ContentSequence.append(image)
    library = _container(codes.DCM.ImageLibrary)
    library.ContentSequence.extend(groups.values())
    return library


def _container(name: Any) -> Any:
    from highdicom import sr

    container = sr.ContainerContentItem(name, relationship_type="CONTAINS")
    container.ContentSequence = sr.ContentSequence()
    return container


def _document(source: Dataset, headers: list[Header]) -> Dataset:
    """Return the report without its content: patient and study of the source, a new series."""
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import generate_uid

    now = datetime.datetime.now()
    data_set = Dataset()
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = _EXPLICIT
    data_set.SpecificCharacterSet = "ISO_IR 192"
    data_set.SOPClassUID = _COMPREHENSIVE_3D_SR
    data_set.SOPInstanceUID = generate_uid()
    for keyword in _COPIED:
        setattr(data_set, keyword, source.get(keyword, ""))
    data_set.Modality = "SR"
    data_set.Manufacturer = "Vesalius"
    data_set.SeriesInstanceUID = generate_uid()
    data_set.InstanceNumber = 1
    data_set.InstanceCreationDate = data_set.ContentDate = now.strftime("%Y%m%d")
    data_set.InstanceCreationTime = data_set.ContentTime = now.strftime("%H%M%S")
    data_set.CompletionFlag = "COMPLETE"
    data_set.VerificationFlag = "UNVERIFIED"
    data_set.PreliminaryFlag = "PRELIMINARY"
    data_set.ReferencedPerformedProcedureStepSequence = []
    data_set.PerformedProcedureCodeSequence = []
    scheme = Dataset()
    scheme.CodingSchemeDesignator = SCHEME
    scheme.CodingSchemeName = "Vesalius: codes made of names"
    data_set.CodingSchemeIdentificationSequence = [scheme]
    series: dict[str, Dataset] = {}
    for header in headers:
        uid = str(header.series_uid)
        if uid not in series:
            series[uid] = Dataset()
            series[uid].SeriesInstanceUID = uid
            series[uid].ReferencedSOPSequence = []
        instance = Dataset()
        instance.ReferencedSOPClassUID = header.sop_class
        instance.ReferencedSOPInstanceUID = header.sop_instance
        series[uid].ReferencedSOPSequence.append(instance)
    study = Dataset()
    study.StudyInstanceUID = data_set.StudyInstanceUID
    study.ReferencedSeriesSequence = list(series.values())
    data_set.CurrentRequestedProcedureEvidenceSequence = [study]
    return data_set
