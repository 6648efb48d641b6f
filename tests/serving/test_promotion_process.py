# SPDX-License-Identifier: Apache-2.0
"""A server that runs, and runs that are promoted, damaged and taken back beside it."""

from __future__ import annotations

import json
import shutil

import pytest
from server_process import wait_for

pytest.importorskip("pynetdicom")
pytest.importorskip("fastapi")

import vesalius


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_runs_are_switched_while_the_server_runs(start, tmp_path, trained, disc_file):
    runs, exam = trained
    one, two = (shutil.copytree(run.path, tmp_path / f"run-{n}") for n, run in enumerate(runs))
    server = start(str(one), "--count", "2", "--quiet", "60")

    def asked(path, else_):
        status, body = server.call(path)
        return json.loads(body) if status == 200 else else_  # 0: a busy machine

    def rule():
        return asked("/api/rules", [{}])[0]

    def study(number):
        uid = f"1.2.{number}"
        files = [disc_file(n, study=uid, series=f"{uid}.1") for n in (1, 2)]
        assert server.store(*files) == 200
        return uid

    def answered(uid):
        jobs = asked(f"/api/studies/{uid}", {"jobs": []})["jobs"]
        return {job["run"]: job["state"] for job in jobs if job["kind"] == "predict"}

    first = study(1)
    wait_for(lambda: answered(first) == {runs[0].id: "done"}, 900)
    wait_for(lambda: rule().get("healthy") is True)  # asked at the start

    told = vesalius.promote(two, state=server.folder, golden=[exam], reason="another seed")
    assert (told.version, told.cases) == (2, 1)
    second = study(2)
    wait_for(lambda: answered(second) == {runs[1].id: "done"}, 900)
    assert server.call("/health", "")[0] == 200

    weights = two / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[len(raw) // 2 :] = bytes(len(raw) - len(raw) // 2)
    weights.write_bytes(raw)
    assert server.call("/api/rules/segment/check", data=b"")[0] == 202
    wait_for(lambda: rule().get("healthy") is False, 900)
    third = study(3)
    wait_for(lambda: answered(third) == {runs[1].id: "ready"}, 900)
    status, body = server.call("/health", "")
    assert status == 503
    assert "does not reproduce its golden cases" in json.loads(body)["problems"][0]

    assert vesalius.rollback(state=server.folder, reason="damaged").version == 1
    wait_for(lambda: answered(third) == {runs[1].id: "refused", runs[0].id: "done"}, 900)
    assert server.call("/health", "")[0] == 200
    wait_for(lambda: rule().get("version") == 1)

    vesalius.promote(runs[1].path, state=server.folder, rule="segment", shadow=True)
    fourth = study(4)
    wait_for(lambda: answered(fourth) == {runs[0].id: "done"}, 900)
    wait_for(lambda: (rule().get("shadow") or {}).get("studies", 0) >= 1, 900)
    (scores,) = rule()["shadow"]["dice"].values()
    assert 0 < scores["lowest"] <= scores["mean"] <= 1
    assert server.end() == 0
    found = vesalius.status(server.folder, verify=True)
    assert found.ok
    deeds = [line["action"] for line in vesalius.audit(server.folder, last=1000).lines]
    switched = [deed for deed in deeds if deed in ("promote", "rollback", "shadow")]
    assert switched == ["promote", "rollback", "shadow"]
