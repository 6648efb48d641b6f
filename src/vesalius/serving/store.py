# SPDX-License-Identifier: Apache-2.0
"""The instances of a state: taken in so that none that was acknowledged is lost (law 7).

An instance is written to `incoming/`, read by the bounded walker, flushed, and then handed to
`commit`, alone or with the instances of other senders that wait at the same moment: each file is
renamed to the hash of its content, the folder is flushed, and one transaction of the index makes
all of them count. Only then is any of them acknowledged.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from vesalius.errors import ReadError
from vesalius.files import fsync_folder
from vesalius.serving import refusal
from vesalius.serving.attributes import Attributes, read_attributes
from vesalius.serving.part10 import file_head
from vesalius.serving.refusal import Refused
from vesalius.serving.state import State
from vesalius.serving.uids import is_uid

RESULT = "result"  # the origin of what the server made itself
FILE = "file"  # and of images that are no DICOM: their class is empty, their syntax a suffix
_FOLDER_FILES = 1000
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_COPY = 1 << 20


@dataclass(frozen=True, slots=True)
class Arrival:
    """One instance in `incoming/`, flushed, that does not count yet."""

    path: Path
    sha256: str
    size: int
    attributes: Attributes
    origin: str


class Incoming:
    """A file of `incoming/` under way: written piece by piece, then turned into an arrival."""

    def __init__(self, state: State, *, sop_class: str, sop_uid: str, transfer_syntax: str):
        """Begin an instance with the identifiers that its sender announced.

        Raises:
            Refused: an identifier is none.
        """
        for name in (sop_class, sop_uid, transfer_syntax):
            if not is_uid(name):
                raise Refused(
                    refusal.CANNOT_UNDERSTAND,
                    "an identifier of the instance is not one: digits and dots, at most 64",
                )
        self._announced = (sop_class, sop_uid)
        self._sha = hashlib.sha256()
        self.size = 0
        with refused_when_full():
            handle, name = tempfile.mkstemp(suffix=".part", dir=state.incoming)
            self.path = Path(name)
            self._stream = os.fdopen(handle, "wb", buffering=0)
            self.write(file_head(sop_class, sop_uid, transfer_syntax))

    def write(self, piece: bytes | memoryview) -> None:
        """Append a piece of the data set."""
        with refused_when_full():
            rest = memoryview(piece)
            while rest:
                rest = rest[self._stream.write(rest) :]
        self._sha.update(piece)
        self.size += len(piece)

    def copy(self, source: IO[bytes]) -> None:
        """Append all that is left of a stream."""
        while piece := source.read(_COPY):
            self.write(piece)

    def arrive(self, origin: str) -> Arrival:
        """Flush the file and read what the index holds of it.

        Raises:
            Refused: it is no instance that the index can hold, or not the one announced.
        """
        try:
            with refused_when_full():
                os.fsync(self._stream.fileno())
                self._stream.close()
            try:
                attributes = read_attributes(self.path)
            except ReadError as error:
                raise Refused(refusal.CANNOT_UNDERSTAND, error.reason) from error
            if (attributes.sop_class, attributes.sop_uid) != self._announced:
                raise Refused(
                    refusal.MISMATCH, "the data set is another instance than was announced"
                )
        except BaseException:
            self.discard()
            raise
        return Arrival(self.path, self._sha.hexdigest(), self.size, attributes, origin)

    def discard(self) -> None:
        """Remove what was written."""
        self._stream.close()
        self.path.unlink(missing_ok=True)


class refused_when_full:  # noqa: N801 - used like a function
    """Turn a full disk, and an index that cannot grow, into `Refused` with OUT_OF_RESOURCES."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        full = isinstance(error, OSError) and error.errno in _FULL
        if full or (isinstance(error, sqlite3.OperationalError) and "full" in str(error)):
            raise Refused(
                refusal.OUT_OF_RESOURCES, "the disk of the server's state is full"
            ) from error


