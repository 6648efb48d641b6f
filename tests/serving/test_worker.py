# SPDX-License-Identifier: Apache-2.0
"""Routing, completeness, one result a study whatever happens, pushes that are tried again."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time

import pydicom
import pytest

from vesalius.errors import BudgetError, DataError, RunError, UsageError
from vesalius.serving import queue, store
from vesalius.serving.push import Pusher, Target
from vesalius.serving.routing import Route, Series, default_routes, read_routes
from vesalius.serving.runs import ServedRun
from vesalius.serving.stamp import encoded, stamped
from vesalius.serving.state import State
from vesalius.serving.store import path_of
from vesalius.serving.studies import WITHDRAWN, Completeness, Studies
from vesalius.serving.supervisor import Supervisor
from vesalius.serving.worker import Answered, work_once


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    plan = {"id": "abcdef0123456789", "task": "segment", "measured": {"finished": True},
            "fingerprint": {"modalities": ["CT"]}}  # fmt: skip
    (folder / "plan.json").write_text(json.dumps(plan))
    return ServedRun.load(folder)


@pytest.fixture
def studies(state, run):
    return Studies(state, default_routes([run]), Completeness(quiet_seconds=0.0))


def segment(run, exam, out):
    """Label the bright voxels, as a DICOM Segmentation on the images' grid."""
    from vesalius import io
    from vesalius.volume import LabelMap

    files = sorted(exam.iterdir())
    volume = io.read(exam)
    data = (volume.data > -1000).astype("uint8")
    data[0, 0, 0, 0] = 1
    found = LabelMap(data, volume.affine, names={1: "bright"})
    path = io.write(found, out / "segmentation-1.dcm", format="dicom-seg", source_files=files)
    return Answered((path,), {"volumes_ml": 1.5})


def jobs(state, kind="predict"):
    query = "SELECT state, attempts, reason, answer FROM jobs WHERE kind = ? ORDER BY id"
    return state.connection().execute(query, (kind,)).fetchall()


def results(state):
    query = "SELECT sop_uid, sha256, folder FROM instances WHERE origin = 'result'"
    return state.connection().execute(query).fetchall()


def test_a_run_is_read_from_its_plan(run, tmp_path):
    assert (run.id, run.task, run.modalities) == ("abcdef0123456789", "segment", ("CT",))
    (tmp_path / "other").mkdir()
    with pytest.raises(RunError, match="no run folder"):
        ServedRun.load(tmp_path / "other")
    (tmp_path / "other" / "plan.json").write_text('{"id": "1", "task": "x", "measured": {}}')
    with pytest.raises(RunError, match="not finished"):
        ServedRun.load(tmp_path / "other")


def test_rules_choose_series(run, tmp_path):
    rules = [{"run": "run", "body_part": "head", "series": "*T1*", "modality": "MR"}]
    (tmp_path / "rules.json").write_text(json.dumps(rules))
    (route,) = read_routes(tmp_path / "rules.json", [run])
    assert route.takes(Series("1", "MR", "HEAD", "sag t1 mprage"))
    assert not route.takes(Series("1", "MR", "HEAD", "T2"))
    assert not route.takes(Series("1", "MR", "KNEE", "T1"))
    assert not route.takes(Series("1", "CT", "HEAD", "T1"))
    assert not Route(run).takes(Series("1", "SEG", "", ""))


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ([{"run": "run", "modalty": "MR"}], "Did you mean 'modality'"),
        ([{"run": "none"}], "must name a run"),
        ([{}], "must name a run"),
        ([{"run": "run", "priority": "high"}], "whole number"),
        ({}, "list of objects"),
    ],
)
def test_rules_that_are_none_say_what_is_wrong(run, tmp_path, rules, words):
    (tmp_path / "rules.json").write_text(json.dumps(rules))
    with pytest.raises(UsageError, match=words):
        read_routes(tmp_path / "rules.json", [run])


