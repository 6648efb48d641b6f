# SPDX-License-Identifier: Apache-2.0
"""`vesalius serve` and `status` as processes: killed, started again, answering as offline."""

from __future__ import annotations

import json
import signal
import socket
import time
from pathlib import Path

import pydicom
import pytest
from server_process import wait_for
from typer.testing import CliRunner

pytest.importorskip("pynetdicom")
pytest.importorskip("fastapi")

from vesalius.cli.main import app
from vesalius.serving.audit import Audit
from vesalius.serving.state import State
from vesalius.serving.store import path_of


def test_what_was_answered_survives_a_kill_and_the_key_is_shown_once(start, file, tmp_path):
    first = start()
    key = first.key
    assert first.store(file(1), file(2)) == 200
    maps = Path(f"/proc/{first.child.pid}/maps").read_text()
    assert "torch" not in maps
    assert "matplotlib" not in maps
    first.end(signal.SIGKILL)

    second = start()
    assert second.key == ""
    second.key = key
    status, body = second.call("/dicom-web/studies/1.2.3/instances")
    assert status == 200
    assert len(json.loads(body)) == 2
    again = CliRunner().invoke(app, ["serve", "--state", str(tmp_path / "state")])
    assert "already runs" in str(again.exception)
    told = CliRunner().invoke(app, ["status", "--state", str(tmp_path / "state"), "--json"])
    assert json.loads(told.stdout)["running"] is True
    assert json.loads(told.stdout)["instances"] == 2
    assert second.end() == 0
    told = CliRunner().invoke(
        app, ["status", "--state", str(tmp_path / "state"), "--verify", "--json"]
    )
    found = json.loads(told.stdout)
    assert found["running"] is False
    assert found["files"] == {"missing": 0, "damaged": 0, "adopted": 0}
    assert found["audit"]["broken"] == 0
    assert found["ok"] is True


def test_heads_that_drip_are_cut_off_and_garbage_harms_nobody(start, monkeypatch):
    server = start()
    for raw in (b"\0" * 2000, b"GET / HTTP/9.9\r\n\r\n", b"GET /" + b"a" * 100_000, b"\r\n" * 50):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as peer:
            try:
                peer.sendall(raw)
                peer.shutdown(socket.SHUT_WR)
                while peer.recv(4096):
                    pass
            except OSError:
                pass  # cut off: as it should be
    with socket.create_connection(("127.0.0.1", server.port), timeout=40) as peer:
        begun = time.monotonic()
        peer.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nX: ")
        try:
            while peer.recv(4096):
                pass
        except ConnectionResetError:
            pass
        assert 5 < time.monotonic() - begun < 35
    assert server.call("/health", "")[0] == 200


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--http", "8080"], "--http must be HOST:PORT"),
        (["--http", "0.0.0.0:80"], "unencrypted"),
        (["--dicom", "0.0.0.0:104"], "--peer"),
        (["--http", "off", "--dicom", "off"], "nothing could be received"),
        (["--pacs", "pacs"], "a PACS is given as"),
        (["--certificate", "x.pem"], "both --certificate and --key"),
        (["--routes", "none.json"], "cannot be read"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_sentence(tmp_path, options, words):
    found = CliRunner().invoke(app, ["serve", "--state", str(tmp_path / "s"), *options])
    assert words in str(found.exception)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("verb", ["status", "audit"])
def test_a_folder_without_a_state_is_said(tmp_path, verb):
    found = CliRunner().invoke(app, [verb, "--state", str(tmp_path)])
    assert "holds no server's state" in str(found.exception)


def test_the_audit_log_is_shown_by_study_and_checked(state):
    log = Audit(state)
    log.write("server", "start")
    log.write("key a", "retrieve", study_uid="1.2.3", instances=2)
    log.write("key a", "retrieve", study_uid="1.2.4", instances=3)
    options = ["audit", "--state", str(state.folder)]
    shown = CliRunner().invoke(app, options)
    assert shown.exit_code == 0
    assert "the log is whole: 3 lines" in shown.stdout
    one = json.loads(CliRunner().invoke(app, [*options, "--study", "1.2.3", "--json"]).stdout)
    assert [line["instances"] for line in one["lines"]] == [2]
    log.path.write_text(log.path.read_text().replace('"instances": 3', '"instances": 1'))
    broken = CliRunner().invoke(app, options)
    assert broken.exit_code != 0
    assert "BROKEN at line 3" in broken.stdout


@pytest.mark.slow
def test_the_answer_is_that_of_offline_predict_and_comes_once_whatever_is_killed(
    start, tmp_path, trained, disc_file
):
    from vesalius import io
    from vesalius.flows.predict import predict

    (run, _), _ = trained
    exam = tmp_path / "exam"
    exam.mkdir()
    for number in (1, 2, 3):
        (exam / f"{number}.dcm").write_bytes(disc_file(number))
    offline = predict(run.path, exam, out=tmp_path / "offline")

    server = start(str(run.path), "--quiet", "1")
    key = server.key
    assert server.store(*(disc_file(number) for number in (1, 2, 3))) == 200
    for _ in range(2):  # at any moment of the work
        time.sleep(4)
        server.end(signal.SIGKILL)
        server = start(str(run.path), "--quiet", "1")
        server.key = key

    def done():
        _, body = server.call("/api/studies/1.2.3")
        return [one["state"] for one in json.loads(body)["jobs"]] == ["done"]

    wait_for(done, 240)
    state = State(tmp_path / "state")
    query = "SELECT folder, sha256 FROM instances WHERE origin = 'result' AND sop_class = ?"
    reports = state.connection().execute(query, ("1.2.840.10008.5.1.4.1.1.88.34",)).fetchall()
    assert len(reports) == 1
    assert "Volume of " in str(pydicom.dcmread(path_of(state, *reports[0])))
    rows = state.connection().execute(query, ("1.2.840.10008.5.1.4.1.1.66.4",)).fetchall()
    assert len(rows) == 1
    served = path_of(state, *rows[0])
    volume = io.read(exam)
    mine = io.read_labels(served, reference=volume)
    theirs = io.read_labels(offline.files[0], reference=volume)
    assert (mine.data == theirs.data).all()
    assert mine.data.any()
    assert pydicom.dcmread(served).ReferencedSeriesSequence[0].SeriesInstanceUID == "1.2.3.1"
    state.close()
    assert server.end() == 0
