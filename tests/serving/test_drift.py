# SPDX-License-Identifier: Apache-2.0
"""Drift: statistics with known answers, false alarms counted, alarms by scanner and site."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vesalius
from vesalius.errors import DataError
from vesalius.serving import drift, drift_facts, drift_watch, versions
from vesalius.serving.audit import Audit
from vesalius.serving.drift_facts import Facts
from vesalius.serving.health import Vitals
from vesalius.serving.routing import default_routes
from vesalius.serving.runs import ServedRun
from vesalius.serving.studies import Completeness, Studies
from vesalius.serving.worker import Answered, work_once

RULE = "segment-ct"


def test_the_index_has_a_known_answer():
    reference = list(range(1, 101))
    recent = [100.0] * 50  # all in the last of five bins
    few, many, each = 0.5 / 52.5, 50.5 / 52.5, 20.5 / 102.5
    by_hand = 4 * (few - each) * math.log(few / each) + (many - each) * math.log(many / each)
    assert drift.psi(reference, recent) == pytest.approx(by_hand)
    assert drift.psi(reference, reference) == 0
    one, two = 10.5 / 101, 40.5 / 101  # of events
    by_hand = 2 * (two - one) * math.log(two / one * (1 - one) / (1 - two)) / 2
    assert drift.psi([3.0] * 50, [3.0] * 50) == 0
    assert drift.psi([3.0] * 50, [2.0] * 50) == pytest.approx(drift.psi([3.0] * 50, [4.0] * 50))
    assert drift.psi([3.0] * 50, [2.0] * 50) > 4
    rates = [1.0] * 10 + [0.0] * 90, [1.0] * 40 + [0.0] * 60
    assert drift.psi(*rates, event=True) == pytest.approx(by_hand)


def test_the_tests_have_known_answers():
    """Kolmogorov-Smirnov against all splits of eight values; Fisher's lady tasting tea."""

    def distance(one, two):
        return max(abs(sum(a <= x for a in one) / len(one) - sum(b <= x for b in two) / len(two))
                   for x in (*one, *two))  # fmt: skip

    one, two = [1, 2, 3, 5], [4, 6, 7, 8]
    seen = distance(one, two)
    splits = list(itertools.combinations(range(1, 9), 4))
    as_far = [distance(split, sorted(set(range(1, 9)) - set(split))) >= seen - 1e-9
              for split in splits]  # fmt: skip
    assert drift.kolmogorov_smirnov(one, two) == pytest.approx(sum(as_far) / len(splits))
    cups = [1, 1, 1, 0], [1, 0, 0, 0]
    assert drift.fisher(*cups) == pytest.approx(34 / 70)
    assert drift.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert drift.holm([]) == []


