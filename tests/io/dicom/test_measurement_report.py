# SPDX-License-Identifier: Apache-2.0
"""Measurement reports read back by highdicom, plain pydicom and DCMTK, and what is refused."""

from __future__ import annotations

import shutil
import subprocess
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydicom.data import get_charset_files, get_testdata_file
from pydicom.sr.codedict import codes

from vesalius.errors import DataError, UsageError
from vesalius.io.dicom.assemble import read_series
from vesalius.io.dicom.measurement_report import (
    ABSTAINED,
    LABEL_SET,
    PREDICTED,
    REASON,
    SCHEME,
    write_measurement_report,
)
from vesalius.io.dicom.segmentation_writer import write_segmentation
from vesalius.volume import LabelMap

WriteSeries = Callable[..., list[Path]]

ANSWER: dict[str, Any] = {
    "finding": "diagnosis",
    "probabilities": {"Lungenentzündung": 1 / 3, "肺炎": 2 / 3 - 1e-9, "no finding": 1e-9},
    "label_set": ["肺炎", "Lungenentzündung"],
    "predicted": "肺炎",
    "reason": "",
    "algorithm_name": "Vesalius resnet18 – ensemble",
    "algorithm_version": "0.4.0",
    "run_id": "7f3a9c",
}
SHIPPED = ["CT_small.dcm", "MR_small_bigendian.dcm", "SC_rgb_rle_2frame.dcm", "image_dfl.dcm"]
REAL = {
    "dicom/dcmqi": "segmentations/ct-3slice/*.dcm",
    "dicom/highdicom": "test_files/dx_image.dcm",
    "dicom/enhanced": "In/Philips/*.dcm",
    "dicom/transfer_syntaxes": "no-pixel-spacing.dcm",
}


def shipped(name: str) -> Path:
    path = get_testdata_file(name, download=False)
    assert path is not None
    return Path(path)


def write(path: Path, files: list[Path], **changes: Any) -> Path:
    return write_measurement_report(path, source_files=files, **(ANSWER | changes))


def items(node: pydicom.Dataset) -> Iterator[pydicom.Dataset]:
    """Yield every content item below a node."""
    for item in node.get("ContentSequence", ()):
        yield item
        yield from items(item)


def name_of(item: pydicom.Dataset) -> tuple[str, str]:
    code = item.ConceptNameCodeSequence[0]
    return code.CodeValue, code.CodingSchemeDesignator


def group_of(path: Path) -> list[pydicom.Dataset]:
    """Return the items of the one measurement group, read by pydicom alone."""
    (group,) = (i for i in items(pydicom.dcmread(path)) if name_of(i) == ("125007", "DCM"))
    return list(group.ContentSequence)


def told(path: Path, concept: tuple[str, str, str]) -> list[str]:
    """Return the meanings, or the texts, that the group states under a concept."""
    found = [item for item in group_of(path) if name_of(item) == concept[:2]]
    return [
        item.TextValue if item.ValueType == "TEXT" else item.ConceptCodeSequence[0].CodeMeaning
        for item in found
    ]


def probabilities_of(path: Path) -> dict[str, float]:
    """Return each class's full name with its probability, by its codes and texts."""
    group = group_of(path)
    full = {name_of(item)[0]: item.TextValue for item in group if item.ValueType == "TEXT"}
    found = {}
    for item in group:
        if item.ValueType == "NUM" and "ContentSequence" in item:
            (modifier,) = item.ContentSequence
            code = modifier.ConceptCodeSequence[0]
            name = full.get(code.CodeValue, code.CodeMeaning)
            found[name] = item.MeasuredValueSequence[0].FloatingPointValue
    return found


