# SPDX-License-Identifier: Apache-2.0
"""A candidate that looks on: asked after the active run, compared, never sent, never in the way."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vesalius import io
from vesalius.serving import agreement, promotion, shadow, versions
from vesalius.serving.audit import Audit
from vesalius.serving.overview import overview
from vesalius.serving.routing import default_routes
from vesalius.serving.runs import ServedRun
from vesalius.serving.studies import Completeness, Studies
from vesalius.serving.worker import Answered, lay_out, once, work_once
from vesalius.volume import LabelMap

RULE = "segment-ct"


def made_run(folder, number):
    folder.mkdir()
    plan = {"id": number, "task": "segment", "measured": {"finished": True}, "decisions": {},
            "fingerprint": {"modalities": ["CT"]}}  # fmt: skip
    (folder / "plan.json").write_text(json.dumps(plan))
    return ServedRun.load(folder)


@pytest.fixture
def runs(tmp_path):
    return [made_run(tmp_path / name, name * 16) for name in "ab"]


@pytest.fixture
def studies(state, runs):
    routes = default_routes(runs[:1])
    versions.settle(state, routes)
    promotion.look_on(state, Audit(state), RULE, runs[1], runs[1].digest(), "user x", "")
    return Studies(state, routes, Completeness(quiet_seconds=0.0))


def labels(volume, rows):
    data = np.zeros(volume.data.shape, np.uint8)
    data[:, :rows] = 1
    return LabelMap(data, volume.affine, names={1: "organ"})


def served(run, exam, out):
    files = sorted(exam.iterdir())
    path = out / "segmentation-1.dcm"
    io.write(labels(io.read(exam), 2), path, format="dicom-seg", source_files=files)
    return Answered([path], {"volumes_ml": [{"organ": 1.0}]})


def plainly(run, exam, out):
    """The active run marks two rows of four, the candidate three."""
    rows = {"a": 2, "b": 3}[run.name]
    io.write(labels(io.read(exam), rows), out / "segmentation-1.nii.gz")
    (out / "prediction.json").write_text(json.dumps({"run": run.name}))


def look_on(state, answer=plainly):
    return once(
        state, shadow.KIND,
        lambda job, own: shadow.do(
            state, job, answer, lambda exam: lay_out(state, job.subject["inputs"], exam), own),
    )  # fmt: skip


def held(state, origin="result"):
    query = "SELECT count(*) FROM instances WHERE origin = ?"
    return state.connection().execute(query, (origin,)).fetchone()[0]


def jobs(state, kind):
    return [row[0] for row in state.connection().execute(
        "SELECT state FROM jobs WHERE kind = ?", (kind,))]  # fmt: skip


def test_the_candidate_is_compared_and_what_it_says_goes_nowhere(state, send, studies):
    for number in (1, 2):
        send(number)
    studies.look()
    assert not look_on(state)  # not before the active run
    assert work_once(state, served, targets=["dicom://PACS@h:1"])
    assert (held(state), jobs(state, "push")) == (1, ["ready"])
    assert look_on(state)
    assert (held(state), jobs(state, "push")) == (1, ["ready"])
    found = shadow.agreed(state.connection(), RULE)
    assert found == {"run": "segment-bbbbbbbb", "studies": 1, "waiting": 0, "failed": 0,
                     "dice": {"organ": {"mean": 0.8, "lowest": 0.8}}}  # fmt: skip
    assert overview(state.connection())[0].to_json()["shadow"] == found
    assert "Dice 0.800 with the active run" in shadow.line(found)
    kept = sorted(path.name for path in (state.folder / "shadow").rglob("*") if path.is_file())
    assert kept == ["prediction.json", "segmentation-1.nii.gz"]


def test_a_candidate_that_fails_never_touches_the_active_runs_result(state, send, studies):
    def broken(run, exam, out):
        if run.name == "b":
            raise MemoryError
        plainly(run, exam, out)

    for study in ("1.2.3", "1.2.4"):
        send(1, study=study, series=f"{study}.1")
        send(2, study=study, series=f"{study}.1")
    studies.look()
    assert work_once(state, served)
    for _ in range(5):
        look_on(state, broken)
        with state.transaction() as connection:
            connection.execute("UPDATE jobs SET not_before = 0")
    assert jobs(state, "shadow") == ["failed"]
    assert work_once(state, served)
    assert jobs(state, "predict") == ["done", "done"]
    assert held(state) == 2
    assert shadow.agreed(state.connection(), RULE)["failed"] == 1
    assert look_on(state)


def test_a_candidate_that_is_promoted_looks_on_no_more(state, send, studies, runs):
    promotion.switch(state, Audit(state), RULE, runs[1], runs[1].digest(), "user x", "")
    assert shadow.agreed(state.connection(), RULE) is None
    send(1)
    send(2)
    studies.look()
    assert work_once(state, served)
    assert jobs(state, "shadow") == []


def test_agreement_of_label_maps_has_known_answers(tmp_path):
    def answer(name, *rows):
        (tmp_path / name).mkdir()
        volume = LabelMap(np.zeros((1, 4, 4, 1), np.uint8), np.eye(4), names={1: "organ"})
        for number, count in enumerate(rows, 1):
            path = tmp_path / name / f"segmentation-{number}.nii.gz"
            io.write(labels(volume, count), path)
        (tmp_path / name / "prediction.json").write_text("{}")
        return tmp_path / name

    one, two = answer("one", 1, 0), answer("two", 3, 0, 4)
    assert agreement.of_answers(one, two) == {
        "dice": [{"organ": 0.5}, {"organ": 1.0}], "images": 3}  # fmt: skip
    assert agreement.of_answers(one, one)["dice"] == [{"organ": 1.0}, {"organ": 1.0}]


@pytest.mark.parametrize(
    ("one", "two", "found"),
    [
        ({"predicted": "a", "probabilities": {"a": 0.75, "b": 0.25}},
         {"predicted": "b", "probabilities": {"a": 0.25, "b": 0.75}},
         {"same": False, "largest_difference": 0.5}),
        ({"predicted": "", "value": 2.0}, {"predicted": "", "value": 1.5},
         {"same": True, "difference": 0.5}),
        ({"predicted": "a", "probabilities": {"a": 1.0}}, {"predicted": "a"}, {"same": True}),
    ],
)  # fmt: skip
def test_agreement_of_classes_has_known_answers(one, two, found):
    assert agreement.of_classes(one, two) == found
