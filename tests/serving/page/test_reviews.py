# SPDX-License-Identifier: Apache-2.0
"""Accept, correct, reject: who may, what is kept, and the cohort that comes of it."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from hospital import (
    Here,
    answer_all,
    boxes,
    classes,
    read_bytes,
    send_series,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vesalius import io
from vesalius.cohorts import Cohort
from vesalius.flows.scan import scan
from vesalius.serving.page import desk as desks
from vesalius.volume import LabelMap

STUDY = "/api/studies/1.2.3"


def drawn(look, sop, tmp_path, change):
    """Return the bytes of the result's mask with a change, as a page would send them."""
    raw = look("GET", f"{STUDY}/labels/{sop}/0.nii.gz").content
    found = read_bytes(raw, tmp_path, "drawn.nii.gz")
    data = np.array(found.data)
    affine = change(data)
    affine = found.affine if affine is None else affine
    io.write(LabelMap(data, affine), tmp_path / "sent.nii.gz")
    return (tmp_path / "sent.nii.gz").read_bytes()


def add_row(data):
    data[0, :, 2, 3] = 2


def correct(look, job, sop, tmp_path, change=add_row, **more):
    sent = look.json("POST", f"{STUDY}/labels/{sop}/masks", 201,
                     content=drawn(look, sop, tmp_path, change))  # fmt: skip
    review = {"job": job, "object": sop, "decision": "edit", "mask": sent["mask"],
              "reasons": ["boundary"], "comment": "Mrs. Doe's cyst", **more}  # fmt: skip
    return sent, look.json("POST", f"{STUDY}/reviews", 201, json=review)


def test_a_correction_lies_on_the_source_grid_and_becomes_a_case(
    state, segmented, browser, tmp_path, audit
):
    look, (job, sop) = browser(), segmented
    sent, review = correct(look, job, sop, tmp_path)
    assert sent["changed_voxels"] > 0
    assert sent["dice"]["vessel"] < 1
    assert review["learned_images"] == 1
    assert review["by"] == "Dr. Roe"
    raw = look("GET", f"{STUDY}/reviews/{review['number']}/mask.nii.gz").content
    mask = read_bytes(raw, tmp_path)
    assert mask.names == {1: "lesion", 2: "vessel"}
    (image,) = state.folder.glob("corrections/lesion-vessel/images/*.nii.gz")
    (label,) = state.folder.glob("corrections/lesion-vessel/labels/*.nii.gz")
    assert image.name == label.name
    assert image.name.startswith("ct-")
    scanned, held = io.read(image), io.read_labels(label)
    np.testing.assert_array_equal(held.data, mask.data)
    np.testing.assert_allclose(held.affine, scanned.affine, atol=1e-3)
    assert (held.data[0, :, 2, 3] == 2).all()
    found = look.json("GET", f"{STUDY}/view")["reviews"]
    assert [(one["decision"], one["reasons"]) for one in found] == [("edit", ["boundary"])]
    assert look.json("GET", "/api/worklist?only=reviewed")["studies"][0]["decision"] == "edit"
    log = audit.path.read_text()
    assert '"action": "review"' in log
    assert "Doe" not in log


