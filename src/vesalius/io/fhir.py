# SPDX-License-Identifier: Apache-2.0
"""A run's answer as HL7 FHIR R4: a DiagnosticReport with Observations, in one Bundle of JSON.

After HL7 FHIR Release 4 (v4.0.1), https://hl7.org/fhir/R4/: resources DiagnosticReport,
Observation, Device and Bundle. Units are UCUM's; structures have SNOMED CT codes where
`segment_codes` knows one, else a private code made of the name. The imaging study is referred to by
its Study Instance UID and the patient by the identifier that the images state; a server that takes
the bundle in resolves both. Everything is preliminary: nobody has looked at it yet.
"""

from __future__ import annotations

import datetime
import hashlib
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vesalius.errors import UsageError
from vesalius.io.dicom.segment_codes import Code, codes_for
from vesalius.io.maker import NOT_FOR_DIAGNOSIS, Maker
from vesalius.types import Json

UCUM = "http://unitsofmeasure.org"
_SYSTEMS = {"SCT": "http://snomed.info/sct", "DCM": "http://dicom.nema.org/resources/ontology/DCM"}
_PRIVATE = "urn:vesalius:names"  # codes made of names
_LOINC = "http://loinc.org"
_VOLUME: Code = ("118565006", "SCT", "Volume")
_NOT_AVAILABLE = {
    "coding": [
        {
            "system": "http://terminology.hl7.org/CodeSystem/data-absent-reason",
            "code": "unknown",
            "display": "Unknown",
        }
    ]
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What an answer refers to.

    Attributes:
        study_uid: of the imaging study; empty where the images are no DICOM.
        patient_id: identifier that the images state. Patient data.
        series: UIDs of the series that were looked at.
        body_part: that they show, in words.
        when: the moment of the answer, with its time zone.
    """

    study_uid: str = ""
    patient_id: str = field(default="", repr=False)
    series: Sequence[str] = ()
    body_part: str = ""
    when: datetime.datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One thing that is said.

    Attributes:
        name: of what is observed, for example `diagnosis`, or of a structure whose volume it is.
        volume_ml: of the structure; None where the statement is no volume.
        answer: a class, or empty where there is no single one.
        number: a value with its UCUM unit, or None.
        parts: class -> probability.
        absent: why there is no answer; empty where there is one.
    """

    name: str
    volume_ml: float | None = None
    answer: str = ""
    number: tuple[float, str] | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    absent: str = ""

    def __post_init__(self) -> None:
        numbers = [*self.parts.values(), self.volume_ml or 0.0, (self.number or (0.0,))[0]]
        if not self.name.strip() or not all(map(math.isfinite, numbers)):
            raise UsageError(f"a statement needs a name and finite numbers, got {self!r}")


def diagnostic_report(
    statements: Sequence[Statement], *, study: Study, maker: Maker, conclusion: str = ""
) -> Json:
    """Return a Bundle: the report first, then its observations, and the device that made them.

    The same answer of the same run to the same study has the same identifiers.

    Args:
        statements: what is said.
        study: that it is said of.
        maker: what says it.
        conclusion: remarks, in words.

    Raises:
        UsageError: no statements, or a moment without a time zone.
    """
    if not statements:
        raise UsageError("a report needs at least one statement")
    if study.when.tzinfo is None:
        raise UsageError("the moment of a report needs a time zone")
    seed = "\0".join((study.study_uid, *study.series, maker.run_id, maker.version))
    common = _common(study)
    device = _url(seed, "device")
    entries = []
    for number, one in enumerate(statements):
        said = _observation(one, common, device, study)
        entries.append({"fullUrl": _url(seed, f"observation {number}"), "resource": said})
    words = ". ".join(filter(None, (conclusion.strip().rstrip("."), NOT_FOR_DIAGNOSIS)))
    report: Json = {
        "resourceType": "DiagnosticReport",
        "identifier": [{"system": "urn:ietf:rfc:3986", "value": _url(seed, "report")}],
        "status": "preliminary",
        "category": [_concept(("RAD", "http://terminology.hl7.org/CodeSystem/v2-0074",
                               "Radiology"))],
        "code": _concept(("18748-4", _LOINC, "Diagnostic imaging study")),
        **common,
        "issued": study.when.isoformat(timespec="seconds"),
        "result": [{"reference": entry["fullUrl"]} for entry in entries],
        "conclusion": f"{words}.",
    }  # fmt: skip
    if study.study_uid:
        report["imagingStudy"] = [_imaging(study)]
    made = {
        "resourceType": "Device",
        "identifier": [{"system": "urn:vesalius:plan", "value": maker.run_id}],
        "manufacturer": "Vesalius",
        "deviceName": [{"name": maker.model, "type": "model-name"}],
        "version": [{"value": maker.version}],
        "note": [{"text": maker.limits}],
    }
    return {
        "resourceType": "Bundle",
        "identifier": {"system": "urn:ietf:rfc:3986", "value": _url(seed, "bundle")},
        "type": "collection",
        "timestamp": study.when.isoformat(timespec="seconds"),
        "entry": [
            {"fullUrl": _url(seed, "report"), "resource": report},
            *entries,
            {"fullUrl": device, "resource": made},
        ],
    }


def _common(study: Study) -> Json:
    """Return whom it is about and when it was said."""
    subject: Json = {"display": "patient of the imaging study"}
    if study.patient_id:
        subject = {"type": "Patient", "identifier": {"value": study.patient_id}}
    return {"subject": subject, "effectiveDateTime": study.when.isoformat(timespec="seconds")}


def _observation(one: Statement, common: Json, device: str, study: Study) -> Json:
    said: Json = {
        "resourceType": "Observation",
        "status": "preliminary",
        "category": [
            _concept(("imaging", "http://terminology.hl7.org/CodeSystem/observation-category",
                      "Imaging"))
        ],
        **common,
        "device": {"reference": device},
    }  # fmt: skip
    if study.study_uid:
        said["derivedFrom"] = [_imaging(study)]
    if one.volume_ml is not None:
        structure = _named(one.name)
        said["code"] = _concept((_VOLUME[0], _SYSTEMS["SCT"], _VOLUME[2]), f"Volume of {one.name}")
        said["bodySite"] = structure
        said["valueQuantity"] = _quantity(one.volume_ml, "mL")
    else:
        said["code"] = _named(one.name)
        if study.body_part:
            said["bodySite"] = {"text": study.body_part}
        if one.absent:
            said["dataAbsentReason"] = {**_NOT_AVAILABLE, "text": one.absent}
        elif one.number is not None:
            said["valueQuantity"] = _quantity(*one.number)
        elif one.answer:
            said["valueCodeableConcept"] = _named(one.answer)
    if one.parts:
        said["component"] = [
            {"code": _named(f"Probability of {name}"), "valueQuantity": _quantity(value, "1")}
            for name, value in one.parts.items()
        ]
    return said


def _quantity(value: float, unit: str) -> Json:
    return {"value": float(f"{value:.9g}"), "unit": unit, "system": UCUM, "code": unit}


def _imaging(study: Study) -> Json:
    """Return the reference to the imaging study (ImagingStudy.identifier, R4 section 9.13)."""
    oid = {"system": "urn:dicom:uid", "value": f"urn:oid:{study.study_uid}"}
    return {"type": "ImagingStudy", "identifier": oid}


def _named(name: str) -> Json:
    """Return a name as a concept, with a standard code where there is one."""
    value, scheme, meaning = codes_for(name)[1]
    if scheme in _SYSTEMS:
        return _concept((value, _SYSTEMS[scheme], meaning), name)
    value = hashlib.sha256(name.encode()).hexdigest()[:12].upper()
    return _concept((value, _PRIVATE, name), name)


def _concept(code: Code, text: str = "") -> Json:
    """Return a CodeableConcept of (code, system, display)."""
    value, system, display = code
    found: dict[str, Any] = {"coding": [{"system": system, "code": value, "display": display}]}
    return {**found, "text": text} if text else found


def _url(seed: str, what: str) -> str:
    return uuid.uuid5(uuid.NAMESPACE_URL, f"urn:vesalius:{what}\0{seed}").urn
