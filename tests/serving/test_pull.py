# SPDX-License-Identifier: Apache-2.0
"""Studies pulled from a PACS: what comes, what is tried again, what is never followed."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytest.importorskip("fastapi")

from web_client import Client

from vesalius.errors import UsageError
from vesalius.serving import keys, pull, queue
from vesalius.serving.audit import Audit
from vesalius.serving.health import Vitals
from vesalius.serving.pull import Puller
from vesalius.serving.push import Target
from vesalius.serving.web import application


class Pacs(BaseHTTPRequestHandler):
    """Answers as it is told to, and remembers what it was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        asked = self.server.asked
        asked.append((self.path, dict(self.headers)))
        known = (told for start, told in self.server.answers.items() if start in self.path)
        status, kind, body = next(known, (404, "text/plain", b""))
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "http://169.254.169.254/secret")
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for n in range(0, len(body), 700):  # events begin and end anywhere
            piece = body[n : n + 700]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_):
        pass


@pytest.fixture
def pacs():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pacs)
    server.answers, server.asked = {}, []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def target(pacs):
    return Target.parse(f"http://u:secret@127.0.0.1:{pacs.server_port}/dicom-web")


@pytest.fixture
def puller(intake, target, state):
    return Puller(intake, [target], Audit(state))


KIND = 'multipart/related; type="application/dicom"; boundary=xx'


def listed(**counts):
    """Return the answer of QIDO-RS for series `s1=2` of two instances."""
    rows = [
        {"0020000E": {"vr": "UI", "Value": [f"1.2.3.{name[1:]}"]},
         "00201209": {"vr": "IS", "Value": [count]}}
        for name, count in counts.items()
    ]  # fmt: skip
    return 200, "application/dicom+json", json.dumps(rows).encode()


def parts(*files, end=b"--xx--"):
    head = b"--xx\r\nContent-Type: application/dicom; transfer-syntax=1.2.840.10008.1.2.1\r\n\r\n"
    return 200, KIND, b"".join(head + one + b"\r\n" for one in files) + end


def job(state):
    query = "SELECT state, attempts, reason, answer FROM jobs WHERE kind = 'pull' ORDER BY id DESC"
    return state.connection().execute(query).fetchone()


def held(state):
    query = "SELECT sop_uid, origin FROM instances ORDER BY sop_uid"
    return state.connection().execute(query).fetchall()


def again(state):
    with state.transaction() as connection:
        connection.execute("UPDATE jobs SET not_before = 0")


def test_a_study_comes_series_by_series_and_once(pacs, puller, state, file, target):
    other = "1.2.3.2"
    pacs.answers["/series?"] = listed(s1=2, s2=1)
    pacs.answers["/series/1.2.3.1"] = parts(file(1), file(2))
    pacs.answers["/series/1.2.3.2"] = parts(file(1, series=other))
    number = pull.ask(state, target, "1.2.3")
    assert pull.ask(state, target, "1.2.3") == number  # it waits already
    assert puller.pull_once()
    assert not puller.pull_once()
    assert held(state) == [("1.2.3.1.1", "pull"), ("1.2.3.1.2", "pull"), ("1.2.3.2.1", "pull")]
    name, _, _, answer = job(state)
    assert (name, json.loads(answer)) == ("done", {"series": 2, "instances": 3, "refused": []})
    assert all(one["Authorization"].startswith("Basic ") for _, one in pacs.asked)
    pacs.asked.clear()
    assert pull.ask(state, target, "1.2.3") != number
    assert puller.pull_once()
    assert len(pacs.asked) == 1  # whole already: nothing is fetched again
    (line,) = [one for one in Audit(state).lines() if one["action"] == "store"]
    assert line["instances"] == 3
    assert "secret" not in json.dumps(line)


def test_what_was_cut_off_is_fetched_again_and_what_came_stays(pacs, puller, state, file, target):
    pacs.answers["/series?"] = listed(s1=2)
    pacs.answers["/series/1.2.3.1"] = parts(file(1), file(2)[:300], end=b"")
    pull.ask(state, target, "1.2.3")
    puller.pull_once()
    assert job(state)[:3] == ("ready", 1, "the answer of the PACS was cut off")
    assert [uid for uid, _ in held(state)] == ["1.2.3.1.1"]
    assert list(state.incoming.iterdir()) == []
    again(state)
    pacs.answers["/series/1.2.3.1"] = parts(file(1), file(2))
    puller.pull_once()
    assert job(state)[0] == "done"
    assert len(held(state)) == 2