def commit(
    state: State,
    arrivals: Sequence[Arrival],
    *,
    also: Callable[[sqlite3.Connection], None] | None = None,
) -> None:
    """Make arrivals count, all or none, durably.

    Args:
        state: the state.
        arrivals: of `Incoming.arrive`; those that are held already are dropped.
        also: is called within the transaction.

    Raises:
        Refused: the disk is full. Then the arrivals are gone and the state is as before.
    """
    moved: list[Path] = []
    try:
        with refused_when_full():
            folder = _folder(state)
            for one in arrivals:
                if _held(state.connection(), one.sha256):
                    continue
                target = state.instances / folder / f"{one.sha256}.dcm"
                os.rename(one.path, target)
                moved.append(target)
            if moved:
                fsync_folder(state.instances / folder)
            now = state.clock.now()
            with state.transaction() as connection:
                for one in arrivals:
                    insert(connection, one, folder, now)
                if also is not None:
                    also(connection)
    except BaseException:
        for path in moved:
            if not _held(state.connection(), path.stem):
                with suppress(OSError):  # a file without a row is dealt with at the next start
                    path.unlink(missing_ok=True)
        raise
    finally:
        for one in arrivals:
            one.path.unlink(missing_ok=True)


def path_of(state: State, folder: str, sha256: str) -> Path:
    """Return where an instance of the index lies."""
    return state.instances / folder / f"{sha256}.dcm"


def _folder(state: State) -> str:
    """Return the folder that is being filled, and make it where there is none."""
    row = state.connection().execute("SELECT max(folder) FROM instances").fetchone()
    name = row[0] or "000000"
    held = state.connection().execute(
        "SELECT count(*) FROM instances WHERE folder = ?", (name,)
    ).fetchone()[0]  # fmt: skip
    if held >= _FOLDER_FILES:
        name = f"{int(name) + 1:06d}"
    folder = state.instances / name
    if not folder.is_dir():
        folder.mkdir(exist_ok=True)
        fsync_folder(state.instances)
    return name


def _held(connection: sqlite3.Connection, sha256: str) -> bool:
    query = "SELECT 1 FROM instances WHERE sha256 = ?"
    return connection.execute(query, (sha256,)).fetchone() is not None


def insert(connection: sqlite3.Connection, one: Arrival, folder: str, now: float) -> None:
    """Add an arrival to the index; the same content again only counts as the latest."""
    known = one.attributes
    connection.execute(
        "UPDATE instances SET superseded = (sha256 != ?) WHERE sop_uid = ?",
        (one.sha256, known.sop_uid),
    )
    added = connection.execute(
        "INSERT OR IGNORE INTO instances VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,0,?)",
        (
            one.sha256, folder, known.sop_uid, known.sop_class, known.series_uid,
            known.study_uid, known.transfer_syntax, known.number, known.rows, known.columns,
            known.frames, one.size, one.origin, now,
        ),
    ).rowcount  # fmt: skip
    connection.execute(
        "INSERT OR IGNORE INTO series VALUES (?,?,?,?,?,?)",
        (
            known.series_uid, known.study_uid, known.modality, known.series_description,
            known.series_number, known.body_part,
        ),
    )  # fmt: skip
    outside = one.origin != RESULT
    connection.execute(
        "INSERT OR IGNORE INTO studies VALUES (?,?,?,?,?,?,?,?,?,?,?,?,0,?,?)",
        (
            known.study_uid, known.patient_id, known.patient_name, known.birth_date, known.sex,
            known.study_date, known.study_time, known.study_id, known.accession,
            known.referring, known.study_description, "receiving" if outside else "complete",
            now, now,
        ),
    )  # fmt: skip
    if outside and added:
        connection.execute(
            "UPDATE studies SET state = 'receiving', received = received + 1, "
            "last_seen = max(last_seen, ?) WHERE study_uid = ?",
            (now, known.study_uid),
        )