def test_a_study_is_complete_when_it_was_quiet_and_not_before(state, send, run):
    looking = Studies(state, default_routes([run]), Completeness(quiet_seconds=0.3))
    send(1)
    assert looking.look() == 0
    time.sleep(0.35)
    assert looking.look() == 1
    assert looking.look() == 0
    assert queue.depth(state) == {("predict", "ready"): 1}


def test_a_study_is_complete_when_it_has_the_count(state, send, run):
    looking = Studies(state, default_routes([run]), Completeness(1e9, count=2))
    send(1)
    assert looking.look() == 0
    send(2)
    assert looking.look() == 1


def test_after_a_start_the_quiet_time_begins_anew(state, send, run):
    send(1)
    with state.transaction() as connection:
        connection.execute("UPDATE studies SET last_seen = 0")
    assert Studies(state, default_routes([run]), Completeness(quiet_seconds=60)).look() == 0


def test_the_same_study_asks_once_and_more_of_it_asks_anew(state, send, studies):
    send(1)
    studies.look()
    send(1)  # again: nothing new
    assert studies.look() == 0
    send(2)
    studies.look()
    assert [(name, reason) for name, _, reason, _ in jobs(state)] == [
        ("refused", WITHDRAWN),
        ("ready", ""),
    ]


def test_the_result_is_an_instance_with_the_source_and_the_maker_inside(
    state, send, studies, tmp_path
):
    for number in (1, 2, 3):
        send(number)
    studies.look()
    assert work_once(state, segment, targets=["dicom://PACS@h:1"])
    ((name, _, reason, answer),) = jobs(state)
    assert (name, reason) == ("done", "")
    ((sop_uid, sha256, folder),) = results(state)
    assert json.loads(answer) == {"volumes_ml": 1.5, "objects": [sop_uid]}
    read = pydicom.dcmread(path_of(state, folder, sha256))
    assert read.SOPInstanceUID == sop_uid == read.file_meta.MediaStorageSOPInstanceUID
    assert read.StudyInstanceUID == "1.2.3"
    assert read.FrameOfReferenceUID == "1.2.3.9"
    assert read.ContributingEquipmentSequence[-1].ManufacturerModelName.endswith("abcdef0123456789")
    sources = read.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert {one.ReferencedSOPInstanceUID for one in sources} == {f"1.2.3.1.{n}" for n in (1, 2, 3)}
    assert jobs(state, "push")[0][0] == "ready"
    assert not (state.folder / "work").exists() or not list((state.folder / "work").iterdir())
    assert studies.look() == 0  # a result is no news of the study
    assert not work_once(state, segment)


def test_the_same_work_makes_the_same_object(state, send, tmp_path):
    from vesalius import io
    from vesalius.volume import LabelMap

    send(1)
    send(2)
    paths = sorted(state.instances.rglob("*.dcm"))
    volume = io.read(paths)
    found = LabelMap((volume.data > -1000).astype("uint8") | 1, volume.affine, names={1: "a"})
    made = []
    for name in ("one.dcm", "two.dcm"):
        path = io.write(found, tmp_path / name, format="dicom-seg", source_files=paths)
        read = stamped(path, key="job", which="a", made_by="run")
        for keyword in ("ContentTime", "InstanceCreationTime", "SeriesTime", "ContentDate",
                        "InstanceCreationDate", "SeriesDate"):  # fmt: skip
            if keyword in read:
                delattr(read, keyword)
        for item in read.ContributingEquipmentSequence:
            item.pop("ContributionDateTime", None)
        made.append(read)
    for one, two in zip(*made, strict=True):
        assert one == two
    assert encoded(made[0]) == encoded(made[1])
    other = stamped(tmp_path / "one.dcm", key="another", which="a", made_by="run")
    assert other.SOPInstanceUID != read.SOPInstanceUID


