# SPDX-License-Identifier: Apache-2.0
"""Results on their way to the PACS: by STOW-RS or C-STORE, tried again, and not for ever.

A push that was cut off is sent again: the object is the same file with the same identifiers, so a
PACS that had it already has it still once.
"""

from __future__ import annotations

import base64
import http.client
import logging
import os
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from vesalius.errors import UnavailableError, UsageError
from vesalius.serving import queue
from vesalius.serving.queue import Job, LeaseLost
from vesalius.serving.state import State
from vesalius.serving.store import path_of

_LOG = logging.getLogger(__name__)
_SECONDS = 60.0
_PIECE = 1 << 18
_IDLE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Target:
    """Where results go.

    Attributes:
        name: without what may be secret; jobs and logs name the target so.
        scheme: http, https or dicom.
        host, port: of the PACS.
        path: of its DICOMweb service (http, https).
        title: its AE title (dicom).
        authorization: value of the header, or empty. Secret.
    """

    name: str
    scheme: str
    host: str
    port: int
    path: str = ""
    title: str = ""
    authorization: str = ""

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read `http(s)://[user:password@]host[:port]/dicom-web` or `dicom://TITLE@host:port`.

        Raises:
            UsageError: neither.
        """
        try:
            url = urlsplit(text)
            host, port = url.hostname or "", url.port
        except ValueError:
            url, host, port = urlsplit(""), "", None
        if url.scheme == "dicom" and host and port and url.username:
            title = unquote(url.username)
            return cls(f"dicom://{title}@{host}:{port}", "dicom", host, port, title=title)
        if url.scheme in ("http", "https") and host and not url.query:
            port = port or (443 if url.scheme == "https" else 80)
            secret = ""
            if url.username:
                pair = f"{unquote(url.username)}:{unquote(url.password or '')}"
                secret = f"Basic {base64.b64encode(pair.encode()).decode()}"
            path = url.path.rstrip("/")
            name = f"{url.scheme}://{host}:{port}{path}"
            return cls(name, url.scheme, host, port, path=path, authorization=secret)
        raise UsageError(
            "a PACS is given as http://host:port/dicom-web, https://… or dicom://TITLE@host:port"
        )


def connect(target: Target) -> http.client.HTTPConnection:
    """Return a connection to a PACS that speaks DICOMweb, not opened yet; redirects are none."""
    if target.scheme == "https":
        return http.client.HTTPSConnection(
            target.host, target.port, timeout=_SECONDS, context=ssl.create_default_context()
        )
    return http.client.HTTPConnection(target.host, target.port, timeout=_SECONDS)


class Pusher:
    """Pushes what is queued, in a thread of the server."""

    def __init__(self, state: State, targets: list[Target], title: str = "VESALIUS"):
        self._state = state
        self._targets = {target.name: target for target in targets}
        self._title = title
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def push_once(self) -> bool:
        """Do one push; False where none is due."""
        job = queue.lease(self._state, "push", owner="server", seconds=4 * _SECONDS)
        if job is None:
            return False
        try:
            self._push(job)
            with self._state.transaction() as connection:
                queue.finish(connection, job, now=self._state.clock.now())
        except LeaseLost:
            _LOG.warning("a push took longer than its lease")
        except UsageError as error:
            queue.refuse(self._state, job, str(error))
        except (UnavailableError, OSError, http.client.HTTPException) as error:
            _LOG.warning("a push failed: %s", type(error).__name__)
            words = str(error) if isinstance(error, UnavailableError) else type(error).__name__
            queue.fail(self._state, job, words)
        return True

    def start(self) -> None:
        """Push again and again."""

        def run() -> None:
            while not self._end.is_set():
                if not self.push_once():
                    self._end.wait(_IDLE_SECONDS)
            self._state.close()

        self._thread = threading.Thread(target=run, name="push", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, after the push that goes on."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()

    def _push(self, job: Job) -> None:
        target = self._targets.get(job.subject["target"])
        if target is None:
            raise UsageError(f"results are no longer pushed to {job.subject['target']}")
        row = self._state.connection().execute(
            "SELECT folder, sop_class, sop_uid, transfer_syntax FROM instances WHERE sha256 = ?",
            (job.subject["sha256"],),
        ).fetchone()  # fmt: skip
        if row is None:
            raise UsageError("the result is gone from the state")
        path = path_of(self._state, row[0], job.subject["sha256"])
        if target.scheme == "dicom":
            _store(target, path, row[1], row[3], self._title)
        else:
            _stow(target, path)


def _stow(target: Target, path: Path) -> None:
    boundary = f"vesalius{os.urandom(12).hex()}"
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    tail = f"\r\n--{boundary}--\r\n".encode()
    size = len(head) + path.stat().st_size + len(tail)

    def pieces() -> Iterator[bytes]:
        yield head
        with open(path, "rb") as stream:
            while piece := stream.read(_PIECE):
                yield piece
        yield tail

    headers = {
        "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
        "Content-Length": str(size),
        "Accept": "application/dicom+json",
    }
    if target.authorization:
        headers["Authorization"] = target.authorization
    connection = connect(target)
    try:
        connection.request("POST", f"{target.path}/studies", body=pieces(), headers=headers)
        answer = connection.getresponse()
        answer.read(_PIECE)
        if answer.status != 200:
            raise UnavailableError(f"the PACS answered {answer.status}; see its log")
    finally:
        connection.close()


def _store(target: Target, path: Path, sop_class: str, syntax: str, title: str) -> None:
    from pynetdicom import AE

    entity = AE(title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = _SECONDS
    entity.connection_timeout = _SECONDS
    entity.add_requested_context(sop_class, syntax)
    association = entity.associate(target.host, target.port, ae_title=target.title)
    if not association.is_established:
        why = "rejected" if association.is_rejected else "not reached"
        raise UnavailableError(f"the association with the PACS was {why}")
    try:
        if not association.accepted_contexts:
            raise UnavailableError("the PACS does not take objects of this kind or syntax")
        status = association.send_c_store(path)
        code = status.get("Status", -1)
        if code != 0x0000 and code & 0xF000 != 0xB000:  # warnings: stored, with a remark
            raise UnavailableError(f"the PACS answered 0x{max(code, 0):04X}; see its log")
    finally:
        if association.is_established:
            association.release()