def check_report(path: Path, files: list[Path]) -> None:
    """Check identity, references and answer against the sources as pydicom reads them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sources = [pydicom.dcmread(file, stop_before_pixels=True) for file in files]
        ds = pydicom.dcmread(path)
        report = hd.sr.srread(path)
    assert name_of(ds) == ("126000", "DCM")
    assert ds.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert ds.SOPClassUID == ds.file_meta.MediaStorageSOPClassUID
    assert ds.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.34"
    for keyword in ("StudyInstanceUID", "PatientID", "PatientName", "PatientSex", "StudyDate"):
        assert str(ds[keyword].value or "") == str(sources[0].get(keyword) or "")
    assert ds.SeriesInstanceUID not in {source.SeriesInstanceUID for source in sources}

    wanted = {(s.SOPClassUID, s.SOPInstanceUID) for s in sources}
    for purpose in (("260753009", "SCT"), ("121112", "DCM")):  # image library; measurement group
        found = [
            (ref.ReferencedSOPClassUID, ref.ReferencedSOPInstanceUID)
            for item in items(ds)
            if item.ValueType == "IMAGE" and name_of(item) == purpose
            for ref in item.ReferencedSOPSequence
        ]
        assert len(found) == len(wanted)
        assert set(found) == wanted
    assert set(report.get_evidence(current_procedure_only=True)) == {
        (s.StudyInstanceUID, s.SeriesInstanceUID, s.SOPInstanceUID, s.SOPClassUID) for s in sources
    }

    (group,) = report.content.get_image_measurement_groups()
    assert group.finding_type.meaning == "diagnosis"
    assert {image.referenced_sop_instance_uid for image in group.source_images} == {
        s.SOPInstanceUID for s in sources
    }
    numbers = {m.name.meaning: (m.value, m.unit.value) for m in group.get_measurements()}
    assert numbers == {
        f"Probability of {name}": (p, "1") for name, p in ANSWER["probabilities"].items()
    }
    said = [(e.name.value, e.value.meaning) for e in group.get_qualitative_evaluations()]
    assert (PREDICTED[0], "肺炎") in said
    assert (ABSTAINED[0], "No") in said
    assert [value for name, value in said if name == LABEL_SET[0]] == ANSWER["label_set"]
    (observer,) = report.content.get_observer_contexts()
    assert observer.observer_type == codes.DCM.Device
    assert observer.observer_identifying_attributes.name == ANSWER["algorithm_name"]
    texts = {name_of(item): item.TextValue for item in items(ds) if item.ValueType == "TEXT"}
    assert texts["111001", "DCM"] == ANSWER["algorithm_name"]
    assert texts["111003", "DCM"] == ANSWER["algorithm_version"]
    assert ANSWER["run_id"] in texts["111002", "DCM"]


@pytest.mark.parametrize("name", SHIPPED)
def test_reports_on_shipped_images_read_back(tmp_path: Path, name: str) -> None:
    files = [shipped(name)]
    check_report(write(tmp_path / "sr.dcm", files), files)


@pytest.mark.parametrize("name", REAL)
def test_reports_on_real_images_read_back(
    data: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    files = sorted(data(name).glob(REAL[name]))
    assert files
    check_report(write(tmp_path / "sr.dcm", files), files)


def test_blanked_identifiers_are_those_that_other_derived_objects_state(
    write_series: WriteSeries, tmp_path: Path
) -> None:
    def blank(_: int, ds: pydicom.Dataset) -> None:
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.StudyInstanceUID = ds.SOPInstanceUID = ""
        del ds.SeriesInstanceUID

    check_blanked(write_series(np.zeros((3, 4, 5), np.int16), edit=blank), tmp_path)


def test_real_images_with_blanked_identifiers_are_referred_to(
    data: Callable[[str], Path], tmp_path: Path
) -> None:
    check_blanked(sorted((data("ct_abdomen") / "example_ct_dicom").iterdir()), tmp_path)


def check_blanked(files: list[Path], folder: Path) -> None:
    """Compare a report's references with those of a segmentation of the same source."""
    (image,) = read_series(files)
    values = np.zeros((1, *image.shape), np.uint8)
    values[:, :2, :2] = 1
    labels = LabelMap(values, image.affine, names={1: "liver"})
    segmentation = pydicom.dcmread(
        write_segmentation(labels, folder / "seg.dcm", source_files=files)
    )
    path = write(folder / "sr.dcm", files)
    report = hd.sr.srread(path)
    assert report.StudyInstanceUID == segmentation.StudyInstanceUID
    (series,) = segmentation.ReferencedSeriesSequence
    wanted = {i.ReferencedSOPInstanceUID for i in series.ReferencedInstanceSequence}
    assert wanted == {
        pydicom.filereader.read_file_meta_info(file).MediaStorageSOPInstanceUID for file in files
    }
    evidence = report.get_evidence(current_procedure_only=True)
    assert {(e[0], e[1], e[2]) for e in evidence} == {
        (report.StudyInstanceUID, series.SeriesInstanceUID, instance) for instance in wanted
    }