@settings(max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_corrected_p_values_obey_their_laws(p_values):
    found = drift.holm(p_values)
    assert all(one <= two <= 1 for one, two in zip(p_values, found, strict=True))
    assert [found[i] for i in np.argsort(p_values)] == sorted(found)
    assert min(found) == pytest.approx(min(1, min(p_values) * len(p_values)))


def study(rng, shift=0.0, rate=0.2):
    """Return facts of a simulated study: numbers that hang together, and events."""
    common = rng.normal()
    numbers = {f"number {n}": common + rng.normal() + shift * (n < 2) for n in range(8)}
    return {**numbers, "rows": 512.0, "refused": bool(rng.random() < rate),
            "answered a": bool(rng.random() < 0.5)}  # fmt: skip


def test_false_alarms_are_as_rare_as_stated():
    rng = np.random.default_rng(0)
    looks, any_alarm, certain = 300, 0, 0
    for _ in range(looks):
        found = drift.compare([study(rng) for _ in range(100)], [study(rng) for _ in range(50)])
        assert len(found) == 11
        any_alarm += any(one.alarm for one in found)
        certain += any(one.p < drift.ALPHA for one in found)
    # Of 300 looks at a rate of 0.01 more than nine have an alarm once in 1000 such simulations.
    assert any_alarm <= certain <= 9


def test_a_large_shift_is_found_and_a_small_one_is_no_alarm():
    rng = np.random.default_rng(1)
    found = 0
    for _ in range(30):
        reference = [study(rng) for _ in range(100)]
        looked = drift.compare(reference, [study(rng, shift=2.0) for _ in range(50)])
        alarms = {one.fact for one in looked if one.alarm}
        assert alarms <= {"number 0", "number 1"}
        assert all(one.alarm for one in looked[: len(alarms)])  # alarms first
        found += len(alarms) == 2
    assert found >= 28
    # Certain, since there are many, and yet too small to matter.
    reference = [{"x": float(v)} for v in rng.normal(0, 1, 5000)]
    (small,) = drift.compare(reference, [{"x": float(v)} for v in rng.normal(0.2, 1, 5000)])
    assert small.p < 1e-6
    assert not small.alarm
    refused = drift.compare(
        [study(rng, rate=0.02) for _ in range(100)], [study(rng, rate=0.6) for _ in range(50)]
    )
    assert [one.fact for one in refused if one.alarm] == ["refused"]


def test_too_few_values_say_nothing():
    few = [{"x": 0.0}] * 19
    assert drift.compare(few, [{"x": 9.0}] * 50) == []
    assert drift.compare([{"x": 0.0}] * 50, [{"x": math.nan}] * 50) == []


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run").mkdir()
    plan = {"id": "a" * 16, "task": "segment", "measured": {"finished": True}, "decisions": {},
            "fingerprint": {"modalities": ["CT"]}}  # fmt: skip
    (tmp_path / "run" / "plan.json").write_text(json.dumps(plan))
    return ServedRun.load(tmp_path / "run")


def watched(state, run, scanner, values):
    """Keep a study and look, as a worker does."""
    subject = {"rule": RULE, "run_id": run.id, "run": str(run.path)}
    facts = Facts(scanner, "site 1234", values)
    with state.transaction() as connection:
        drift_watch.keep(connection, subject, facts, state.clock.now())
    return drift_watch.look(state, subject, facts)


def test_the_scanner_that_shifts_raises_the_alarm_and_the_other_does_not(state, run):
    rng = np.random.default_rng(2)
    for number in range(drift_watch.FIRST + 100):
        later = number >= drift_watch.FIRST
        for_b = bool(number % 2)
        watched(state, run, "maker b" if for_b else "maker a", study(rng, 2.5 * (later and for_b)))
    looks = {one["of"]: one for one in drift_watch.latest(state.connection())}
    assert set(looks) == {"all", "scanner maker a", "scanner maker b", "site 1234"}
    assert looks["scanner maker a"]["alarms"] == 0
    assert looks["scanner maker b"]["alarms"] >= 2
    assert looks["scanner maker b"]["own_reference"] is True
    assert looks["scanner maker b"]["reference"] == 50
    assert "DRIFT" in drift_watch.line(looks["scanner maker b"])
    assert "no drift" in drift_watch.line(looks["scanner maker a"])


def test_a_scanner_that_came_later_is_compared_with_those_before(state, run):
    rng = np.random.default_rng(3)
    for _ in range(drift_watch.FIRST):
        assert watched(state, run, "maker a", study(rng)) == []
    for number in range(drift_watch.WINDOW):
        taken = watched(state, run, "maker new", study(rng, 2.5))
        assert bool(taken) == (number == drift_watch.WINDOW - 1)
    (one,) = [one for one in taken if one["of"] == "scanner maker new"]
    assert one["own_reference"] is False
    assert one["alarms"] >= 2
    for number in range(drift_watch.WINDOW):  # windows do not overlap
        assert bool(watched(state, run, "maker new", study(rng))) == (
            number == drift_watch.WINDOW - 1
        )
    looks = {one["of"]: one for one in drift_watch.latest(state.connection())}
    assert looks["scanner maker new"]["alarms"] == 0  # it is over


def test_classes_are_compared_with_the_runs_own_validation(state, run):
    import pyarrow as pa
    import pyarrow.parquet as pq

    def rows(split, count, p):
        return [{"split": split, "predicted": "a" if p > 0.5 else "b", "p_a": p, "p_b": 1 - p}] * (
            count
        )

    table = pa.Table.from_pylist(rows("val", 40, 0.9) + rows("test", 30, 0.2))
    pq.write_table(table, run.path / "predictions.parquet")
    found = drift_facts.of_validation(run.path)
    assert found["probability of a"] == [0.2] * 30
    assert found["answered a"] == [0.0] * 30
    subject = {"rule": RULE, "run_id": run.id, "run": str(run.path)}
    answer = {"predicted": "a", "probabilities": {"a": 0.8, "b": 0.2}, "abstained": ""}
    facts = Facts("s", "site x", {}).answered(answer)
    for _ in range(drift_watch.FIRST + drift_watch.WINDOW):
        with state.transaction() as connection:
            drift_watch.keep(connection, subject, facts, 0.0)
    looks = drift_watch.look(state, subject, facts, drift_facts.of_validation)
    by = {one["of"]: one for one in looks}
    assert by["all"]["validation"] == [
        "answered a", "answered b", "probability of a", "probability of b"]  # fmt: skip
    assert by["all"]["alarms"] == 4
    assert by["scanner s"]["alarms"] == 0  # it is as it was at first


def test_from_studies_to_the_alarm_that_all_who_ask_are_told(state, intake, send, run, monkeypatch):
    monkeypatch.setattr(drift_watch, "FIRST", 22)
    monkeypatch.setattr(drift_watch, "WINDOW", 20)
    monkeypatch.setattr(drift_watch, "ENOUGH", 20)
    routes = default_routes([run])
    versions.settle(state, routes)
    studies = Studies(state, routes, Completeness(quiet_seconds=0.0))
    rng = np.random.default_rng(4)

    machine = {"Manufacturer": "ACME", "ManufacturerModelName": "One",
               "InstitutionName": "Saint Nowhere"}  # fmt: skip

    def answer(run, exam, out):
        return Answered((), {"volumes_ml": [{"liver": float(rng.normal(1500, 100))}], "notes": []})

    def refuse(run, exam, out):
        raise DataError("slice 3 is missing")

    def studied(number, predict=answer, offset=0):
        uid = f"1.2.{number}"
        level = float(offset + rng.normal(0, 5))
        send(1, study=uid, series=f"{uid}.1", RescaleIntercept=level, **machine)
        studies.look()
        assert work_once(state, predict)

    for number in range(22):
        studied(number)
    assert drift_watch.latest(state.connection()) == []
    for number in range(22, 42):
        studied(number, offset=300)
    looks = {one["of"]: one for one in drift_watch.latest(state.connection(), RULE, run.id)}
    (site,) = [name for name in looks if name.startswith("site")]
    assert set(looks) == {"all", "scanner ACME One", site}
    found = {one["fact"]: one for one in looks["scanner ACME One"]["facts"]}
    assert found["CT p50"]["alarm"]
    assert found["CT p50"]["recent"] - found["CT p50"]["reference"] == pytest.approx(300, abs=10)
    assert not found["liver ml"]["alarm"]
    assert not found["CT rows"]["alarm"]
    told = json.dumps(looks) + "".join(vesalius.status(state.folder).lines())
    for secret in ("Nowhere", "Doe", "P-1", "1.2.30"):
        assert secret not in told
    assert "scanner ACME One: DRIFT in 20 studies" in told
    metrics = Vitals(state, intake, rules=[RULE]).metrics()
    assert f'vesalius_drift_alarms{{rule="{RULE}",run="{run.id}"}} 3' in metrics
    assert [one["of"] for one in Audit(state).lines() if one["action"] == "drift"]
    for number in range(42, 62):
        studied(number, refuse)
    looks = {one["of"]: one for one in drift_watch.latest(state.connection())}
    found = {one["fact"]: one for one in looks["all"]["facts"]}
    assert (found["refused"]["alarm"], found["refused"]["recent"]) == (True, 1.0)


def test_facts_are_of_the_images_and_cost_the_same_for_many(tmp_path, file):
    exam = tmp_path / "exam"
    exam.mkdir()
    for number in range(1, 41):
        (exam / f"{number}.dcm").write_bytes(file(number))
    (exam / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\1" * 50)
    (exam / "note.txt").write_text("x")
    read = []
    from vesalius import io

    held = io.read
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(io, "read", lambda path, **more: (read.append(path), held(path, **more))[1])
        found = drift_facts.of_images(exam, lambda text: text[::-1])
    assert len(read) == 5
    assert (found.scanner, found.site) == ("unknown", "site unknown")
    assert found.values["CT instances"] == 40
    assert (found.values["CT rows"], found.values["CT pixel mm"], found.values["CT slice mm"]) == (
        4, 1, 5)  # fmt: skip
    levels = [found.values[f"CT {name}"] for name in drift_facts.QUANTILES]
    assert levels == sorted(levels)
    assert -1024 <= levels[0] < levels[-1]
    assert math.isfinite(levels[-1])
