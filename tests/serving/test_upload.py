# SPDX-License-Identifier: Apache-2.0
"""REST upload: every format and a zip, what is durable, what is refused, and what it never does."""

from __future__ import annotations

import gzip
import io
import pickle
import zipfile

import numpy as np
import pytest

pytest.importorskip("fastapi")

from web_client import Client

from vesalius.serving import keys, results
from vesalius.serving.audit import Audit
from vesalius.serving.guard import Bounds
from vesalius.serving.health import Vitals
from vesalius.serving.reconcile import reconcile
from vesalius.serving.routing import Route
from vesalius.serving.runs import ServedRun
from vesalius.serving.state import State
from vesalius.serving.studies import Completeness, Studies
from vesalius.serving.web import application
from vesalius.serving.worker import Answered, work_once


@pytest.fixture
def web(state, intake):
    key = keys.create(state, name="all", roles=["admin"])
    app = application(
        Vitals(state, intake), Audit(state), Bounds(largest_body=4 << 20, pause_seconds=1)
    )
    return Client(app, key)


@pytest.fixture
def nifti(tmp_path):
    from vesalius import io as images
    from vesalius.volume import Volume

    data = np.arange(4 * 5 * 3, dtype=np.int16).reshape(1, 4, 5, 3)
    return images.write(
        Volume(data, np.diag([2.0, 1, 1, 1])), tmp_path / "scan.nii.gz"
    ).read_bytes()


def png():
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def zipped(*members, compress=zipfile.ZIP_DEFLATED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compress) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


def held(state):
    query = "SELECT origin, transfer_syntax, size FROM instances ORDER BY received"
    return state.connection().execute(query).fetchall()


def incoming(state):
    return list(state.incoming.iterdir())


def test_an_image_is_held_as_it_is_and_shown_in_the_worklist(web, state, nifti):
    answer = web("POST", "/api/upload?modality=mr&description=T1", content=nifti,
                 headers={"X-Patient-ID": "P-7"})  # fmt: skip
    assert answer.status_code == 200
    ((study, count),) = answer.json()["studies"].items()
    assert count == 1
    assert held(state) == [("file", "nii.gz", len(nifti))]
    (row,) = web("GET", "/api/studies").json()
    assert (row["study"], row["patient_id"], row["state"]) == (study, "P-7", "receiving")
    assert incoming(state) == []
    again = web("POST", "/api/upload?modality=mr", content=nifti).json()
    assert again["studies"] == {study: 1}
    assert len(held(state)) == 1
    more = web("POST", f"/api/upload?study={study}", content=png())
    assert list(more.json()["studies"]) == [study]
    assert web("POST", f"/api/upload?study={study}9", content=nifti).status_code == 409
    assert not reconcile(State(state.folder), thorough=True).removed
    assert len(held(state)) == 2


def test_dicomweb_does_not_answer_for_what_is_no_dicom(web, nifti):
    (study,) = web("POST", "/api/upload", content=nifti).json()["studies"]
    for path in ("/studies", "/series", "/instances", f"/studies/{study}/series"):
        assert web("GET", f"/dicom-web{path}").json() == []
    for path in (f"/studies/{study}", f"/studies/{study}/metadata"):
        assert web("GET", f"/dicom-web{path}").status_code == 404


def test_its_results_are_had_over_http(web, state, nifti):
    """A run sees the image under a name that tells its format, and the sender's modality."""
    (study,) = web("POST", "/api/upload?modality=CT", content=nifti).json()["studies"]
    run = ServedRun(state.folder, "0" * 16, "segment", ("CT",))
    Studies(state, [Route(run, ("CT",))], Completeness(0.0)).look()
    seen = []

    def segment(run, exam, out, *, modality):
        from vesalius import io as images
        from vesalius.volume import LabelMap

        (path,) = exam.iterdir()
        volume = images.read(path)
        seen.append((path.name.partition(".")[2], volume.shape, modality))
        found = LabelMap((volume.data > 3).astype(np.uint8), volume.affine, names={1: "a"})
        return Answered((), {"volumes_ml": [{"a": 1.0}]}, [images.write(found, out / "s-1.nii.gz")])

    assert work_once(state, segment)
    assert seen == [("nii.gz", (4, 5, 3), "CT")]
    (job,) = web("GET", f"/api/studies/{study}").json()["jobs"]
    (line,) = job["answer"]["files"]
    answer = web("GET", f"/api/jobs/{job['id']}/files/{line['name']}")
    assert answer.status_code == 200
    assert gzip.decompress(answer.content)[344:348] == b"n+1\0"
    assert web("GET", f"/api/jobs/{job['id']}/files/..%2Fstate.sqlite").status_code == 404
    assert results.find(state, job["id"], "../state.sqlite") is None


def test_dicom_and_a_zip_of_it_become_instances(web, state, file):
    assert web("POST", "/api/upload", content=file(1)).json()["studies"] == {"1.2.3": 1}
    packed = zipped(
        ("a/1.dcm", file(1)), ("a/2.dcm", file(2)), ("a/", b""), ("notes.txt", b"hello"),
        ("b", file(1, study="1.2.4", series="1.2.4.1")),
    )  # fmt: skip
    answer = web("POST", "/api/upload", content=packed)
    assert answer.status_code == 200
    assert answer.json()["studies"] == {"1.2.3": 2, "1.2.4": 1}
    assert {row[0] for row in held(state)} == {"upload"}
    assert len(web("GET", "/dicom-web/instances").json()) == 3