def test_instances_of_other_studies_and_garbage_are_refused(pacs, puller, state, file, target):
    pacs.answers["/series?"] = listed(s1=3)
    pacs.answers["/series/1.2.3.1"] = parts(file(1, study="9.9"), b"garbage", file(2))
    pull.ask(state, target, "1.2.3")
    puller.pull_once()
    name, _, _, answer = job(state)
    assert name == "done"
    assert json.loads(answer)["instances"] == 1
    assert len(json.loads(answer)["refused"]) == 2
    pacs.answers["/series/1.2.3.1"] = parts(file(1, study="9.9"))
    pull.ask(state, target, "1.2.3")
    puller.pull_once()
    assert job(state)[0] == "refused"


@pytest.mark.parametrize(
    ("answer", "name", "words"),
    [
        ((204, "application/dicom+json", b""), "refused", "no such study"),
        ((200, "application/dicom+json", b"[]"), "refused", "no such study"),
        ((404, "text/plain", b""), "refused", "no such study"),
        ((401, "text/plain", b""), "refused", "does not let this server in"),
        ((302, "text/plain", b""), "ready", "answered 302"),
        ((500, "text/plain", b""), "ready", "answered 500"),
        ((200, "text/html", b"<html>"), "ready", "DICOM JSON"),
        ((200, "application/dicom+json", b"[" * 100_000), "ready", "DICOM JSON"),
        (
            (200, "application/dicom+json", b'[{"0020000E": {"Value": ["../x"]}}]'),
            "ready",
            "no UID",
        ),
        ((200, "application/dicom+json", b'{"a": 1}'), "ready", "DICOM JSON"),
    ],
)
def test_answers_that_are_none(pacs, puller, state, target, answer, name, words):
    pacs.answers["/series?"] = answer
    pull.ask(state, target, "1.2.3")
    assert puller.pull_once()
    assert job(state)[0] == name
    assert words in job(state)[2]
    assert {path.split("?")[0] for path, _ in pacs.asked} == {"/dicom-web/studies/1.2.3/series"}


def test_bulk_data_addresses_are_never_followed(pacs, puller, state, file, target):
    """WADO-RS by JSON and addresses, as some PACS would have it, is not what was asked for."""
    pacs.answers["/series?"] = listed(s1=1)
    body = b'[{"7FE00010": {"BulkDataURI": "http://127.0.0.1:%d/evil"}}]' % pacs.server_port
    pacs.answers["/series/1.2.3.1"] = (200, "application/dicom+json", body)
    pull.ask(state, target, "1.2.3")
    puller.pull_once()
    assert job(state)[2] == "the PACS did not answer with multipart/related"
    assert not [path for path, _ in pacs.asked if "evil" in path]


def test_a_pacs_that_is_not_there_is_tried_again_and_not_for_ever(intake, state):
    target = Target.parse("http://127.0.0.1:9/dicom-web")
    puller = Puller(intake, [target], Audit(state))
    pull.ask(state, target, "1.2.3")
    for _ in range(queue.MOST_ATTEMPTS["pull"]):
        assert job(state)[0] == "ready"
        puller.pull_once()
        again(state)
    assert job(state)[:2] == ("failed", queue.MOST_ATTEMPTS["pull"])


def test_a_full_disk_is_said_and_the_pull_tried_again(pacs, puller, state, file, target, intake):
    pacs.answers["/series?"] = listed(s1=1)
    pacs.answers["/series/1.2.3.1"] = parts(file(1))
    pull.ask(state, target, "1.2.3")
    intake.reserve = 1 << 60
    puller.pull_once()
    assert job(state)[0] == "ready"
    assert "the disk" in job(state)[2]
    intake.reserve = 0
    again(state)
    puller.pull_once()
    assert job(state)[0] == "done"


def test_it_is_asked_for_over_http(pacs, state, intake, file, target):
    audit = Audit(state)
    app = application(Vitals(state, intake), audit, sources=[target])
    sender = keys.create(state, name="s", roles=["send"])
    web = Client(app, sender)
    answer = web("POST", "/api/pull", json={"study": "1.2.3", "priority": "stat"})
    assert answer.status_code == 202
    assert answer.json()["source"] == target.name
    (priority,) = state.connection().execute("SELECT priority FROM jobs").fetchone()
    assert priority == 100
    assert web("POST", "/api/pull", json={"study": "../x"}).status_code == 422
    assert (
        web("POST", "/api/pull", json={"study": "1.2", "source": "http://evil"}).status_code == 409
    )
    assert web("POST", "/api/pull", json={"study": "1.2", "url": "http://evil"}).status_code == 422
    reader = keys.create(state, name="r", roles=["read"])
    assert web("POST", "/api/pull", key=reader, json={"study": "1.2"}).status_code == 403
    alone = Client(application(Vitals(state, intake), audit), sender)
    assert alone("POST", "/api/pull", json={"study": "1.2.3"}).status_code == 409
    with pytest.raises(UsageError, match="by DICOMweb"):
        pull.ask(state, Target.parse("dicom://PACS@h:1"), "1.2.3")
