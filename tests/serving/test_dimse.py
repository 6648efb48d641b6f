# SPDX-License-Identifier: Apache-2.0
"""The DICOM node, met by pynetdicom's user side, by DCMTK where it is there, and by garbage."""

from __future__ import annotations

import errno
import shutil
import socket
import ssl
import struct
import subprocess
import time
import warnings

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

pytest.importorskip("pynetdicom")

from pynetdicom import AE, evt

from vesalius.errors import UnavailableError, UsageError
from vesalius.serving.audit import Audit
from vesalius.serving.bounds import LONGEST_PDU
from vesalius.serving.commitment import PUSH_MODEL
from vesalius.serving.dimse import Node, NodeSettings

# The user side leaves a socket whose association was cut to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket"),
]
CT = "1.2.840.10008.5.1.4.1.1.2"
VERIFICATION = "1.2.840.10008.1.1"


@pytest.fixture
def node(intake):
    running = Node(intake, NodeSettings(port=0, idle_seconds=10, most_associations=32))
    yield running
    running.close()


def associate(node, title="VESALIUS", calling="SCANNER", **named):
    entity = AE(calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 10
    entity.add_requested_context(CT, ExplicitVRLittleEndian)
    entity.add_requested_context(VERIFICATION)
    entity.add_requested_context(PUSH_MODEL)
    return entity.associate("127.0.0.1", node.port, ae_title=title, **named)


def stored(state):
    query = "SELECT sop_uid FROM instances ORDER BY number"
    return [row[0] for row in state.connection().execute(query)]


def wait_for(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def test_echo_and_store(node, state, instance):
    association = associate(node)
    assert association.is_established
    assert association.send_c_echo().Status == 0
    for number in (1, 2, 3):
        assert association.send_c_store(instance(number)).Status == 0
        # acknowledged means durable: another connection sees it
        assert len(stored(state)) == number
    association.release()
    assert stored(state) == ["1.2.3.1.1", "1.2.3.1.2", "1.2.3.1.3"]


def test_a_large_instance_goes_through_a_file(node, state, instance):
    one = instance(1, Rows=1024, Columns=1024, PixelData=bytes(range(256)) * 8192)
    association = associate(node)
    assert association.send_c_store(one).Status == 0
    association.release()
    (path,) = state.instances.rglob("*.dcm")
    assert path.read_bytes().endswith(one.PixelData)
    assert list(state.incoming.iterdir()) == []


def test_what_an_aborted_association_had_acknowledged_stays(node, state, instance):
    association = associate(node)
    assert association.send_c_store(instance(1)).Status == 0
    association.abort()
    wait_for(lambda: node.associations == 0)
    assert stored(state) == ["1.2.3.1.1"]


def test_a_socket_that_closes_in_the_middle_leaves_nothing(node, state, instance, data_set):
    large = instance(2, Rows=2048, Columns=2048, PixelData=bytes(8 << 20))
    association = associate(node)
    sent = []

    def cut(event):
        sent.append(event)
        if len(sent) == 20:
            association.dul.socket.socket.shutdown(socket.SHUT_RDWR)

    association.bind(evt.EVT_PDU_SENT, cut)
    association.send_c_store(large)
    wait_for(lambda: node.associations == 0)
    wait_for(lambda: not list(state.incoming.iterdir()))
    assert stored(state) == []


@pytest.mark.parametrize("uid", ["../x", "/etc/x", "..%2fx"])
def test_a_path_for_an_identifier_writes_nothing_anywhere(node, state, instance, uid, tmp_path):
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    one = instance(1)
    association = associate(node)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom says that it is no identifier
        one.SOPInstanceUID = uid
        one.file_meta.MediaStorageSOPInstanceUID = uid
        status = association.send_c_store(one)
    assert status.Status == 0xC000
    association.release()
    after = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert {path.name for path in after - before} <= {"state.sqlite-wal", "state.sqlite-shm"}


def test_a_full_disk_answers_out_of_resources_and_recovers(node, state, instance, monkeypatch):
    association = associate(node)

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("vesalius.serving.store.os.fsync", full)
    assert association.send_c_store(instance(1)).Status == 0xA700
    monkeypatch.undo()
    assert association.send_c_store(instance(1)).Status == 0x0000
    association.release()


def test_a_disk_that_fills_up_in_the_middle_of_an_instance(node, state, instance, monkeypatch):
    from vesalius.serving.store import Incoming

    write = Incoming.write

    def full(self, piece):
        if self.size > 3 << 20:
            from vesalius.serving import refusal

            raise refusal.Refused(refusal.OUT_OF_RESOURCES, "full")
        write(self, piece)

    monkeypatch.setattr(Incoming, "write", full)
    association = associate(node)
    large = instance(2, Rows=2048, Columns=2048, PixelData=bytes(8 << 20))
    assert association.send_c_store(large).Status == 0xA700
    assert list(state.incoming.iterdir()) == []
    monkeypatch.undo()
    assert association.send_c_store(large).Status == 0x0000
    association.release()


def test_an_instance_that_is_too_large_is_refused_without_being_held(intake, instance, state):
    intake.largest = 2 << 20
    running = Node(intake, NodeSettings(port=0))
    try:
        association = associate(running)
        large = instance(2, Rows=2048, Columns=2048, PixelData=bytes(8 << 20))
        assert association.send_c_store(large).Status == 0xA700
        assert association.send_c_store(instance(1)).Status == 0x0000
        association.release()
    finally:
        running.close()
    assert list(state.incoming.iterdir()) == []


def test_titles_are_asked_for(intake):
    running = Node(intake, NodeSettings(port=0, peers={"SCANNER": None}))
    try:
        assert associate(running).is_established
        assert associate(running, calling="STRANGER").is_rejected
        assert associate(running, title="ANYONE").is_rejected
    finally:
        running.close()


def test_the_audit_log_says_what_an_association_stored(intake, state, instance):
    audit = Audit(state)
    running = Node(intake, NodeSettings(port=0), audit)
    try:
        association = associate(running)
        for number in (1, 2):
            association.send_c_store(instance(number))
        association.abort()
        wait_for(lambda: list(audit.lines()))
        (line,) = audit.lines()
        assert (line["actor"], line["action"], line["instances"]) == ("dicom SCANNER", "store", 2)
        assert line["study"] == audit.pseudonym("1.2.3")
        assert audit.verify().broken == 0
    finally:
        running.close()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_a_node_with_tls_takes_tls_alone_and_a_silent_peer_blocks_nobody(
    intake, state, instance, tmp_path
):
    paths = [str(tmp_path / name) for name in ("key.pem", "certificate.pem")]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", paths[0], "-out", paths[1]],
        check=True, capture_output=True,
    )  # fmt: skip
    own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    own.load_cert_chain(paths[1], paths[0])
    theirs = ssl.create_default_context(cafile=paths[1])
    running = Node(intake, NodeSettings(port=0, tls=own))
    try:
        with socket.create_connection(("127.0.0.1", running.port)):  # says nothing
            association = associate(running, tls_args=(theirs, "127.0.0.1"))
            assert association.is_established
            assert association.send_c_store(instance(1)).Status == 0
            association.release()
        assert not associate(running).is_established
    finally:
        running.close()
    assert stored(state) == ["1.2.3.1.1"]


def test_an_open_node_listens_to_this_machine_alone():
    with pytest.raises(UsageError, match="--peer"):
        NodeSettings(host="0.0.0.0")  # noqa: S104
    with pytest.raises(UsageError, match="1 to 16"):
        NodeSettings(title="A" * 17)


def test_a_port_that_is_taken_is_said(node, intake):
    with pytest.raises(UnavailableError, match="--dicom"):
        Node(intake, NodeSettings(port=node.port))


def test_commitment_reports_what_is_held_and_what_is_not(node, state, instance):
    reports = []

    def told(event):
        reports.append((event.event_type, event.event_information))
        return 0x0000, None

    entity = AE("SCANNER")
    entity.add_requested_context(CT, ExplicitVRLittleEndian)
    entity.add_requested_context(PUSH_MODEL)
    association = entity.associate(
        "127.0.0.1", node.port, ae_title="VESALIUS", evt_handlers=[(evt.EVT_N_EVENT_REPORT, told)]
    )
    one = instance(1)
    assert association.send_c_store(one).Status == 0
    asked = Dataset()
    asked.TransactionUID = "1.2.99"
    item, missing = Dataset(), Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT, one.SOPInstanceUID
    missing.ReferencedSOPClassUID, missing.ReferencedSOPInstanceUID = CT, "1.2.3.1.77"
    asked.ReferencedSOPSequence = [item, missing]
    status, _ = association.send_n_action(asked, 1, PUSH_MODEL, "1.2.840.10008.1.20.1.1")
    assert status.Status == 0x0000
    wait_for(lambda: reports)
    kind, report = reports[0]
    assert kind == 2
    assert report.TransactionUID == "1.2.99"
    assert [x.ReferencedSOPInstanceUID for x in report.ReferencedSOPSequence] == ["1.2.3.1.1"]
    assert [x.FailureReason for x in report.FailedSOPSequence] == [0x0112]
    association.release()


def test_commitment_is_reported_to_the_peers_own_address(intake, instance):
    reports = []

    def told(event):
        reports.append(event.event_type)
        return 0x0000, None

    listening = AE("SCANNER")
    listening.add_supported_context(PUSH_MODEL, scu_role=True, scp_role=True)
    server = listening.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, told)]
    )
    port = server.socket.getsockname()[1]
    running = Node(intake, NodeSettings(port=0, peers={"SCANNER": ("127.0.0.1", port)}))
    try:
        association = associate(running)
        one = instance(1)
        association.send_c_store(one)
        asked, item = Dataset(), Dataset()
        asked.TransactionUID = "1.2.99"
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT, one.SOPInstanceUID
        asked.ReferencedSOPSequence = [item]
        status, _ = association.send_n_action(asked, 1, PUSH_MODEL, "1.2.840.10008.1.20.1.1")
        assert status.Status == 0
        association.release()
        wait_for(lambda: reports)
        assert reports == [1]
    finally:
        running.close()
        server.shutdown()


