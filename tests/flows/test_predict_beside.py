# SPDX-License-Identifier: Apache-2.0
"""What is made beside a label map: each object of a real series, and what is noted instead."""

from __future__ import annotations

import json

import numpy as np
import pydicom
import pytest

from vesalius import io
from vesalius.errors import UsageError
from vesalius.flows.predicting.beside import Facts, classified, make_beside, study_of
from vesalius.flows.predicting.maker import maker_of
from vesalius.flows.predicting.wanted import Wanted
from vesalius.tasks.run import Run
from vesalius.volume import LabelMap, Volume

ALL = ("rtstruct", "dicom-labelmap", "key-images", "gsps", "dicom-sr", "fhir")
RUN = Run(
    path=None,  # type: ignore[arg-type]  # never looked at
    plan={"id": "0123456789abcdef", "task": "segment", "fingerprint": {"modalities": ["CT"]},
          "cohort": {"license": "CC BY 4.0"}},
)  # fmt: skip
FACTS = Facts(
    number=1, volumes_ml={"liver": 12.5, "spleen": 0.0}, expected_dice={"liver": 0.9},
    remarks=["image 1, review: liver"],
)  # fmt: skip


@pytest.fixture
def case(data, tmp_path):
    """Return a label map and the first slices of a real CT, given the identifiers it lacks."""
    folder = tmp_path / "exam"
    folder.mkdir()
    for path in sorted(data("ct_abdomen/example_ct_dicom").iterdir())[:5]:
        one = pydicom.dcmread(path)
        one.StudyInstanceUID, one.SeriesInstanceUID, one.PatientID = "1.2.3", "1.2.3.1", "P-1"
        one.FrameOfReferenceUID = "1.2.3.9"
        one.save_as(folder / path.name)
    (image,) = io.read_all(folder)
    labels = np.zeros((1, *image.shape), np.uint8)
    labels[0, 100:180, 120:200, 1:3] = 1
    return LabelMap(labels, image.affine, names={1: "liver"}, source=image.source), image


def test_every_object_refers_to_its_source_and_names_its_maker(case, tmp_path):
    found, image = case
    files, notes = make_beside(ALL, found, image, tmp_path, maker_of(RUN), FACTS)
    assert notes == []
    assert [path.name for path in files] == [
        "rtstruct-1.dcm", "dicom-labelmap-1.dcm", "key-image-1.dcm", "outlines-1.dcm",
        "report-1.dcm", "report-1.fhir.json",
    ]  # fmt: skip
    source = pydicom.dcmread(image.source.files[0], stop_before_pixels=True)
    for path in files[:-1]:
        read = pydicom.dcmread(path)
        assert read.StudyInstanceUID == source.StudyInstanceUID
        assert read.PatientID == source.PatientID
        said = read.ContributingEquipmentSequence[-1].ContributionDescription
        assert "0123456789abcdef" in said
        assert "not for diagnosis" in said
        assert "CC BY 4.0" in said
    text = str(pydicom.dcmread(files[4]))
    assert "Volume of liver" in text
    assert "12.5" in text
    bundle = json.loads(files[-1].read_text())
    report = bundle["entry"][0]["resource"]
    assert report["imagingStudy"][0]["identifier"]["value"].endswith(source.StudyInstanceUID)
    assert report["conclusion"].startswith("image 1, review: liver")
    volumes = [
        one["resource"]["valueQuantity"]["value"]
        for one in bundle["entry"]
        if one["resource"]["resourceType"] == "Observation"
    ]
    assert volumes == [12.5, 0.0]


def test_what_cannot_be_made_is_noted_and_the_rest_is_there(case, tmp_path):
    found, image = case
    empty = LabelMap(np.zeros_like(found.data), image.affine, names={1: "liver"})
    files, notes = make_beside(("gsps", "dicom-sr"), empty, image, tmp_path, maker_of(RUN), FACTS)
    assert [path.name for path in files] == ["report-1.dcm"]
    assert notes == ["image 1: no gsps: nothing is labeled, so there is no outline to draw"]
    plain = Volume(image.data, image.affine)
    files, notes = make_beside(("key-images", "fhir"), empty, plain, tmp_path, maker_of(RUN), FACTS)
    assert [path.name for path in files] == ["report-1.fhir.json"]
    assert "the image is none" in notes[0]


def test_a_classifiers_answer_as_fhir(case):
    _, image = case
    study = study_of(image, list(map(str, image.source.files)))
    found = {"target": "diagnosis", "predicted": "benign", "abstained": "",
             "probabilities": {"benign": 0.9, "malignant": 0.1}}  # fmt: skip
    said = classified(found, study, maker_of(RUN))["entry"][1]["resource"]
    assert said["valueCodeableConcept"]["text"] == "benign"
    unsure = classified({**found, "abstained": "an outlier"}, study, maker_of(RUN))
    assert unsure["entry"][1]["resource"]["dataAbsentReason"]["text"] == "an outlier"


@pytest.mark.parametrize(
    ("text", "task", "wanted"),
    [
        ("auto", "segment", Wanted("auto")),
        ("minc", "segment", Wanted("minc2")),
        ("gsps, dicom-seg,rtstruct", "segment", Wanted("dicom-seg", ("gsps", "rtstruct"))),
        ("dicom-sr,fhir", "segment", Wanted("auto", ("dicom-sr", "fhir"))),
        ("key-images", "classify", Wanted("auto", ("key-images",))),
        ("fhir,dicom-sr", "classify", Wanted("dicom-sr", ("fhir",))),
    ],
)
def test_formats_are_read(text, task, wanted):
    assert Wanted.parse(text, task) == wanted


@pytest.mark.parametrize(
    ("text", "task", "words"),
    [
        ("gspz", "segment", "Did you mean 'gsps'"),
        ("json", "segment", "belong to a classifier"),
        ("gsps", "classify", "not as 'gsps'"),
    ],
)
def test_formats_that_are_none(text, task, words):
    with pytest.raises(UsageError, match=words):
        Wanted.parse(text, task)
