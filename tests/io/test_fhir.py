# SPDX-License-Identifier: Apache-2.0
"""FHIR reports: the fields that R4 requires, units, references that resolve, nothing invented.

The tables below are copied by hand from the resource pages of HL7 FHIR R4 (v4.0.1): elements with
a lower bound of 1, the value sets with required binding, and the constraints that concern us
(obs-6, obs-7, bdl-7, ref-1).
"""

from __future__ import annotations

import datetime
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vesalius.errors import UsageError
from vesalius.io.fhir import UCUM, Statement, Study, diagnostic_report
from vesalius.io.maker import NOT_FOR_DIAGNOSIS, Maker

REQUIRED = {
    "DiagnosticReport": ("status", "code"),
    "Observation": ("status", "code"),
    "Device": (),
    "Bundle": ("type",),
}
STATUS = {
    "DiagnosticReport": {"registered", "partial", "preliminary", "final", "amended", "corrected",
                         "appended", "cancelled", "entered-in-error", "unknown"},
    "Observation": {"registered", "preliminary", "final", "amended", "corrected", "cancelled",
                    "entered-in-error", "unknown"},
}  # fmt: skip
ELEMENTS = {  # all that R4 has and we use; anything else is a mistake
    "DiagnosticReport": {"resourceType", "identifier", "status", "category", "code", "subject",
                         "effectiveDateTime", "issued", "result", "imagingStudy", "conclusion"},
    "Observation": {"resourceType", "status", "category", "code", "subject", "effectiveDateTime",
                    "valueQuantity", "valueCodeableConcept", "dataAbsentReason", "bodySite",
                    "device", "derivedFrom", "component"},
    "Device": {"resourceType", "identifier", "manufacturer", "deviceName", "version", "note"},
}  # fmt: skip
MAKER = Maker(model="segment-01234567", run_id="0123456789abcdef", limits="Trained on CT.")
WHEN = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
STUDY = Study(study_uid="1.2.3", patient_id="P-1", series=["1.2.3.1"], when=WHEN)
NUMBERS = st.floats(0, 1e6, allow_nan=False)


def checked(bundle):
    """Check a bundle by the tables, and return its resources by type."""
    assert bundle["resourceType"] == "Bundle"
    assert bundle["type"] == "collection"
    urls = [entry["fullUrl"] for entry in bundle["entry"]]
    assert len(set(urls)) == len(urls)  # bdl-7
    found = {}
    for entry in bundle["entry"]:
        one = entry["resource"]
        kind = one["resourceType"]
        assert set(one) <= ELEMENTS[kind]
        for name in REQUIRED[kind]:
            assert one[name]
        assert one.get("status", "final") in STATUS.get(kind, {"final"})
        found.setdefault(kind, []).append(one)
    for quantity in walk(bundle, "valueQuantity"):
        assert quantity["system"] == UCUM
        assert quantity["code"] in ("mL", "1", "mm")
    for coding in [one for many in walk(bundle, "coding") for one in many]:
        assert coding["system"].startswith(("http://", "urn:"))
        assert coding["code"]
        assert coding["code"].strip() == coding["code"]
    for reference in walk(bundle, "reference"):
        assert reference in urls
    for one in found.get("Observation", []):
        valued = {name for name in one if name.startswith("value")}
        assert len(valued) <= 1
        assert not (valued and "dataAbsentReason" in one)  # obs-6
        for part in one.get("component", ()):
            assert part["code"] != one["code"]  # obs-7
    assert json.loads(json.dumps(bundle, allow_nan=False)) == bundle
    return found


def walk(value, name):
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == name:
                yield inner
            yield from walk(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from walk(inner, name)


def test_volumes_of_structures():
    said = [Statement(name="Liver", volume_ml=1432.5), Statement(name="my part", volume_ml=0.0)]
    bundle = diagnostic_report(said, study=STUDY, maker=MAKER, conclusion="look at the liver")
    found = checked(bundle)
    (report,) = found["DiagnosticReport"]
    assert report["status"] == "preliminary"
    assert report["conclusion"] == f"look at the liver. {NOT_FOR_DIAGNOSIS}."
    assert report["imagingStudy"][0]["identifier"]["value"] == "urn:oid:1.2.3"
    assert report["subject"]["identifier"]["value"] == "P-1"
    liver, other = found["Observation"]
    assert liver["valueQuantity"] == {"value": 1432.5, "unit": "mL", "system": UCUM, "code": "mL"}
    assert liver["bodySite"]["coding"][0]["code"] == "10200004"
    assert other["bodySite"]["coding"][0]["system"] == "urn:vesalius:names"
    (device,) = found["Device"]
    assert device["identifier"][0]["value"] == MAKER.run_id
    assert device["note"][0]["text"] == "Trained on CT."


def test_a_class_and_an_abstention_and_a_number():
    parts = {"benign": 0.25, "malignant": 0.75}
    said = [
        Statement(name="diagnosis", answer="malignant", parts=parts),
        Statement(name="diagnosis", parts=parts, absent="two classes are as likely"),
        Statement(name="age", number=(61.5, "1")),
    ]
    found = checked(diagnostic_report(said, study=STUDY, maker=MAKER))
    answered, abstained, number = found["Observation"]
    assert answered["valueCodeableConcept"]["text"] == "malignant"
    assert [one["valueQuantity"]["value"] for one in answered["component"]] == [0.25, 0.75]
    assert abstained["dataAbsentReason"]["text"] == "two classes are as likely"
    assert "valueCodeableConcept" not in abstained
    assert number["valueQuantity"]["value"] == 61.5


@given(st.dictionaries(st.text(min_size=1).filter(str.strip), NUMBERS, min_size=1, max_size=4))
def test_any_names_and_numbers_give_a_valid_report_that_is_the_same_again(volumes):
    said = [Statement(name=name, volume_ml=value) for name, value in volumes.items()]
    bundle = diagnostic_report(said, study=STUDY, maker=MAKER)
    checked(bundle)
    assert diagnostic_report(said, study=STUDY, maker=MAKER) == bundle
    other = Study(study_uid="1.2.4", when=WHEN)
    urls = {entry["fullUrl"] for entry in bundle["entry"]}
    assert not urls & {
        entry["fullUrl"] for entry in diagnostic_report(said, study=other, maker=MAKER)["entry"]
    }


def test_images_that_are_no_dicom_name_no_study():
    said = [Statement(name="Liver", volume_ml=1.0)]
    found = checked(diagnostic_report(said, study=Study(when=WHEN), maker=MAKER))
    assert "imagingStudy" not in found["DiagnosticReport"][0]
    assert "derivedFrom" not in found["Observation"][0]


def test_what_cannot_be_said_is_refused():
    with pytest.raises(UsageError, match="at least one"):
        diagnostic_report([], study=STUDY, maker=MAKER)
    naive = Study(when=datetime.datetime(2026, 1, 2))
    with pytest.raises(UsageError, match="time zone"):
        diagnostic_report([Statement(name="a", volume_ml=1.0)], study=naive, maker=MAKER)
    for wrong in ({"name": " "}, {"name": "a", "volume_ml": float("nan")}):
        with pytest.raises(UsageError, match="finite"):
            Statement(**wrong)
