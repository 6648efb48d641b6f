# SPDX-License-Identifier: Apache-2.0
"""Golden cases with a run that was really trained: reproduced, or not promoted and not healthy."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

import vesalius
from vesalius.cli.main import app
from vesalius.errors import DataError, RunError, UsageError
from vesalius.operation import golden_inputs
from vesalius.operation.worker import plainly
from vesalius.serving import golden, golden_watch, keys, queue, versions
from vesalius.serving.audit import Audit
from vesalius.serving.health import Vitals
from vesalius.serving.routing import default_routes
from vesalius.serving.runs import ServedRun
from vesalius.serving.state import State
from vesalius.serving.worker import once

RULE = "segment"


@pytest.fixture
def served(trained, state, tmp_path):
    """A state whose rule has the first run; both runs are copies that may be damaged."""
    runs, exam = trained
    copies = []
    for number, run in enumerate(runs):
        shutil.copytree(run.path, tmp_path / f"run-{number}")
        copies.append(ServedRun.load(tmp_path / f"run-{number}"))
    versions.settle(state, default_routes(copies[:1]))
    return state, copies, exam


def damage(run, of=0.5):
    """Set some weights to others, as a disk or a hand may."""
    from safetensors import safe_open
    from safetensors.numpy import save_file

    path = run.path / "model.safetensors"
    with safe_open(path, "np") as held:
        facts = held.metadata()
        tensors = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118
    rng = np.random.default_rng(0)
    for name, one in tensors.items():
        if one.dtype.kind == "f" and one.ndim > 1:
            flip = rng.random(one.shape) < of
            tensors[name] = np.where(flip, -one, one).astype(one.dtype)
    save_file(tensors, path, metadata=facts)


def checked(state):
    """Do the checks that wait, as a worker does."""
    while once(state, golden_watch.KIND,
               lambda job, own: golden_watch.do(state, job, plainly, own)):  # fmt: skip
        pass
    rows = state.connection().execute("SELECT healthy, words FROM run_health").fetchall()
    return [(bool(healthy), words) for healthy, words in rows]


def test_a_promoted_run_reproduces_its_cases_and_the_other_is_compared(served):
    state, runs, exam = served
    told = vesalius.promote(runs[0].path, state=state.folder, golden=[exam])
    assert (told.switched, told.cases, told.agreement) == (False, 1, [])
    again = vesalius.promote(runs[0].path, state=state.folder, golden=[exam])
    assert again.cases == 1  # the same exam is the same case
    told = vesalius.promote(runs[1].path, state=state.folder, reason="another seed")
    assert (told.rule, told.version, told.switched, told.cases) == (RULE, 2, True, 1)
    (one,) = told.agreement
    (scores,) = one["dice"]
    assert 0.2 < min(scores.values()) <= 1
    assert versions.active(state.connection(), RULE).run.id == runs[1].id
    golden_watch.ask(state, RULE)
    assert (True, "") in checked(state)
    assert vesalius.rollback(state=state.folder).run == runs[0].name
    assert checked(state) == [(True, ""), (True, "")]
    actions = [line["action"] for line in vesalius.audit(state.folder).lines]
    assert actions == ["golden-case", "promote", "golden", "rollback", "golden"]


def test_corrupted_weights_are_caught_by_the_files_and_by_the_answers(served, intake):
    state, runs, exam = served
    vesalius.promote(runs[0].path, state=state.folder, golden=[exam])
    damage(runs[0])
    golden_watch.ask(state, RULE)
    assert checked(state) == [(False, "its files are not those that were promoted")]
    told = vesalius.status(state.folder)
    assert told.ok is False
    assert any("NOT HEALTHY" in line for line in told.lines())
    vitals = Vitals(state, intake, rules=[RULE])
    assert vitals.to_json()["status"] == "unhealthy"
    assert f'vesalius_run_healthy{{rule="{RULE}",run="{runs[0].id}"}} 0' in vitals.metrics()
    with pytest.raises(RunError, match="damaged or changed"):
        vesalius.promote(runs[0].path, state=state.folder)

    # Were its files thought to be right, its answers would tell.
    found = golden.check(state, RULE, runs[0], runs[0].digest(), plainly, state.folder / "w")
    assert found.cases == 1
    assert "Dice score" in found.problems[0] or "label maps" in found.problems[0]

    # A run that does not answer at all is not promoted, and no case is left of the attempt.
    (runs[1].path / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(RunError, match="is not promoted: case"):
        vesalius.promote(runs[1].path, state=state.folder, golden=[exam.parent / "exam"])
    assert versions.active(state.connection(), RULE).run.id == runs[0].id
    assert len(golden.cases(state, RULE)) == 1
    assert golden.unanswered(state, RULE, runs[1]) == golden.cases(state, RULE)
    assert vesalius.audit(state.folder).lines[-1]["action"] == "promotion-refused"


def test_studies_wait_for_a_run_that_is_not_healthy_and_go_to_the_one_before(served, intake):
    state, runs, exam = served
    vesalius.promote(runs[1].path, state=state.folder, golden=[exam])
    with state.transaction() as connection:
        queue.add(connection, kind="predict", key="k", study_uid="1.2.3", now=0.0,
                  subject={"rule": RULE, "run": str(runs[1].path), "run_id": runs[1].id,
                           "task": "segment", "series": [], "inputs": []})  # fmt: skip
    damage(runs[1])
    golden_watch.ask(state, RULE)
    assert checked(state)[0][0] is False
    assert queue.lease(state, "predict") is None
    assert "1 studies wait" in Vitals(state, intake, rules=[RULE]).problems()[0]
    vesalius.rollback(state=state.folder, reason="damaged")
    assert Vitals(state, intake, rules=[RULE]).problems() == []
    job = queue.lease(state, "predict")
    assert job.subject["run_id"] == runs[0].id


def test_a_run_whose_answers_vary_is_not_promoted(served, monkeypatch):
    state, runs, exam = served
    calls = []

    def varying(run, exam, out):
        calls.append(run)
        plainly(run, exam, out)
        if len(calls) == 2:
            (out / "segmentation-1.nii.gz").unlink()

    monkeypatch.setattr("vesalius.operation.worker.plainly", varying)
    with pytest.raises(RunError, match="it gives 0 label maps, recorded are 1"):
        vesalius.promote(runs[1].path, state=state.folder, golden=[exam])
    assert golden.cases(state, RULE) == []
    assert not list((state.folder / "golden").iterdir())


def test_a_case_that_the_active_run_cannot_answer_stops_nothing(served, monkeypatch):
    state, runs, exam = served

    def refusing(run, exam, out):
        raise DataError("slice 3 is missing")

    monkeypatch.setattr("vesalius.operation.worker.plainly", refusing)
    with pytest.raises(RunError, match="no answer: slice 3 is missing"):
        vesalius.promote(runs[0].path, state=state.folder, golden=[exam])
    assert golden.cases(state, RULE) == []
    assert vesalius.status(state.folder).ok
    assert state.connection().execute("SELECT count(*) FROM run_health").fetchone() == (0,)


def test_a_changed_plan_is_not_promoted(served):
    state, runs, _ = served
    path = runs[1].path / "plan.json"
    plan = json.loads(path.read_text())
    plan["seed"] += 1
    path.write_text(json.dumps(plan))
    with pytest.raises(RunError, match="changed after training"):
        vesalius.promote(runs[1].path, state=state.folder)


def test_a_run_that_is_scored_or_applied_stays_the_run_that_it_was(served, tmp_path):
    _, runs, exam = served
    before = runs[0].digest()
    for split in ("val", "test"):
        vesalius.evaluate(runs[0].path, exam.parent / "cohort", split=split)
    vesalius.predict(runs[0].path, exam, out=tmp_path / "out")
    assert runs[0].digest() == before


def test_the_commands_say_what_was_done(served):
    state, runs, exam = served
    told = CliRunner().invoke(app, ["promote", str(runs[1].path), "--state", str(state.folder),
                                    "--golden", str(exam), "--reason", "why"])  # fmt: skip
    assert told.exit_code == 0, told.output
    assert "version 2, active for the rule 'segment'" in told.stdout
    assert "golden cases reproduced: 1" in told.stdout
    told = CliRunner().invoke(app, ["rollback", "--state", str(state.folder), "--json"])
    assert json.loads(told.stdout) == {"rule": RULE, "run": runs[0].name, "version": 1}


def test_who_the_patient_is_does_not_get_into_a_case(served, tmp_path, file):
    state, _, exam = served
    (tmp_path / "dicom").mkdir()
    (tmp_path / "kept").mkdir()
    secret = {"PatientName": "Secret^Name", "InstitutionName": "Secret", "StationName": "Secret",
              "PatientComments": "Secret", "SeriesDescription": "Secret"}  # fmt: skip
    for number in (1, 2):
        (tmp_path / "dicom" / f"{number}.dcm").write_bytes(file(number, **secret))
    pseudonym = Audit(state).pseudonym
    name = golden_inputs.keep(tmp_path / "dicom", tmp_path / "kept", pseudonym)
    files = sorted((tmp_path / "kept").iterdir())
    assert len(files) == 2
    for path, number in zip(files, (1, 2), strict=True):
        raw = path.read_bytes()
        for word in (b"Secret", b"P-1", b"1970", b"2024", b"Roe", b"1.2.3"):
            assert word not in raw
        read = pydicom.dcmread(path)
        assert read.PatientIdentityRemoved == "YES"
        before = pydicom.dcmread(tmp_path / "dicom" / f"{number}.dcm")
        for keyword in ("PixelData", "ImagePositionPatient", "RescaleIntercept", "Rows"):
            assert read[keyword].value == before[keyword].value
    from vesalius import io

    kept, held = io.read(tmp_path / "kept"), io.read(tmp_path / "dicom")
    assert (kept.data == held.data).all()
    assert np.abs(kept.affine - held.affine).max() < 1e-3
    (tmp_path / "again").mkdir()
    assert golden_inputs.keep(tmp_path / "dicom", tmp_path / "again", pseudonym) == name
    (tmp_path / "png").mkdir()
    golden_inputs.keep(exam, tmp_path / "png", pseudonym)
    assert [path.name for path in (tmp_path / "png").iterdir()] == ["image-001-t1.png"]
    (tmp_path / "burned.dcm").write_bytes(file(1, BurnedInAnnotation="YES"))
    with pytest.raises(DataError, match="burned into"):
        golden_inputs.keep(tmp_path / "burned.dcm", tmp_path / "png", pseudonym)
    with pytest.raises(UsageError, match="does not exist"):
        golden_inputs.keep(tmp_path / "none", tmp_path / "png", pseudonym)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, []),
        ({"probabilities": {"a": 0.705, "b": 0.295}}, []),
        ({"probabilities": {"a": 0.75, "b": 0.25}}, ["its answer is 0.05 from"]),
        ({"probabilities": {"a": float(1), "c": 0.0}, "predicted": "c"}, ["another class"]),
        ({"probabilities": {}, "value": 10.05}, []),
        ({"probabilities": {}, "value": 10.2}, ["its answer is 0.2 from"]),
    ],
)
def test_answers_of_classifiers_are_compared_within_what_processors_change(tmp_path, change, words):
    known = {"task": "classify", "predicted": "a", "probabilities": {"a": 0.7, "b": 0.3}}
    if "value" in change:
        known |= {"probabilities": {}, "value": 10.0}
    for name, answer in (("one", known), ("two", {**known, **change})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "prediction.json").write_text(json.dumps(answer))
    found = golden.differences(tmp_path / "one", tmp_path / "two")
    assert len(found) == len(words)
    assert all(part in line for part, line in zip(words, found, strict=True))


def test_a_check_is_due_at_the_start_and_once_a_day(served, monkeypatch):
    state, _, _ = served
    watch = golden_watch.Checks(state, [RULE])
    assert watch.look() == 1
    assert watch.look() == 0  # one waits
    assert checked(state) == [(True, "")]
    assert watch.look() == 0
    now = state.clock.now()
    monkeypatch.setattr(state.clock, "now", lambda: now + golden_watch.DAY_SECONDS + 1)
    assert watch.look() == 1


def test_a_check_whose_worker_dies_is_no_health(served):
    state, _, _ = served
    golden_watch.ask(state, RULE)
    for _ in range(queue.MOST_ATTEMPTS["golden"]):
        with state.transaction() as connection:
            connection.execute("UPDATE jobs SET not_before = 0")
        assert queue.lease(state, "golden", owner="7") is not None
        queue.release(state, "7", "its worker ended (-9)")
    told = vesalius.status(state.folder)
    assert told.ok is False
    assert "could not be asked" in told.rules[0].lines()[0]


def test_rules_are_told_and_rolled_back_over_http(served, intake):
    pytest.importorskip("fastapi")
    import asyncio

    import httpx

    from vesalius.serving.web import application

    state, runs, exam = served
    vesalius.promote(runs[1].path, state=state.folder, golden=[exam])
    web = application(Vitals(state, intake, rules=[RULE]), Audit(state))
    held = {role: keys.create(state, name=role, roles=[role]) for role in ("read", "admin")}

    def call(method, path, role="admin", **named):
        async def ask():
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(web), base_url="http://x",
                headers={"Authorization": f"Bearer {held[role]}"},
            ) as client:  # fmt: skip
                return await client.request(method, path, **named)

        return asyncio.run(ask())

    (rule,) = call("GET", "/api/rules", "read").json()
    assert (rule["rule"], rule["run"], rule["healthy"]) == (RULE, runs[1].id, True)
    assert str(runs[1].path) not in json.dumps(rule)
    told = call("GET", f"/api/rules/{RULE}/versions", "read").json()
    assert [one["run"] for one in told] == [runs[1].id, runs[0].id]
    back = f"/api/rules/{RULE}/rollback"
    assert call("POST", back, "read", json={}).status_code == 403
    assert call("POST", "/api/rules/none/rollback", json={}).status_code == 404
    assert call("POST", back, json={"reason": "x"}).json()["run"] == runs[0].id
    assert call("POST", back, json={}).status_code == 409
    assert call("POST", f"/api/rules/{RULE}/check").json()["queued"] is False  # waits already
    assert State.existing(state.folder).folder == state.folder