@pytest.mark.skipif(shutil.which("dsrdump") is None, reason="dsrdump (DCMTK) is absent")
@pytest.mark.parametrize("predicted", ["肺炎", None])
def test_dcmtk_reads_the_whole_tree(tmp_path: Path, predicted: str | None) -> None:
    long = "neoplasm of uncertain or unknown behavior " * 3
    path = write(
        tmp_path / "sr.dcm",
        [shipped("CT_small.dcm")],
        predicted=predicted,
        probabilities=ANSWER["probabilities"] | {long: 0.0},
        values={"red cells": (312.0, "{cells}")},
        reason="far from what was learned",
    )
    done = subprocess.run(["dsrdump", "+Pl", path], capture_output=True, text=True)  # long values
    assert done.returncode == 0
    # DCMTK's checker of values knows no UTF-8 (3.6.7); it must find nothing else.
    complaints = [line for line in done.stderr.splitlines() if "ISO_IR 192" not in line]
    assert complaints == []
    assert "Comprehensive 3D SR Document" in done.stdout
    for word in ("Lungenentzündung", "312", "far from what was learned", "Image Library", long):
        assert word.strip() in done.stdout


def test_an_abstention_states_its_reason_and_no_category(tmp_path: Path) -> None:
    file = [shipped("CT_small.dcm")]
    reason = "two images could not be read\nand the rest\\most is far from the training set"
    path = write(tmp_path / "sr.dcm", file, predicted=None, label_set=[], reason=reason)
    assert told(path, PREDICTED) == []
    assert told(path, ABSTAINED) == ["Yes"]
    assert told(path, LABEL_SET) == ["None"]  # a set was made, and nothing is in it
    assert told(path, REASON) == [reason]
    assert probabilities_of(path) == ANSWER["probabilities"]
    path = write(path, file, label_set=None)
    assert told(path, PREDICTED) == ["肺炎"]
    assert told(path, ABSTAINED) == ["No"]
    assert told(path, LABEL_SET) == told(path, REASON) == []


def test_a_regression_is_an_answer_and_no_answer_at_all_is_an_abstention(tmp_path: Path) -> None:
    file = [shipped("CT_small.dcm")]
    values = {"age": (61.7, "a"), "age, lower": (np.float32(55.5), "a"), "ratio": (0.1, "1")}
    none: dict[str, Any] = {"probabilities": {}, "label_set": None, "predicted": None}
    path = write(tmp_path / "sr.dcm", file, values=values, **none)
    (group,) = hd.sr.srread(path).content.get_image_measurement_groups()
    numbers = {m.name.meaning: (m.value, m.unit.value) for m in group.get_measurements()}
    assert numbers == {"age": (61.7, "a"), "age, lower": (55.5, "a"), "ratio": (0.1, "1")}
    assert told(path, ABSTAINED) == ["No"]
    assert told(write(path, file, reason="refused", **none), ABSTAINED) == ["Yes"]
    with pytest.raises(UsageError, match="reason must say why"):
        write(path, file, **none)


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.dictionaries(
        # Trailing blanks are no part of a DICOM text (PS3.5 6.2).
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=90)
        .map(str.rstrip)
        .filter(bool),
        st.floats(0, 1),
        min_size=1,
        max_size=6,
    )
)
@example({"a" * 80 + "1": 0.25, "a" * 80 + "2": 0.75})
@example({"x\\y": 1.0, " x/y": 5e-324, "x/y": 0.1})
def test_any_class_name_and_probability_survives(
    tmp_path: Path, probabilities: dict[str, float]
) -> None:
    path = write(
        tmp_path / "sr.dcm",
        [shipped("MR_small.dcm")],
        probabilities=probabilities,
        label_set=list(probabilities),
        predicted=next(iter(probabilities)),
    )
    assert {name: p for name, p in probabilities_of(path).items() if name in probabilities} == (
        probabilities
    )
    ds = pydicom.dcmread(path)
    assert ds.SpecificCharacterSet == "ISO_IR 192"
    coded = [e for e in ds.iterall() if e.keyword in ("CodeValue", "CodeMeaning")]
    for element in coded:
        assert element.VM == 1
        assert 1 <= len(element.value) <= {"CodeValue": 16, "CodeMeaning": 64}[element.keyword]