def test_the_latest_word_counts(state, segmented, browser, tmp_path):
    look, (job, sop) = browser(), segmented
    correct(look, job, sop, tmp_path)
    accept = {"job": job, "object": sop, "decision": "accept", "learn": True}
    assert look.json("POST", f"{STUDY}/reviews", 201, json=accept)["learned_images"] == 1
    (label,) = state.folder.glob("corrections/*/labels/*.nii.gz")
    assert not (io.read_labels(label).data[0, :, 2, 3] == 2).all()  # the run's own mask again
    with open(label.parent.parent / "cases.csv") as stream:
        assert [row["decision"] for row in csv.DictReader(stream)] == ["accepted"]
    reject = {"job": job, "object": sop, "decision": "reject", "reasons": ["image-quality"]}
    look.json("POST", f"{STUDY}/reviews", 201, json=reject)
    assert not list(state.folder.glob("corrections/*"))
    assert len(look.json("GET", f"{STUDY}/view")["reviews"]) == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data.__setitem__((0, 0, 0, 0), 7), "the structures are 1 lesion, 2 vessel"),
        (lambda _: np.eye(4), "lies elsewhere"),
    ],
)
def test_a_mask_of_something_else_is_refused(segmented, browser, tmp_path, change, words):
    look, (_, sop) = browser(), segmented
    answer = look("POST", f"{STUDY}/labels/{sop}/masks",
                  content=drawn(look, sop, tmp_path, change))  # fmt: skip
    assert answer.status_code == 422
    assert words in answer.text


@pytest.mark.parametrize("body", [b"", b"\x1f\x8b garbage", b"x" * 5000, bytes(62)])
def test_a_mask_that_is_none_is_refused(segmented, browser, body, state):
    look, (_, sop) = browser(), segmented
    answer = look("POST", f"{STUDY}/labels/{sop}/masks", content=body)
    assert answer.status_code == 422, answer.text
    assert str(state.folder) not in answer.text
    assert not list(state.incoming.iterdir())


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"decision": "acept"}, 422, "Did you mean 'accept'"),
        ({"decision": "reject"}, 422, "say why"),
        ({"decision": "reject", "reasons": ["bondary"]}, 422, "Did you mean 'boundary'"),
        ({"decision": "edit", "reasons": ["other"]}, 422, "'edit' comes with the mask"),
        ({"decision": "accept", "label": "x"}, 422, "'edit' comes with the mask"),
        ({"job": 99}, 404, "no such result"),
        ({"object": "1.2"}, 404, "no such label map"),
        ({"mask": "../../etc/passwd"}, 422, "pattern"),
        ({"decision": "edit", "reasons": ["other"], "mask": "0" * 32 + ".nii.gz"}, 404, "no mask"),
        ({"comment": "x" * 3000}, 422, "2,000"),
    ],
)
def test_a_review_that_is_none_says_why(segmented, browser, change, status, words):
    job, sop = segmented
    said = {"job": job, "object": sop, "decision": "accept", **change}
    answer = browser()("POST", f"{STUDY}/reviews", json=said)
    assert (answer.status_code, words in answer.text) == (status, True), answer.text


def test_who_only_reads_changes_nothing(segmented, browser, tmp_path):
    look, (job, sop) = browser("read"), segmented
    said = {"job": job, "object": sop, "decision": "accept"}
    assert look("POST", f"{STUDY}/reviews", json=said).status_code == 403
    sent = drawn(look, sop, tmp_path, add_row)
    assert look("POST", f"{STUDY}/labels/{sop}/masks", content=sent).status_code == 403


def test_a_corrected_class_becomes_a_labeled_case(state, send, run, browser):
    send_series(send)
    send_series(send, study="1.2.4", patient="P-2")
    answer_all(state, run("classify"), classes)
    look = browser()
    jobs = dict(state.connection().execute("SELECT study_uid, id FROM jobs").fetchall())
    wrong = {"job": jobs["1.2.3"], "decision": "edit", "label": "malign", "reasons": ["other"]}
    assert "malignant" in look("POST", f"{STUDY}/reviews", json=wrong).text
    right = wrong | {"label": "malignant"}
    assert look.json("POST", f"{STUDY}/reviews", 201, json=right)["learned_images"] == 1
    other = {"job": jobs["1.2.4"], "decision": "accept", "learn": True}
    look.json("POST", "/api/studies/1.2.4/reviews", 201, json=other)
    with open(state.folder / "corrections" / "diagnosis" / "cases.csv") as stream:
        rows = list(csv.DictReader(stream))
    assert sorted(row["diagnosis"] for row in rows) == ["benign", "malignant"]
    assert len({row["patient"] for row in rows}) == 2
    assert "P-1" not in json.dumps(rows)


