# SPDX-License-Identifier: Apache-2.0
"""Versions of a rule's run: promoted, rolled back, effective for the next study, none lost."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.errors import RunError, UsageError
from vesalius.serving import golden_watch, promotion, queue, versions
from vesalius.serving.audit import Audit
from vesalius.serving.routing import default_routes, read_routes
from vesalius.serving.runs import ServedRun
from vesalius.serving.server import Server, Settings
from vesalius.serving.state import State
from vesalius.serving.studies import REPLACED, Completeness, Studies
from vesalius.serving.worker import Answered, work_once


def made_run(folder, number, task="segment"):
    folder.mkdir()
    plan = {"id": number, "task": task, "measured": {"finished": True}, "decisions": {},
            "fingerprint": {"modalities": ["CT"]}}  # fmt: skip
    (folder / "plan.json").write_text(json.dumps(plan))
    (folder / "model.safetensors").write_bytes(number.encode())
    return ServedRun.load(folder)


@pytest.fixture
def runs(tmp_path):
    return [made_run(tmp_path / name, name * 16) for name in "abc"]


@pytest.fixture
def audit(state):
    return Audit(state)


@pytest.fixture
def studies(state, runs):
    routes = default_routes([runs[0]])
    versions.settle(state, routes)
    return Studies(state, routes, Completeness(quiet_seconds=0.0))


def promote(state, audit, run, reason=""):
    rule, digest = promotion.admitted(state, "", run)
    return promotion.switch(state, audit, rule, run, digest, "user x", reason)


def active(state, rule="segment-ct"):
    return versions.active(state.connection(), rule).run.id[0]


def nothing(run, exam, out):
    return Answered((), {"run": run.name})


def jobs(state):
    query = "SELECT json_extract(subject, '$.run_id'), state, reason FROM jobs "
    query += "WHERE kind = 'predict' ORDER BY id"
    return [(a[0], b, c) for a, b, c in state.connection().execute(query)]


def test_rules_have_names_that_do_not_depend_on_their_order(runs, tmp_path):
    names = {route.run.id: route.name for route in default_routes(runs)}
    assert sorted(names.values()) == ["segment-ct", "segment-ct-2", "segment-ct-3"]
    assert {r.run.id: r.name for r in default_routes(runs[::-1])} == names
    rules = [{"run": "a", "name": "lung"}, {"run": "b", "body_part": "HEAD", "series": "*T1*"}]
    (tmp_path / "rules.json").write_text(json.dumps(rules))
    assert [route.name for route in read_routes(tmp_path / "rules.json", runs)] == [
        "lung", "segment-ct-head-t1"]  # fmt: skip
    for wrong, words in (([{"run": "a", "name": "x"}, {"run": "b", "name": "x"}], "two rules"),
                         ([{"run": "a", "name": "../x"}], "1 to 64 letters")):  # fmt: skip
        (tmp_path / "rules.json").write_text(json.dumps(wrong))
        with pytest.raises(UsageError, match=words):
            read_routes(tmp_path / "rules.json", runs)


def test_the_digest_is_of_what_a_run_answers_with_and_of_nothing_else(runs):
    run = runs[0]
    before = run.digest()
    (run.path / "metrics.json").write_text("{}")
    (run.path / "report.html").write_text("x")
    assert run.digest() == before
    (run.path / "normalizer.json").write_text("{}")
    changed = run.digest()
    assert changed != before
    (run.path / "normalizer.json").rename(run.path / "trust.json")
    assert run.digest() not in (before, changed)
    (run.path / "plan.json").unlink()
    with pytest.raises(RunError, match="restore its folder"):
        run.digest()


def test_a_promotion_counts_from_the_next_study_on_and_a_rollback_too(
    state, audit, runs, studies, send
):
    send(1, study="1.2.3", series="1.2.3.1")
    studies.look()
    assert work_once(state, nothing)
    version = promote(state, audit, runs[1], "better at the border")
    assert (version.number, version.rule, active(state)) == (2, "segment-ct", "b")
    send(1, study="1.2.4", series="1.2.4.1")
    studies.look()
    promotion.roll_back(state, audit, "segment-ct", "user x", "worse at the apex")
    send(1, study="1.2.5", series="1.2.5.1")
    studies.look()
    while work_once(state, nothing):
        pass
    assert jobs(state) == [
        ("a", "done", ""),
        ("b", "refused", REPLACED),
        ("a", "done", ""),
        ("a", "done", ""),
    ]
    told = [line for line in audit.lines() if line["action"] in ("promote", "rollback")]
    assert [(one["actor"], one["from"][0], one["to"][0], one["reason"]) for one in told] == [
        ("user x", "a", "b", "better at the border"),
        ("user x", "b", "a", "worse at the apex"),
    ]
    assert audit.verify().broken == 0


def test_what_waits_is_asked_of_the_new_run_and_what_is_under_way_ends_as_it_began(
    state, audit, runs, studies, send
):
    for study in ("1.2.3", "1.2.4"):
        send(1, study=study, series=f"{study}.1")
    studies.look()
    under_way = queue.lease(state, "predict")
    promote(state, audit, runs[1])
    with state.transaction() as connection:
        queue.finish(connection, under_way, now=state.clock.now())
    assert jobs(state) == [("a", "done", ""), ("a", "refused", REPLACED), ("b", "ready", "")]
    promotion.roll_back(state, audit, "segment-ct", "user x", "")
    assert [name for _, name, _ in jobs(state)] == ["done", "ready", "refused"]
    promote(state, audit, runs[1])  # there and back again: still asked, once
    assert [name for _, name, _ in jobs(state)] == ["done", "refused", "ready"]


def test_what_comes_back_after_a_switch_does_not_wait_for_the_run_before(
    state, audit, runs, studies, send
):
    send(1)
    studies.look()
    under_way = queue.lease(state, "predict")
    promote(state, audit, runs[1])
    queue.fail(state, under_way, "out of memory")
    watch = golden_watch.Checks(state, ["segment-ct"])
    watch.look()
    watch.look()
    assert [one for one in jobs(state) if one[1] != "refused"][-1][:2] == ("b", "ready")
    assert jobs(state)[0] == ("a", "refused", REPLACED)


@settings(max_examples=25, deadline=None)
@given(deeds=st.lists(st.sampled_from(["promote", "back"]), max_size=8))
def test_rolling_back_is_the_inverse_of_promoting(tmp_path_factory, deeds):
    """Against a stack: after any order of deeds the active run is its top."""
    folder = tmp_path_factory.mktemp("stack")
    state = State(folder / "state")
    audit = Audit(state)
    held = [made_run(folder / "0", "0" * 16)]
    versions.settle(state, default_routes(held))
    for number, deed in enumerate(deeds, 1):
        if deed == "promote":
            held.append(made_run(folder / str(number), str(number) * 16))
            promote(state, audit, held[-1])
        elif len(held) == 1:
            with pytest.raises(UsageError, match="no other run before"):
                promotion.roll_back(state, audit, "segment-ct", "x", "")
        else:
            held.pop()
            promotion.roll_back(state, audit, "segment-ct", "x", "")
        assert versions.active(state.connection(), "segment-ct").run == held[-1]
    state.close()


def test_a_run_that_was_damaged_is_not_promoted_and_not_rolled_back_to(state, audit, runs, studies):
    promote(state, audit, runs[1])
    weights = runs[0].path / "model.safetensors"
    held = weights.read_bytes()
    weights.write_bytes(b"damaged")
    with pytest.raises(RunError, match="damaged or changed"):
        promote(state, audit, runs[0])
    with pytest.raises(RunError, match="cannot serve: its files are not those"):
        promotion.roll_back(state, audit, "segment-ct", "x", "")
    assert active(state) == "b"
    weights.write_bytes(held)
    promotion.roll_back(state, audit, "segment-ct", "x", "")
    assert active(state) == "a"


def test_what_cannot_be_promoted_is_said(state, audit, runs, studies, tmp_path):
    with pytest.raises(UsageError, match="is the active run"):
        promote(state, audit, runs[0])
    with pytest.raises(UsageError, match="Did you mean 'segment-ct'"):
        promotion.admitted(state, "segment-cd", runs[1])
    other = made_run(tmp_path / "other", "d" * 16, task="classify")
    with pytest.raises(UsageError, match="no rule of the state has a run for that task"):
        promotion.admitted(state, "", other)
    with pytest.raises(UsageError, match="of the task segment"):
        promotion.admitted(state, "segment-ct", other)
    with pytest.raises(UsageError, match="400 characters"):
        promote(state, audit, runs[1], "x" * 401)
    assert active(state) == "a"


def test_a_start_keeps_what_was_promoted_and_refuses_a_run_that_was_not(tmp_path, runs):
    def server(run):
        return Server(
            Settings(folder=tmp_path / "state", routes=default_routes([run]), http=None,
                     watch=tmp_path, node=None, workers=0),
            None, said.append)  # fmt: skip

    said: list[str] = []
    with server(runs[0]) as running:
        promote(running.state, running.audit, runs[1])
    with server(runs[0]) as running:
        assert active(running.state) == "b"
        assert any("segment-bbbbbbbb" in line for line in said)
    with pytest.raises(UsageError, match="vesalius promote"), server(runs[2]):
        pass
    with server(runs[1]):
        pass


def test_a_kill_within_a_promotion_leaves_the_run_before(state, audit, runs, studies, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(*_, **__):
        raise Killed

    monkeypatch.setattr(promotion, "_ask_again", killed)
    with pytest.raises(Killed):
        promote(state, audit, runs[1])
    monkeypatch.undo()
    assert active(State(state.folder)) == "a"


def test_a_run_that_cannot_be_loaded_is_no_fault_of_the_study(state, studies, send):
    def broken(run, exam, out):
        raise RunError("model.safetensors is not whole")

    send(1)
    studies.look()
    assert work_once(state, broken)
    query = "SELECT kind, state FROM jobs ORDER BY kind DESC"
    assert state.connection().execute(query).fetchall() == [
        ("predict", "ready"),
        ("golden", "ready"),
    ]


def test_a_state_of_before_is_opened(state, runs):
    with state.transaction() as connection:
        for table in (
            "activations",
            "shadows",
            "golden_cases",
            "run_health",
            "observations",
            "drift",
        ):
            connection.execute(f"DROP TABLE {table}")
    again = State(state.folder)
    versions.settle(again, default_routes(runs[:1]))
    assert active(again) == "a"


def test_a_command_says_which_rules_could_be_meant(state, runs):
    versions.settle(state, default_routes(runs))
    with pytest.raises(UsageError, match="give --rule, one of: segment-ct, segment-ct-2"):
        versions.chosen(state.connection(), "", runs[0])
    assert versions.chosen(state.connection(), "segment-ct-2") == "segment-ct-2"