def test_a_kill_at_any_moment_leaves_one_result(state, send, studies, monkeypatch):
    """Stop the work at each durable step, as a kill would, and start again."""

    class Killed(BaseException):
        pass

    for number in (1, 2):
        send(number)
    studies.look()

    def killed(*_, **__):
        raise Killed

    steps = ["vesalius.serving.worker.stamped", "vesalius.serving.store.os.rename",
             "vesalius.serving.store.fsync_folder", "vesalius.serving.store.insert",
             "vesalius.serving.queue.finish"]  # fmt: skip
    for step in steps:
        monkeypatch.setattr(step, killed)
        with pytest.raises(Killed):
            work_once(state, segment)
        monkeypatch.undo()
        assert results(state) == []
        assert queue.recover(state) == 1
    assert work_once(state, segment)
    assert len(results(state)) == 1
    assert jobs(state)[0][0] == "done"


def test_data_that_cannot_serve_are_refused_and_errors_are_tried_again(state, send, studies):
    send(1)
    studies.look()

    def out_of_memory(run, exam, out):
        raise BudgetError("needs 9 GB")

    def broken(run, exam, out):
        raise ZeroDivisionError("PATIENT NAME")

    def gap(run, exam, out):
        name = next(exam.iterdir()).name
        raise DataError(f"{exam / name}: slice 37 is missing")

    for predict, words in ((out_of_memory, "needs 9 GB"), (broken, "ZeroDivisionError in the run")):
        assert work_once(state, predict)
        ((name, _, reason, _),) = jobs(state)
        assert (name, reason) == ("ready", words)
        with state.transaction() as connection:
            connection.execute("UPDATE jobs SET not_before = 0")
    work_once(state, gap)
    ((name, _, reason, _),) = jobs(state)
    assert name == "refused"
    assert reason.startswith("series-2-instance-1-")
    assert reason.endswith("slice 37 is missing")
    assert str(state.folder) not in reason


def test_a_worker_whose_lease_went_to_another_leaves_nothing(state, send, studies):
    send(1)
    send(2)
    studies.look()

    def slow(run, exam, out):
        with state.transaction() as connection:
            connection.execute("UPDATE jobs SET lease = 'another-1'")
        return segment(run, exam, out)

    assert work_once(state, slow)
    assert results(state) == []
    assert len(list(state.instances.rglob("*.dcm"))) == 2
    assert jobs(state)[0][0] == "leased"


def test_a_full_disk_does_not_lose_the_job(state, send, studies, monkeypatch):
    send(1)
    send(2)
    studies.look()

    def full(*_, **__):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(store, "insert", full)
    assert work_once(state, segment)
    monkeypatch.undo()
    assert jobs(state)[0][0] == "ready"
    assert results(state) == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("dicom://PACS@10.0.0.1:104", "dicom://PACS@10.0.0.1:104"),
        ("http://u:secret@pacs:8042/dicom-web/", "http://pacs:8042/dicom-web"),
        ("https://pacs/dicom-web", "https://pacs:443/dicom-web"),
    ],
)
def test_targets(text, name):
    target = Target.parse(text)
    assert target.name == name
    assert "secret" not in target.name


@pytest.mark.parametrize("text", ["pacs", "ftp://x", "dicom://host:104", "http://", "http://x:y/"])
def test_targets_that_are_none(text):
    with pytest.raises(UsageError, match="dicom://TITLE@host:port"):
        Target.parse(text)


def test_a_pacs_that_is_not_there_is_tried_again_and_not_for_ever(state, send):
    arrival = send(1)
    target = Target.parse("http://127.0.0.1:9/dicom-web")
    with state.transaction() as connection:
        queue.add(connection, kind="push", key="p", study_uid="1.2.3", now=0.0,
                  subject={"target": target.name, "sha256": arrival.sha256})  # fmt: skip
    pusher = Pusher(state, [target])
    for _ in range(queue.MOST_ATTEMPTS["push"]):
        assert jobs(state, "push")[0][0] == "ready"
        assert pusher.push_once()
        with state.transaction() as connection:
            connection.execute("UPDATE jobs SET not_before = 0")
    assert jobs(state, "push")[0][0] == "failed"
    assert not pusher.push_once()


