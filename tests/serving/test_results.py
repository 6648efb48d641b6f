# SPDX-License-Identifier: Apache-2.0
"""What is made of an answer: names, formats, files kept and found, and what a kill left."""

from __future__ import annotations

import json

import pytest

from vesalius.errors import UsageError
from vesalius.serving import results
from vesalius.serving.routing import Route
from vesalius.serving.runs import ServedRun
from vesalius.serving.studies import Completeness, Studies
from vesalius.serving.worker import Answered, work_once


def test_what_is_wanted_is_read_and_remembered(state):
    assert results.chosen(state) == ("seg", "sr")
    results.remember(state, results.parse("fhir, gsps,fhir"))
    assert results.chosen(state) == ("fhir", "gsps")
    with pytest.raises(UsageError, match="Did you mean 'gsps'"):
        results.parse("gspz")
    with pytest.raises(UsageError, match="at least"):
        results.parse(" , ")


@pytest.mark.parametrize(
    ("task", "names", "dicom", "form"),
    [
        ("segment", ("seg", "sr"), True, "dicom-seg,dicom-sr"),
        ("segment", ("sr", "gsps"), True, "nifti,dicom-sr,gsps"),
        ("segment", ("gsps", "rtstruct", "fhir"), True, "rtstruct,gsps,fhir"),
        ("segment", ("seg", "fhir"), False, "nifti,fhir"),
        ("classify", ("seg", "sr"), True, "auto"),
        ("classify", ("gsps", "key-images"), True, "json,key-images"),
        ("classify", ("sr", "fhir"), False, "json,fhir"),
    ],
)
def test_formats_are_those_of_predict(task, names, dicom, form):
    from vesalius.flows.predicting.wanted import Wanted

    assert results.formats(task, names, dicom=dicom) == form
    Wanted.parse(form, task)  # and it takes them


def fhir(run, exam, out):
    path = out / "report.fhir.json"
    path.write_text('{"resourceType": "Bundle"}')
    return Answered((), {"predicted": "x"}, [path])


@pytest.fixture
def answered(state, send):
    """Do a job that leaves a file, and return its number."""
    from pathlib import Path

    send(1)
    run = ServedRun(Path("run"), "0" * 16, "classify", ())
    Studies(state, [Route(run)], Completeness(0.0)).look()
    assert work_once(state, fhir)
    return 1


def test_a_file_is_kept_listed_and_found(state, answered):
    (text,) = state.connection().execute("SELECT answer FROM jobs WHERE id = 1").fetchone()
    (line,) = json.loads(text)["files"]
    assert line["name"] == "report.fhir.json"
    path, kind = results.find(state, answered, "report.fhir.json")
    assert kind == "application/fhir+json"
    assert json.loads(path.read_bytes()) == {"resourceType": "Bundle"}
    assert path.stat().st_size == line["bytes"]
    assert results.find(state, answered, "other") is None
    assert results.find(state, 99, "report.fhir.json") is None


def test_what_no_answer_lists_goes_at_the_start(state, answered, tmp_path):
    path, _ = results.find(state, answered, "report.fhir.json")
    (tmp_path / "lost.nii.gz").write_bytes(b"killed before its job was done")
    results.keep(state, tmp_path / "lost.nii.gz")
    (path.parent / "x.part").write_bytes(b"killed while it was written")
    assert results.sweep(state) == 2
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_only_results_of_their_own_are_kept(tmp_path):
    names = ["segmentation-1.nii.gz", "a.dcm", "prediction.json", "prediction.csv", "r.fhir.json"]
    kept = results.to_keep([tmp_path / name for name in names])
    assert [path.name for path in kept] == ["segmentation-1.nii.gz", "r.fhir.json"]