@pytest.mark.parametrize(
    "name", ["chrArab", "chrFren", "chrH31", "chrH32", "chrJapMulti", "chrKoreanMulti", "chrX2"]
)
def test_patients_of_any_script_are_written_in_unicode(tmp_path: Path, name: str) -> None:
    (file,) = get_charset_files(f"{name}.dcm")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = str(pydicom.dcmread(file, stop_before_pixels=True).PatientName)
    path = write(tmp_path / "sr.dcm", [Path(file)])
    assert not wanted.isascii()
    assert str(pydicom.dcmread(path).PatientName) == wanted
    assert wanted.split("^")[0].encode() in path.read_bytes()


def test_values_that_break_the_standard_are_copied_as_they_are(
    write_series: WriteSeries, tmp_path: Path
) -> None:
    def edit(_: int, ds: pydicom.Dataset) -> None:
        ds.add_new("PatientSex", "CS", "U")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds.add_new("PatientBirthDate", "DA", "1.2.1950")
            ds.add_new("PatientID", "LO", "x" * 70)

    files = write_series(np.zeros((2, 4, 4), np.int16), edit=edit)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = pydicom.dcmread(write(tmp_path / "sr.dcm", files))
        assert (ds.PatientSex, ds.PatientBirthDate, ds.PatientID) == ("U", "1.2.1950", "x" * 70)


def concepts(path: Path) -> dict[str, tuple[str, str]]:
    """Return the code and scheme of each class's concept, by its meaning."""
    found = {}
    for item in group_of(path):
        if item.ValueType == "NUM" and "ContentSequence" in item:
            code = item.ContentSequence[0].ConceptCodeSequence[0]
            found[code.CodeMeaning] = code.CodeValue, code.CodingSchemeDesignator
    return found


def test_codes_are_standard_where_they_are_exact_and_stable_elsewhere(tmp_path: Path) -> None:
    file = [shipped("CT_small.dcm")]

    def coded(*classes: str) -> dict[str, tuple[str, str]]:
        given = dict.fromkeys(classes, 0.5)
        answer: dict[str, Any] = {"probabilities": given, "label_set": None}
        return concepts(write(tmp_path / "sr.dcm", file, predicted=classes[0], **answer))

    first = coded("tumor", "grade 2")
    second = coded("grade 2", "tumor 2", "zebra")
    assert first["Tumor"] == ("108369006", "SCT")
    assert first["grade 2"] == second["grade 2"]
    assert second["tumor 2"][1] == SCHEME  # the code of a tumor would say less
    same = coded("tumor", "neoplasm")  # one SNOMED code for two classes would confuse them
    assert {scheme for _, scheme in same.values()} == {SCHEME}
    assert len(set(same.values())) == 2