@pytest.mark.parametrize(
    "raw",
    [
        struct.pack(">BBL", 0x01, 0, 0xFFFFFFFF) + bytes(1000),  # a PDU of 4 GB
        struct.pack(">BBL", 0x04, 0, LONGEST_PDU * 4),
        struct.pack(">BBL", 0x99, 0, 10) + bytes(10),
        struct.pack(">BBL", 0x01, 0, 4) + b"\xff\xff\xff\xff",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x01",
        bytes(200),
    ],
)
def test_bytes_that_are_no_association_are_dropped_and_the_node_lives_on(
    node, state, instance, raw
):
    with socket.create_connection(("127.0.0.1", node.port), timeout=5) as peer:
        peer.sendall(raw)
        peer.shutdown(socket.SHUT_WR)
        peer.settimeout(5)
        while peer.recv(4096):
            pass
    association = associate(node)
    assert association.send_c_store(instance(1)).Status == 0
    association.release()


def test_a_peer_that_does_not_wait_for_answers_is_cut_off(node, instance, state):
    association = associate(node)
    association._reactor_checkpoint.clear()
    from io import BytesIO

    from pynetdicom.dimse_primitives import C_STORE
    from pynetdicom.dsutils import encode

    one = instance(1)
    context = next(c for c in association.accepted_contexts if c.abstract_syntax == CT)
    for number in range(1, 200):
        request = C_STORE()
        request.MessageID = number
        request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = CT, one.SOPInstanceUID
        request.Priority = 2
        request.DataSet = BytesIO(encode(one, False, True))
        association.dimse.send_msg(request, context.context_id)
    wait_for(lambda: not association.dul.is_alive() or association.acse.is_aborted())
    association.abort()
    wait_for(lambda: node.associations == 0)
    assert list(state.incoming.iterdir()) == []


@pytest.mark.skipif(shutil.which("storescu") is None, reason="DCMTK is not installed")
def test_dcmtk_sends_to_the_node(node, state, file, tmp_path):
    for number in (1, 2):
        (tmp_path / f"{number}.dcm").write_bytes(file(number))
    for command in (
        ["echoscu", "-aec", "VESALIUS", "127.0.0.1", str(node.port)],
        ["storescu", "-aec", "VESALIUS", "127.0.0.1", str(node.port),
         *map(str, sorted(tmp_path.glob("*.dcm")))],
    ):  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
    assert stored(state) == ["1.2.3.1.1", "1.2.3.1.2"]
