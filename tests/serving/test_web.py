# SPDX-License-Identifier: Apache-2.0
"""The web services: keys and roles, DICOMweb, metrics, the audit log, and hostile requests."""

from __future__ import annotations

import asyncio
import json
import threading
import time

import pytest

pytest.importorskip("fastapi")

from web_client import Client

from vesalius.serving import keys
from vesalius.serving.audit import Audit
from vesalius.serving.guard import Bounds, Guard
from vesalius.serving.health import Vitals
from vesalius.serving.metadata import dicom_json, series_metadata
from vesalius.serving.reconcile import Reconciled
from vesalius.serving.web import application

KIND = 'multipart/related; type="application/dicom"; boundary=BOUND'


@pytest.fixture
def audit(state):
    return Audit(state)


@pytest.fixture
def vitals(state, intake):
    return Vitals(state, intake)


@pytest.fixture
def web(vitals, audit, state):
    key = keys.create(state, name="all", roles=["admin"])
    return Client(application(vitals, audit, Bounds(largest_body=1 << 20, pause_seconds=1)), key)


def multipart(*files):
    parts = (b"--BOUND\r\nContent-Type: application/dicom\r\n\r\n" + one + b"\r\n" for one in files)
    return b"".join(parts) + b"--BOUND--\r\n"


def store(web, *files, path="/dicom-web/studies", **named):
    return web("POST", path, content=multipart(*files), headers={"Content-Type": KIND}, **named)


def test_keys_are_shown_once_and_kept_as_hashes(state):
    key = keys.create(state, name="scanner", roles=["send"])
    assert keys.holder(state, key).roles == {"send"}
    for wrong in (key[:-1] + ("A" if key[-1] != "A" else "B"), "", "vk_", key + "x", "vk_0_x"):
        assert keys.holder(state, wrong) is None
    secret = key.split("_", 2)[2]
    dumped = "\n".join(state.connection().iterdump())
    assert secret not in dumped
    assert keys.revoke(state, key.split("_")[1])
    assert keys.holder(state, key) is None


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("GET", "/metrics", "read"),
        ("GET", "/openapi.json", "read"),
        ("GET", "/docs", "read"),
        ("GET", "/dicom-web/studies", "read"),
        ("GET", "/dicom-web/studies/1.2/metadata", "read"),
        ("GET", "/dicom-web/studies/1.2/series/1/instances/1", "read"),
        ("POST", "/dicom-web/studies", "send"),
        ("GET", "/api/studies", "read"),
        ("GET", "/api/jobs", "read"),
        ("POST", "/api/jobs/1/retry", "admin"),
        ("GET", "/api/keys", "admin"),
        ("POST", "/api/keys", "admin"),
        ("DELETE", "/api/keys/x", "admin"),
        ("GET", "/api/audit", "admin"),
    ],
)
def test_every_door_asks_for_a_key_with_its_role(web, state, method, path, role):
    assert web(method, path, key="").status_code == 401
    others = [one for one in keys.ROLES if one not in (role, "admin")]
    weak = keys.create(state, name="weak", roles=others)
    assert web(method, path, key=weak).status_code == 403
    right = keys.create(state, name="right", roles=[role])
    assert web(method, path, key=right).status_code not in (401, 403, 500)


def test_no_door_was_forgotten(web):
    """Every path of the service's own description is closed without a key, but for health."""
    schema = web("GET", "/openapi.json").json()
    for path, methods in schema["paths"].items():
        for method in methods:
            status = web(method.upper(), path.replace("{", "").replace("}", ""), key="").status_code
            assert status == (200 if path == "/health" else 401), path


def test_keys_come_as_bearer_header_or_password(web, state):
    key = web.key
    for headers in ({"X-API-Key": key}, {"Authorization": f"bearer {key}"}):
        assert web("GET", "/metrics", key="", headers=headers).status_code == 200
    assert web("GET", "/metrics", key="", auth=("any", key)).status_code == 200
    for bad in ("Basic ???", "Basic", "Bearer", "Basic " + "A" * 1000):
        assert web("GET", "/metrics", key="", headers={"Authorization": bad}).status_code == 401


def test_who_guesses_has_to_wait(web):
    statuses = [web("GET", "/metrics", key="vk_wrong").status_code for _ in range(12)]
    assert statuses[:10] == [401] * 10
    assert statuses[10:] == [429] * 2