def test_a_start_mends_what_a_kill_left(state, segmented, browser, tmp_path, audit, desk):
    look, (job, sop) = browser(), segmented
    correct(look, job, sop, tmp_path)
    folder = state.folder / "corrections" / "lesion-vessel"
    (folder / "images" / "ct-0.nii.gz").write_bytes(b"")
    (folder / "cases.csv").unlink()
    (desk.reviews.folder / ("0" * 32 + ".nii.gz")).write_bytes(b"")
    desks.Desk(state, audit)
    assert len(list((folder / "images").iterdir())) == 1
    assert (folder / "cases.csv").is_file()
    assert len(list(desk.reviews.folder.iterdir())) == 1


def test_the_corrections_are_a_cohort_split_by_patient(state, send, run, browser, tmp_path):
    """Law 5 downstream: two studies of one patient bear one pseudonym, and no name."""
    for number, patient in enumerate(("P-1", "P-1", "P-2")):
        send_series(send, study=f"1.2.{number}", patient=patient, oblique=number != 1)
    answer_all(state, run(), boxes)
    look = browser()
    rows = state.connection().execute("SELECT study_uid, id, answer FROM jobs").fetchall()
    for study, job, answer in rows:
        said = {"job": job, "object": json.loads(answer)["objects"][0], "decision": "accept",
                "learn": True}  # fmt: skip
        look.json("POST", f"/api/studies/{study}/reviews", 201, json=said)
    scan(state.folder / "corrections", out=tmp_path / "cohort", workers=1)
    rows = Cohort.open(tmp_path / "cohort").to_arrow().to_pylist()
    assert len({row["patient"] for row in rows}) == 2
    assert {row["patient_source"] for row in rows} == {"labels"}
    assert {row["modality"] for row in rows} == {"CT"}
    for row in rows:
        assert len(row["mask_files"]) == 1
        assert json.loads(row["mask_names"]) == {"1": "lesion", "2": "vessel"}


@settings(max_examples=8, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(
    places=st.lists(
        st.tuples(st.integers(0, 23), st.integers(0, 19), st.integers(0, 5), st.integers(0, 2)),
        max_size=12,
    )
)
def test_every_voxel_that_is_drawn_is_kept_where_it_is(segmented, browser, tmp_path, places):
    look, (_, sop) = browser(), segmented
    expected = {}

    def change(data):
        for i, j, k, value in places:
            data[0, i, j, k] = value
            expected[i, j, k] = value

    sent = look.json("POST", f"{STUDY}/labels/{sop}/masks", 201,
                     content=drawn(look, sop, tmp_path, change))  # fmt: skip
    review = {"job": segmented[0], "object": sop, "decision": "edit", "mask": sent["mask"],
              "reasons": ["missed"]}  # fmt: skip
    number = look.json("POST", f"{STUDY}/reviews", 201, json=review)["number"]
    kept = read_bytes(look("GET", f"{STUDY}/reviews/{number}/mask.nii.gz").content, tmp_path)
    for place, value in expected.items():
        assert kept.data[(0, *place)] == value


def test_there_are_similar_cases_where_there_is_an_archive(state, audit, segmented, browser, app,
                                                           desk, tmp_path):  # fmt: skip
    look = browser()
    asked = {"series": "1.2.3.1", "words": "cyst"}
    assert "no archive" in look("POST", f"{STUDY}/similar", json=asked).text
    seen = []

    def find(archive, exam, *given):
        seen.append((archive, len(io.read(exam).source.files), *given))
        return {"cases": []}

    desk._archive = desks.Archive(tmp_path, find)
    desk._searching = Here()
    assert look.json("POST", f"{STUDY}/similar", json=asked) == {"cases": []}
    assert seen == [(str(tmp_path), 6, "cyst", 8, 0.5)]