def test_a_result_is_pushed_to_a_dicom_node(state, send, tmp_path):
    pytest.importorskip("pynetdicom")
    from vesalius.serving.dimse import Node, NodeSettings
    from vesalius.serving.intake import Intake

    arrival = send(1)
    pacs = State(tmp_path / "pacs")
    taking = Intake(pacs, reserve=0)
    node = Node(taking, NodeSettings(title="PACS", port=0))
    try:
        target = Target.parse(f"dicom://PACS@127.0.0.1:{node.port}")
        with state.transaction() as connection:
            queue.add(connection, kind="push", key="p", study_uid="1.2.3", now=0.0,
                      subject={"target": target.name, "sha256": arrival.sha256})  # fmt: skip
        assert Pusher(state, [target]).push_once()
        assert jobs(state, "push")[0][0] == "done"
        held = pacs.connection().execute("SELECT sha256 FROM instances").fetchall()
        assert held == [(arrival.sha256,)]
    finally:
        node.close()
        taking.close()


def counting_main(folder, targets, stop, wait):
    """A worker that says who it is, and dies where it is told to."""
    (folder / f"pid-{os.getpid()}").write_text("")
    while not stop():
        wait(0.05)


@pytest.mark.slow
def test_workers_are_started_anew_and_end_with_their_server(state):
    keeping = Supervisor(state, counting_main, workers=1)
    try:
        first = keeping.pids[0]
        os.kill(first, signal.SIGKILL)
        end = time.monotonic() + 60
        while keeping.restarts == 0 or keeping.alive == 0:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert keeping.pids[0] != first
    finally:
        keeping.close()
    assert keeping.alive == 0


def test_a_report_is_stamped_and_taken_in_as_well(state, send, studies):
    """A classifier's structured report goes the same way as a segmentation."""
    from vesalius.io.dicom.measurement_report import write_measurement_report

    send(1)
    send(2)
    studies.look()

    def classify(run, exam, out):
        path = write_measurement_report(
            out / "report.dcm",
            source_files=sorted(exam.iterdir()),
            finding="diagnosis",
            probabilities={"benign": 0.75, "malignant": 0.25},
            label_set=["benign"],
            predicted="benign",
            reason="",
            algorithm_name="Vesalius",
            algorithm_version="0",
            run_id=run.name,
        )
        return Answered((path,), {"predicted": "benign"})

    assert work_once(state, classify)
    assert jobs(state)[0][0] == "done"
    ((sop_uid, sha256, folder),) = results(state)
    read = pydicom.dcmread(path_of(state, folder, sha256))
    assert (read.Modality, read.SOPInstanceUID, read.StudyInstanceUID) == ("SR", sop_uid, "1.2.3")
    (evidence,) = read.CurrentRequestedProcedureEvidenceSequence
    held = evidence.ReferencedSeriesSequence
    assert {x.ReferencedSOPInstanceUID for s in held for x in s.ReferencedSOPSequence} == {
        "1.2.3.1.1",
        "1.2.3.1.2",
    }


def test_the_workers_of_the_command_line_answer_by_the_flow_of_predict(
    monkeypatch, tmp_path, run, file
):
    """Law 4: nothing stands between a job and `vesalius predict` but paths that are left out."""
    from vesalius.flows.predicting.prediction import Prediction
    from vesalius.operation import worker as serving_worker

    asked = []

    def predict(run, exam, *, out, modality, limits, memory, **options):
        asked.append((run, exam, out, modality, memory, options["format"]))
        files = (out / "a.dcm", out / "b.json", out / "c.fhir.json")
        return Prediction("classify", files, answer={"predicted": "x"})

    monkeypatch.setattr("vesalius.flows.predict.predict", predict)
    exam = tmp_path / "exam"
    exam.mkdir()
    (exam / "1.dcm").write_bytes(file(1))
    found = serving_worker.offline(
        run.path, exam, tmp_path, modality="MR", wanted=["gsps", "fhir"], budget=1 << 30
    )
    assert asked == [(run.path, exam, tmp_path, "MR", 1 << 29, "nifti,gsps,fhir")]
    assert found.objects == [tmp_path / "a.dcm"]
    assert found.files == [tmp_path / "c.fhir.json"]
    assert found.answer == {"task": "classify", "predicted": "x", "notes": []}