def test_images_are_grouped_by_series_and_named_once(
    write_series: WriteSeries, tmp_path: Path
) -> None:
    def other(k: int, ds: pydicom.Dataset) -> None:
        ds.SeriesInstanceUID, ds.SOPInstanceUID = "1.2.3.9", f"1.2.3.9.{k + 1}"
        ds.FrameOfReferenceUID = "1.2.3.77"

    mr = write_series(np.zeros((2, 5, 6), np.int16))
    ct = write_series(np.zeros((3, 7, 8), np.int16), modality="CT", edit=other)
    path = write(tmp_path / "sr.dcm", [*mr, *ct, mr[0]])
    ds = pydicom.dcmread(path)
    groups = [item for item in items(ds) if name_of(item) == ("126200", "DCM")]
    found = []
    for group in groups:
        context = {name_of(i)[0]: i for i in group.ContentSequence if i.ValueType != "IMAGE"}
        images = [i for i in group.ContentSequence if i.ValueType == "IMAGE"]
        sizes = {
            tuple(int(n.MeasuredValueSequence[0].NumericValue) for n in image.ContentSequence)
            for image in images
        }
        modality = context["121139"].ConceptCodeSequence[0].CodeValue
        frame = context["112227"].UID if "112227" in context else None
        found.append((modality, frame, len(images), sizes))
    assert found == [("MR", None, 2, {(5, 6)}), ("CT", "1.2.3.77", 3, {(7, 8)})]
    (study,) = ds.CurrentRequestedProcedureEvidenceSequence
    counts = {
        s.SeriesInstanceUID: len(s.ReferencedSOPSequence) for s in study.ReferencedSeriesSequence
    }
    assert counts == {"1.2.3.4": 2, "1.2.3.9": 3}


def test_two_reports_are_two_instances_of_one_device(tmp_path: Path) -> None:
    file = [shipped("CT_small.dcm")]
    first, second = (pydicom.dcmread(write(tmp_path / f"{n}.dcm", file)) for n in range(2))
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.SeriesInstanceUID != second.SeriesInstanceUID
    devices = [[i.UID for i in items(ds) if name_of(i)[0] == "121012"] for ds in (first, second)]
    assert devices[0] == devices[1]
    third = pydicom.dcmread(write(tmp_path / "3.dcm", file, run_id="another"))
    assert [i.UID for i in items(third) if name_of(i)[0] == "121012"] != devices[0]


@pytest.mark.parametrize(
    ("keyword", "value", "message"),
    [
        ("StudyInstanceUID", "1.2.9", "belong to 2 studies"),
        ("PatientID", "P2", "belong to 2 patients"),
        ("StudyInstanceUID", "", "belong to 2 studies"),
        ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.481.3", "no image \\(structure-set\\)"),
    ],
)
def test_sources_that_one_report_cannot_refer_to_are_refused(
    write_series: WriteSeries, tmp_path: Path, keyword: str, value: str, message: str
) -> None:
    def edit(k: int, ds: pydicom.Dataset) -> None:
        if k == 1:
            setattr(ds, keyword, value)

    files = write_series(np.zeros((2, 4, 4), np.int16), edit=edit)
    with pytest.raises(DataError, match=message):
        write(tmp_path / "sr.dcm", files)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"predicted": "flu"}, "class 'flu' has no probability"),
        ({"label_set": ["flu"]}, "class 'flu' has no probability"),
        ({"probabilities": {"肺炎": 1.01}, "label_set": None}, "from 0 to 1, got 1.01"),
        ({"probabilities": {"肺炎": float("nan")}, "label_set": None}, "from 0 to 1, got nan"),
        ({"predicted": None}, "reason must say why"),
        ({"predicted": None, "reason": " \n"}, "reason must say why"),
        ({"reason": "\x00"}, "control characters"),
        ({"finding": " "}, "not blank"),
        ({"finding": "\udcff"}, "control characters"),
        ({"run_id": ""}, "not blank"),
        ({"values": {"age": (float("inf"), "a")}}, "'age' must be finite"),
        ({"values": {"age": (1.0, "")}}, "UCUM code"),
        ({"values": {"age": (1.0, "years old")}}, "UCUM code"),
    ],
)
def test_answers_that_no_report_can_hold_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = tmp_path / "sr.dcm"
    path.write_bytes(b"an earlier report")
    with pytest.raises(UsageError, match=message):
        write(path, [shipped("CT_small.dcm")], **changes)
    with pytest.raises(UsageError, match="got none"):
        write(path, [])
    assert path.read_bytes() == b"an earlier report"
    assert list(tmp_path.iterdir()) == [path]