def test_a_member_that_is_none_does_not_take_the_others_along(web, file):
    broken = file(2)[:-40] + b"\xff" * 40
    cut = file(3)[:200]
    answer = web("POST", "/api/upload", content=zipped(("1", file(1)), ("2", broken), ("3", cut)))
    assert answer.status_code == 202
    assert answer.json()["studies"]["1.2.3"] >= 1
    assert 2 in {one["member"] for one in answer.json()["refused"]}


def link():
    entry = zipfile.ZipInfo("link.dcm")
    entry.create_system, entry.external_attr = 3, 0o120777 << 16
    return zipped((entry, b"/etc/passwd"))


def bomb():
    return zipped(("a.dcm", bytes(128) + b"DICM" + bytes(120 << 20)))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b"hello", "not recognized"),
        (pickle.dumps({"a": 1}), "ickle"),
        (b"%PDF-1.7", "not"),
        (link(), "a link"),
        (zipped(("../../up.dcm", b"x")), "climbs out"),
        (zipped(("/etc/x.dcm", b"x")), "absolute"),
        (zipped(("in.zip", zipped(("a", b"x")))), "an archive itself"),
        (zipped(("notes.txt", b"x")), "holds no DICOM"),
        (zipped(("data.pkl", b"x"), ("model/data.pkl", b"x")), "ickle"),
        (zipped(("a.npy", b"\x93NUMPY")), "npz is not taken"),
        (bomb(), "unpacks to 120 MiB, allowed are 64"),
        (zipped(("a.dcm", b"x" * 99))[:-30], "damaged"),
        (bytes(128) + b"DICM" + b"\xff" * 64, "identifier"),
        (b"BM" + bytes(60), "not"),
    ],
)  # fmt: skip
def test_what_is_refused_says_why_and_leaves_nothing(web, state, body, words):
    answer = web("POST", "/api/upload", content=body)
    assert answer.status_code == 422, answer.text
    assert words in answer.json()["detail"]
    assert str(state.folder) not in answer.text
    assert held(state) == []
    assert incoming(state) == []


def test_bounds_and_roles(web, state, nifti, monkeypatch):
    assert web("POST", "/api/upload", content=bytes(5 << 20)).status_code == 413
    assert web("POST", "/api/upload", key="", content=nifti).status_code == 401
    reader = keys.create(state, name="r", roles=["read"])
    assert web("POST", "/api/upload", key=reader, content=nifti).status_code == 403
    for query in ("modality=M'R", "study=../x", f"description={'x' * 65}", "modality=" + "A" * 17):
        assert web("POST", f"/api/upload?{query}", content=nifti).status_code == 422
    header = {"X-Priority": "now"}
    assert web("POST", "/api/upload", content=nifti, headers=header).status_code == 422
    monkeypatch.setattr(type(state), "free_bytes", lambda _: -1)
    assert web("POST", "/api/upload", content=nifti).status_code == 503
    assert held(state) == []
    assert incoming(state) == []


def test_a_study_of_dicom_takes_no_other_images(web, nifti, file):
    web("POST", "/api/upload", content=file(1))
    answer = web("POST", "/api/upload?study=1.2.3", content=nifti)
    assert answer.status_code == 409
    assert "earlier upload" in answer.json()["detail"]


def test_what_is_urgent_is_answered_first(web, state, nifti, file):
    run = ServedRun(state.folder, "0" * 16, "segment", ())
    looking = Studies(state, [Route(run, priority=5)], Completeness(0.0))
    web("POST", "/api/upload", content=file(1))
    urgent = {"X-Priority": "stat"}
    (study,) = web("POST", "/api/upload", content=nifti, headers=urgent).json()["studies"]
    looking.look()
    query = "SELECT study_uid, priority FROM jobs ORDER BY priority DESC"
    assert state.connection().execute(query).fetchall() == [(study, 100), ("1.2.3", 5)]
    web("POST", "/api/upload", content=file(1), headers={"X-Priority": "HIGH"})  # waits already
    assert state.connection().execute(query).fetchall() == [(study, 100), ("1.2.3", 50)]
    body = b"--B\r\nContent-Type: application/dicom\r\n\r\n" + file(2) + b"\r\n--B--"
    kind = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=B'}
    for word, status in (("stat", 200), ("soon", 400)):
        stored = web("POST", "/dicom-web/studies", content=body,
                     headers={**kind, "X-Priority": word})  # fmt: skip
        assert stored.status_code == status
    assert {row[1] for row in state.connection().execute(query)} == {100}


def test_nothing_is_acknowledged_before_it_is_flushed(web, state, nifti, monkeypatch):
    """Stop at each step as a kill would: what was answered is there at the next start."""
    from vesalius.serving import store

    def killed(*_, **__):
        raise OSError(28, "no space")

    monkeypatch.setattr(store, "insert", killed)
    assert web("POST", "/api/upload", content=nifti).status_code == 503
    monkeypatch.undo()
    assert held(state) == []
    found = reconcile(State(state.folder))
    assert (found.adopted, found.missing) == (0, 0)
    assert web("POST", "/api/upload", content=nifti).status_code == 200
    assert len(held(state)) == 1
