# SPDX-License-Identifier: Apache-2.0
"""What was acknowledged is on disk; what was not leaves no trace."""

from __future__ import annotations

import errno
import io
import os
import sqlite3
import threading

import pydicom
import pytest

from vesalius.serving import refusal, store
from vesalius.serving.intake import Intake
from vesalius.serving.reconcile import reconcile
from vesalius.serving.refusal import Refused
from vesalius.serving.state import State
from vesalius.serving.store import path_of


def _rows(state):
    query = "SELECT sha256, folder, sop_uid, superseded FROM instances ORDER BY sop_uid"
    return state.connection().execute(query).fetchall()


def test_an_instance_is_a_file_named_by_its_content_and_a_row(state, send):
    arrival = send(3)
    ((sha256, folder, sop_uid, superseded),) = _rows(state)
    path = path_of(state, folder, sha256)
    read = pydicom.dcmread(path)
    assert (sop_uid, superseded) == ("1.2.3.1.3", 0)
    assert read.PatientName == "Doe^Jane"
    assert len(read.PixelData) == 32
    assert path.stat().st_size == arrival.size
    assert list(state.incoming.iterdir()) == []
    study = state.connection().execute("SELECT patient_id, state, received FROM studies")
    assert study.fetchall() == [("P-1", "receiving", 1)]


def test_the_same_instance_again_changes_nothing(state, send):
    send(1)
    send(1)
    assert len(_rows(state)) == 1
    received = state.connection().execute("SELECT received FROM studies").fetchone()
    assert received == (1,)


def test_other_content_under_the_same_uid_is_kept_beside_and_counts(state, send):
    first = send(1)
    second = send(1, PatientName="Doe^Janet")
    held = {sha256: superseded for sha256, _, _, superseded in _rows(state)}
    assert held == {first.sha256: 1, second.sha256: 0}
    send(1)
    held = {sha256: superseded for sha256, _, _, superseded in _rows(state)}
    assert held == {first.sha256: 0, second.sha256: 1}


@pytest.mark.parametrize(
    "uid", ["../x", "/etc/x", "1." * 40 + "1", "1.2\0", "", "1..2", ".1", "1.", "1.2 ", "1.²"]
)
def test_an_identifier_that_is_none_is_refused_before_anything_is_written(state, intake, uid):
    with pytest.raises(Refused) as refused:
        intake.begin(sop_class="1.2", sop_uid=uid, transfer_syntax="1.2.840.10008.1.2.1")
    assert refused.value.status == refusal.CANNOT_UNDERSTAND
    assert list(state.incoming.iterdir()) == []


def test_a_data_set_that_is_another_instance_is_refused(state, intake, data_set):
    incoming = intake.begin(sop_class="1.2", sop_uid="1.9.9", transfer_syntax="1.2.840.10008.1.2.1")
    incoming.write(data_set())
    with pytest.raises(Refused) as refused:
        intake.take(incoming, "dimse")
    assert refused.value.status == refusal.MISMATCH
    assert list(state.incoming.iterdir()) == []
    assert intake.counts.refused == 1


def test_a_full_disk_is_answered_and_recovered_from(state, intake, send, monkeypatch):
    send(1)
    fsync = os.fsync

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    for place in ("vesalius.serving.store.os.fsync", "vesalius.serving.store.fsync_folder"):
        monkeypatch.setattr(place, full)
        with pytest.raises(Refused) as refused:
            send(2)
        assert refused.value.status == refusal.OUT_OF_RESOURCES
        monkeypatch.undo()
    assert os.fsync is fsync
    assert [row[2] for row in _rows(state)] == ["1.2.3.1.1"]
    files = [path.name for path in state.instances.rglob("*.dcm")]
    assert len(files) == 1
    assert list(state.incoming.iterdir()) == []
    send(2)
    assert len(_rows(state)) == 2


def test_an_index_that_cannot_grow_is_answered_and_recovered_from(state, intake, send):
    send(1)
    original = store.insert

    def full(connection, *rest):
        raise sqlite3.OperationalError("database or disk is full")

    store.insert = full
    try:
        with pytest.raises(Refused) as refused:
            send(2)
    finally:
        store.insert = original
    assert refused.value.status == refusal.OUT_OF_RESOURCES
    assert len(list(state.instances.rglob("*.dcm"))) == 1
    send(2)
    assert len(_rows(state)) == 2


def test_the_reserve_is_kept_free(state):
    taking = Intake(state, reserve=1 << 62)
    try:
        with pytest.raises(Refused) as refused:
            taking.begin(sop_class="1.2", sop_uid="1.2", transfer_syntax="1.2")
        assert refused.value.status == refusal.OUT_OF_RESOURCES
    finally:
        taking.close()


def test_many_senders_share_commits(state, send, intake):
    def some(start):
        for n in range(start, start + 10):
            send(n)

    threads = [threading.Thread(target=some, args=(100 * n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(_rows(state)) == 80
    assert intake.counts.instances == 80
    assert intake.counts.commits < 80
    received = state.connection().execute("SELECT received FROM studies").fetchone()
    assert received == (80,)


def test_folders_are_filled_one_after_the_other(state, send, monkeypatch):
    monkeypatch.setattr(store, "_FOLDER_FILES", 3)
    for n in range(7):
        send(n)
    counts = [len(list(folder.iterdir())) for folder in sorted(state.instances.iterdir())]
    assert counts == [3, 3, 1]


def test_a_start_removes_what_never_counted_and_adopts_what_is_whole(state, send):
    kept, lost = send(1), send(2)
    (folder,) = state.instances.iterdir()
    (state.incoming / "x.part").write_bytes(b"half")
    (folder / ("0" * 64 + ".dcm")).write_bytes(b"not what it says")
    with state.transaction() as connection:  # a kill between rename and commit
        connection.execute("DELETE FROM instances WHERE sha256 = ?", (lost.sha256,))
    found = reconcile(state)
    assert (found.unfinished, found.adopted, found.removed, found.missing) == (1, 1, 1, 0)
    assert {row[0] for row in _rows(state)} == {kept.sha256, lost.sha256}
    assert reconcile(state).adopted == 0


def test_what_is_gone_or_damaged_is_said(state, send):
    gone, damaged = send(1), send(2)
    (folder,) = state.instances.iterdir()
    (folder / f"{gone.sha256}.dcm").unlink()
    with open(folder / f"{damaged.sha256}.dcm", "ab") as stream:
        stream.write(b"x")
    assert reconcile(state).missing == 1
    found = reconcile(state, thorough=True)
    assert (found.missing, found.damaged) == (1, 1)


def test_one_server_a_state(state):
    from vesalius.errors import UsageError

    with state.locked(), pytest.raises(UsageError, match="already runs"), state.locked():
        pass
    with state.locked():
        pass


def test_a_folder_of_something_else_is_not_taken_over(tmp_path):
    from vesalius.errors import UsageError

    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        State(tmp_path)


def test_the_state_is_its_owners_alone(state):
    assert state.folder.stat().st_mode & 0o077 == 0


def test_the_index_commits_durably(state):
    connection = state.connection()
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_a_sender_cannot_keep_a_program_in_the_preamble(state, send):
    send(1)
    ((sha256, folder, *_),) = _rows(state)
    stream = io.BytesIO(path_of(state, folder, sha256).read_bytes())
    assert stream.read(132) == bytes(128) + b"DICM"