def test_an_instance_goes_in_and_comes_out_the_same(web, file, state):
    raw = file(1)
    assert store(web, raw).status_code == 200
    found = web("GET", "/dicom-web/studies/1.2.3/series/1.2.3.1/instances/1.2.3.1.1")
    assert found.headers["content-type"].startswith('multipart/related; type="application/dicom"')
    body = found.content.partition(b"\r\n\r\n")[2].rpartition(b"\r\n--")[0]
    (path,) = state.instances.rglob("*.dcm")
    assert body == path.read_bytes()
    assert raw[-40:] == body[-40:]
    assert web("GET", "/dicom-web/studies/1.2.3").content.count(b"DICM") == 1
    assert web("GET", "/dicom-web/studies/1.2.4").status_code == 404
    assert web("GET", "/dicom-web/studies/..%2f..%2fetc").status_code in (400, 404)
    assert web("GET", "/dicom-web/studies/a.b").status_code == 400


def test_searches_are_answered_from_the_index(web, send):
    send(1)
    send(2)
    send(1, study="1.2.4", series="1.2.4.1", PatientName="Roe^Al", PatientID="P-2",
         StudyDate="20230101", Modality="MR")  # fmt: skip

    def studies(**parameters):
        found = web("GET", "/dicom-web/studies", params=parameters)
        assert found.status_code == 200
        return [one["0020000D"]["Value"][0] for one in found.json()]

    assert studies() == ["1.2.3", "1.2.4"]
    assert studies(PatientName="doe*") == ["1.2.3"]
    assert studies(PatientName="*") == ["1.2.3", "1.2.4"]
    assert studies(**{"00100020": "P-2"}) == ["1.2.4"]
    assert studies(PatientID="P_2") == []
    assert studies(StudyDate="20231231-") == ["1.2.3"]
    assert studies(StudyDate="20230101") == ["1.2.4"]
    assert studies(StudyDate="-20230601") == ["1.2.4"]
    assert studies(ModalitiesInStudy="MR") == ["1.2.4"]
    assert studies(limit="1", offset="1") == ["1.2.4"]
    assert studies(PatientID="' OR 1=1 --") == []
    one = web("GET", "/dicom-web/studies", params={"StudyInstanceUID": "1.2.3"}).json()[0]
    assert one["00201208"]["Value"] == [2]
    assert one["00080061"]["Value"] == ["CT"]
    assert one["00100010"]["Value"] == [{"Alphabetic": "Doe^Jane"}]
    series = web("GET", "/dicom-web/studies/1.2.3/series").json()
    assert [x["0020000E"]["Value"][0] for x in series] == ["1.2.3.1"]
    assert series[0]["00201209"]["Value"] == [2]
    url = "/dicom-web/studies/1.2.3/series/1.2.3.1/instances"
    instances = web("GET", url).json()
    assert [x["00200013"]["Value"][0] for x in instances] == [1, 2]
    warned = web("GET", "/dicom-web/studies", params={"EyeColor": "blue"})
    assert "EyeColor" in warned.headers["warning"]
    assert web("GET", "/dicom-web/studies", params={"limit": "x"}).status_code == 400


def test_metadata_of_a_series_are_complete_without_pixels(web, send):
    send(2)
    send(1, PixelData=bytes(32))
    found = web("GET", "/dicom-web/studies/1.2.3/series/1.2.3.1/metadata").json()
    assert [one["00200013"]["Value"] for one in found] == [[1], [2]]
    assert found[0]["00280030"]["Value"] == [1, 1]
    assert found[0]["00200037"]["Value"] == [1, 0, 0, 0, 1, 0]
    assert "7FE00010" not in found[0]
    one = web("GET", "/dicom-web/studies/1.2.3/series/1.2.3.1/instances/1.2.3.1.2/metadata")
    assert one.json() == [found[1]]


def test_metadata_equal_pydicoms_own(send, state):
    import pydicom

    send(1)
    (path,) = state.instances.rglob("*.dcm")
    whole = pydicom.dcmread(path)
    del whole.PixelData
    assert json.loads(dicom_json(path)) == json.loads(whole.to_json())


def test_the_second_look_at_metadata_does_not_read_files(send, state, monkeypatch):
    send(1)
    first = series_metadata(state, "1.2.3")
    monkeypatch.setattr("vesalius.serving.metadata.dicom_json", None)
    assert series_metadata(state, "1.2.3") == first


def test_a_deflated_bomb_is_neither_inflated_at_the_door_nor_for_metadata(intake, state, data_set):
    import resource
    import zlib

    deflate = zlib.compressobj(1, zlib.DEFLATED, -15)
    header = data_set(1)
    header = header[: header.rindex(b"\xe0\x7f\x10\x00")]
    length = 200 << 20
    pixels = b"\xe0\x7f\x10\x00OW\0\0" + length.to_bytes(4, "little")
    raw = deflate.compress(header + pixels)
    raw += b"".join(deflate.compress(bytes(1 << 20)) for _ in range(200)) + deflate.flush()
    assert len(raw) < 1.1 * (1 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    incoming = intake.begin(
        sop_class="1.2.840.10008.5.1.4.1.1.2",
        sop_uid="1.2.3.1.1",
        transfer_syntax="1.2.840.10008.1.2.1.99",
    )
    incoming.write(raw)
    intake.take(incoming, "dimse")
    found = json.loads(series_metadata(state, "1.2.3"))
    assert found[0]["00100020"]["Value"] == ["P-1"]
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 100 << 10  # KiB


def test_what_browsers_are_told(web):
    for path in ("/health", "/nothing", "/dicom-web/studies"):
        headers = web("GET", path, key="").headers
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["cache-control"] == "no-store"
    assert "<script" not in web("GET", "/docs").text


def test_health_tells_the_truth(web, vitals):
    assert web("GET", "/health", key="").json()["status"] == "healthy"
    vitals.found = Reconciled(missing=2)
    sick = web("GET", "/health", key="")
    assert sick.status_code == 503
    assert "2 instances" in sick.json()["problems"][0]
    vitals.found = Reconciled()
    vitals.workers = (1, lambda: 0)
    assert web("GET", "/health", key="").status_code == 503


def test_metrics_are_prometheus_text_without_patients(web, send):
    send(1)
    text = web("GET", "/metrics").text
    assert "vesalius_received_instances_total 1" in text
    assert 'vesalius_studies{state="receiving"} 1' in text
    for line in text.splitlines():
        assert line.startswith("# ") or line.rpartition(" ")[2].replace(".", "").isdigit(), line
    assert "Doe" not in text
    assert "1.2.3" not in text


@pytest.mark.parametrize("length", ["4294967296", "-1", "1e9", "999999999999999999999"])
def test_a_body_that_claims_to_be_large_is_not_waited_for(web, length):
    found = web("POST", "/dicom-web/studies", headers={"Content-Length": length}, content=b"x")
    assert found.status_code == 413


def test_a_body_without_end_is_cut_off(web, state):
    async def endless():
        yield b"--BOUND\r\n\r\n"
        while True:
            yield bytes(1 << 16)

    headers = {"Content-Type": KIND, "Transfer-Encoding": "chunked"}
    found = web("POST", "/dicom-web/studies", content=endless(), headers=headers)
    assert found.status_code == 413
    assert list(state.incoming.iterdir()) == []


def test_a_body_that_pauses_is_cut_off(vitals, audit, state, file):
    key = keys.create(state, name="x", roles=["send"])
    app = application(vitals, audit, Bounds(pause_seconds=0.2))

    async def receive_forever():
        await asyncio.sleep(60)

    async def call():
        sent, first = [], [multipart(file(1))[:600]]

        async def receive():
            if first:
                return {"type": "http.request", "body": first.pop(), "more_body": True}
            return await receive_forever()

        async def send(message):
            sent.append(message)

        headers = [(b"authorization", f"Bearer {key}".encode()), (b"content-type", KIND.encode()),
                   (b"transfer-encoding", b"chunked")]  # fmt: skip
        scope = {"type": "http", "method": "POST", "path": "/dicom-web/studies", "headers": headers,
                 "query_string": b"", "client": ("127.0.0.1", 1), "server": ("x", 80),
                 "scheme": "http", "root_path": "", "http_version": "1.1"}  # fmt: skip
        await app(scope, receive, send)
        return sent[0]["status"]

    begun = time.monotonic()
    assert asyncio.run(call()) == 408
    assert time.monotonic() - begun < 10
    assert list(state.incoming.iterdir()) == []


def test_compressed_bodies_are_refused(web):
    found = web("POST", "/dicom-web/studies", content=b"x", headers={"Content-Encoding": "gzip"})
    assert found.status_code == 415


@pytest.mark.parametrize(
    ("kind", "status"),
    [("application/dicom", 415), ("multipart/related; boundary=" + "x" * 100, 415), ("", 415)],
)
def test_other_kinds_are_refused(web, kind, status):
    headers = {"Content-Type": kind}
    assert web("POST", "/dicom-web/studies", content=b"x", headers=headers).status_code == status


def test_a_url_in_an_instance_is_never_fetched(web, file, monkeypatch):
    import socket

    def never(*_, **__):
        raise AssertionError("something was fetched")

    monkeypatch.setattr(socket.socket, "connect", never)
    for url in ("http://169.254.169.254/latest/meta-data", "file:///etc/passwd"):
        raw = file(1, RetrieveURL=url, PixelDataProviderURL=url)
        assert store(web, raw).status_code == 200
        assert web("GET", "/dicom-web/studies/1.2.3/metadata").status_code == 200
        assert web("GET", "/dicom-web/studies/1.2.3").status_code == 200


def test_an_error_inside_says_nothing_about_patients(web, monkeypatch, caplog):
    def broken(*_, **__):
        raise RuntimeError("Doe^Jane 1.2.3")

    monkeypatch.setattr("vesalius.serving.query.studies", broken)
    found = web("GET", "/dicom-web/studies")
    assert found.status_code == 500
    assert "Doe" not in found.text
    assert "Doe" not in caplog.text


def test_keys_are_made_listed_and_revoked_over_the_api(web):
    made = web("POST", "/api/keys", json={"name": "scanner", "roles": ["send"]})
    assert made.status_code == 201
    key = made.json()["key"]
    assert web("GET", "/api/keys", key=key).status_code == 403
    listed = web("GET", "/api/keys").json()
    assert {one["name"] for one in listed} == {"all", "scanner"}
    assert key not in json.dumps(listed)
    number = key.split("_")[1]
    assert web("DELETE", f"/api/keys/{number}").status_code == 200
    assert web("POST", "/dicom-web/studies", key=key).status_code == 401
    bad = {"name": "x", "roles": ["king"]}
    assert web("POST", "/api/keys", json=bad).status_code == 422
    assert (
        web("POST", "/api/keys", json={"name": "x", "roles": ["read"], "y": 1}).status_code == 422
    )


def test_the_audit_log_shows_who_did_what_without_patients(web, send, file, audit):
    store(web, file(1))
    web("GET", "/dicom-web/studies/1.2.3")
    actions = [line["action"] for line in audit.lines()]
    assert actions[-2:] == ["store", "retrieve"]
    text = audit.path.read_text()
    assert "1.2.3" not in text
    assert "Doe" not in text
    assert audit.pseudonym("1.2.3") in text
    assert web("GET", "/api/audit").json()["broken"] == 0


@pytest.mark.parametrize("change", ["edit", "drop", "swap", "cut", "empty", "insert"])
def test_a_change_of_the_audit_log_shows(audit, change):
    for number in range(5):
        audit.write("key x", "act", number_of=number)
    assert audit.verify().broken == 0
    lines = audit.path.read_text().splitlines(keepends=True)
    changed = {
        "edit": [*lines[:2], lines[2].replace("act", "ace"), *lines[3:]],
        "drop": lines[:2] + lines[3:],
        "swap": [lines[0], lines[2], lines[1], *lines[3:]],
        "cut": lines[:-1],
        "empty": [],
        "insert": [*lines[:2], "no json\n", *lines[2:]],
    }[change]
    audit.path.write_text("".join(changed))
    assert audit.verify().broken > 0


def test_a_line_that_a_kill_tore_is_cut_off_and_the_chain_goes_on(audit):
    audit.write("server", "start")
    with open(audit.path, "a") as stream:
        stream.write('{"number": 2, "bef')
    audit.write("server", "start")
    assert audit.verify().broken == 0
    assert audit.verify().lines == 2


def test_guard_lets_other_connections_through():
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["type"])

    asyncio.run(Guard(app, Bounds())({"type": "lifespan"}, None, None))
    assert seen == ["lifespan"]


def test_many_who_write_to_the_audit_log_at_once_make_one_chain(state):
    logs = [Audit(state), Audit(state)]

    def write(log, number):
        for step in range(5):
            log.write(f"key {number}", "act", step=step)
        state.close()

    threads = [threading.Thread(target=write, args=(logs[n % 2], n)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert logs[0].verify() == type(logs[0].verify())(40)
    steps = {}
    for line in logs[0].lines():
        assert line["step"] == steps.get(line["actor"], -1) + 1
        steps[line["actor"]] = line["step"]


def test_an_audit_log_that_cannot_be_written_says_so(audit, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vesalius.serving.audit.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        audit.write("server", "start")
    monkeypatch.undo()
    audit.write("server", "start")
    assert audit.verify().broken == 0
