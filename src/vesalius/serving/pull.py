# SPDX-License-Identifier: Apache-2.0
"""A study fetched from a PACS: QIDO-RS says what it has, WADO-RS brings it (PS3.18 10.4, 10.6).

A pull is a job of the queue: it survives a restart, is tried again where the PACS does not answer,
and ends where trying again is useless. Series that are held whole already are not fetched again.
Instances come as they are stored there, part by part, and count like those that were sent: no
address that an answer names is followed (no redirect, no BulkDataURI).
"""

from __future__ import annotations

import http.client
import json
import logging
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from vesalius.errors import UnavailableError, UsageError
from vesalius.serving import priorities, queue, refusal
from vesalius.serving.audit import Audit
from vesalius.serving.intake import Intake
from vesalius.serving.multipart import Begin, End, Parser, Piece, content_type
from vesalius.serving.push import Target, connect
from vesalius.serving.queue import Job, LeaseLost
from vesalius.serving.refusal import Refused
from vesalius.serving.state import State
from vesalius.serving.stow import Part10
from vesalius.serving.uids import is_uid
from vesalius.types import Json

_LOG = logging.getLogger(__name__)
KIND = "pull"
_ORIGIN = "pull"
_LEASE_SECONDS = 240.0
_IDLE_SECONDS = 0.5
_PIECE = 1 << 18
_MOST_JSON = 16 << 20
_MOST_SERIES = 10_000
_MOST_REASONS = 100
_INSTANCES = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_SERIES, _COUNT, _STUDY = "0020000E", "00201209", "0020000D"


@dataclass(slots=True)
class _Brought:
    """What a pull brought so far: instances stored, and why others were not, the first of them."""

    stored: int = 0
    refused: list[str] = field(default_factory=list)


def ask(state: State, target: Target, study: str, *, priority: int = 0) -> int:
    """Queue the pull of a study and return the job's number; one that waits already is returned.

    Raises:
        UsageError: the target cannot be asked, or the UID is none.
    """
    if target.scheme == "dicom":
        raise UsageError(
            "studies are pulled by DICOMweb; give the PACS as --pacs http(s)://…/dicom-web too"
        )
    if not is_uid(study):
        raise UsageError("study must be a UID: digits and dots, at most 64")
    with state.transaction() as connection:
        waiting = connection.execute(
            "SELECT id FROM jobs WHERE kind = ? AND study_uid = ? AND state IN ('ready', 'leased')",
            (KIND, study),
        ).fetchone()
        if waiting is None:
            queue.add(
                connection,
                kind=KIND,
                key=f"pull {study} {secrets.token_hex(8)}",
                study_uid=study,
                subject={"target": target.name},
                now=state.clock.now(),
                priority=priority,
            )
            waiting = connection.execute("SELECT last_insert_rowid()").fetchone()
    priorities.raise_to(state, study, priority)
    return int(waiting[0])


class Puller:
    """Does the pulls that are queued, in a thread of the server."""

    def __init__(self, intake: Intake, targets: Sequence[Target], audit: Audit):
        self._intake = intake
        self._state = intake.state
        self._targets = {target.name: target for target in targets}
        self._audit = audit
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def pull_once(self) -> bool:
        """Do one pull; False where none is due."""
        job = queue.lease(self._state, KIND, owner="server", seconds=_LEASE_SECONDS)
        if job is None:
            return False
        brought = _Brought()
        try:
            answer = self._pull(job, brought)
            with self._state.transaction() as connection:
                queue.finish(connection, job, now=self._state.clock.now(), answer=answer)
        except LeaseLost:
            _LOG.warning("a pull took longer than its lease")
        except UsageError as error:
            queue.refuse(self._state, job, str(error))
        except (UnavailableError, Refused, OSError, http.client.HTTPException) as error:
            _LOG.warning("a pull failed: %s", type(error).__name__)
            said = isinstance(error, UnavailableError | Refused)
            queue.fail(self._state, job, str(error) if said else type(error).__name__)
        finally:
            if brought.stored:
                self._audit.write(
                    f"pull {job.subject['target']}",
                    "store",
                    study_uid=job.study_uid,
                    instances=brought.stored,
                )
        return True

    def start(self) -> None:
        """Pull again and again."""

        def run() -> None:
            while not self._end.is_set():
                if not self.pull_once():
                    self._end.wait(_IDLE_SECONDS)
            self._state.close()

        self._thread = threading.Thread(target=run, name="pull", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, after the instance that is under way."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()

    def _pull(self, job: Job, brought: _Brought) -> Json:
        target = self._targets.get(job.subject["target"])
        if target is None:
            raise UsageError(f"{job.subject['target']} is no longer a PACS of this server")
        study = job.study_uid
        wanted = _series_of(target, study)
        for series, count in wanted.items():
            if count is None or self._held(study, series) < count:
                self._fetch(target, job, series, brought)
        if not brought.stored and brought.refused:
            raise UsageError(f"nothing of the study could be taken: {brought.refused[0]}")
        return {
            "series": len(wanted),
            "instances": brought.stored,
            "refused": brought.refused,
        }

    def _held(self, study: str, series: str) -> int:
        query = (
            "SELECT count(*) FROM instances WHERE study_uid = ? AND series_uid = ? "
            "AND NOT superseded"
        )
        (count,) = self._state.connection().execute(query, (study, series)).fetchone()
        return int(count)

    def _fetch(self, target: Target, job: Job, series: str, brought: _Brought) -> None:
        """Bring one series; raises `Refused` on a full disk, and what `_asked` raises."""
        path = f"/studies/{job.study_uid}/series/{series}"
        part: Part10 | None = None
        renewed = time.monotonic()
        with _asked(target, path, _INSTANCES) as answer:
            kind, parameters = content_type(answer.getheader("Content-Type", ""))
            if kind != "multipart/related":
                raise UnavailableError("the PACS did not answer with multipart/related")
            parser = _parser(parameters.get("boundary", ""))
            try:
                while piece := answer.read1(_PIECE):
                    for event in _events(parser, piece):
                        if isinstance(event, Begin):
                            part = Part10(self._intake, event.content_type)
                        elif part is not None and isinstance(event, Piece):
                            part.write(event.data)
                        elif part is not None and isinstance(event, End):
                            self._take(part, job, brought)
                            part = None
                            if self._end.is_set():
                                raise UnavailableError("the server was stopped")
                    if time.monotonic() - renewed > _LEASE_SECONDS / 4:
                        queue.renew(self._state, job, seconds=_LEASE_SECONDS)
                        renewed = time.monotonic()
                _closed(parser)
            finally:
                if part is not None:
                    part.discard()

    def _take(self, part: Part10, job: Job, brought: _Brought) -> None:
        try:
            part.take(job.study_uid, _ORIGIN)
        except Refused as refused:
            if refused.status == refusal.OUT_OF_RESOURCES:
                raise
            if len(brought.refused) < _MOST_REASONS:
                brought.refused.append(str(refused))
        else:
            brought.stored += 1


def _series_of(target: Target, study: str) -> dict[str, int | None]:
    """Return the UIDs of a study's series and how many instances each has, where that is said.

    Raises:
        UsageError: the PACS has no such study.
    """
    query = f"/studies/{study}/series?includefield={_COUNT}&limit={_MOST_SERIES}"
    with _asked(target, query, "application/dicom+json") as answer:
        raw = b"" if answer.status == http.client.NO_CONTENT else answer.read(_MOST_JSON + 1)
    if len(raw) > _MOST_JSON:
        raise UnavailableError("the PACS answered with too much")
    try:
        listed = json.loads(raw or b"[]")
        found = {
            str(one[_SERIES]["Value"][0]): (one.get(_COUNT) or {}).get("Value", [None])[0]
            for one in listed
        }
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UnavailableError("the PACS did not answer with DICOM JSON") from error
    if not found:
        raise UsageError("the PACS has no such study")
    if not all(map(is_uid, found)):
        raise UnavailableError("the PACS named a series by what is no UID")
    return {
        uid: int(count) if isinstance(count, int) or str(count).isdigit() else None
        for uid, count in found.items()
    }


@contextmanager
def _asked(target: Target, path: str, accept: str) -> Iterator[http.client.HTTPResponse]:
    """Ask the PACS and yield its answer, whose body is still to be read.

    Raises:
        UsageError: it does not have it, or does not let this server in.
        UnavailableError: it failed; asking again may help.
    """
    connection = connect(target)
    headers = {"Accept": accept}
    if target.authorization:
        headers["Authorization"] = target.authorization
    try:
        connection.request("GET", f"{target.path}{path}", headers=headers)
        answer = connection.getresponse()
        if answer.status in (http.client.UNAUTHORIZED, http.client.FORBIDDEN):
            raise UsageError(
                f"the PACS does not let this server in ({answer.status}); give user and password "
                "in --pacs"
            )
        if answer.status == http.client.NOT_FOUND:
            raise UsageError("the PACS has no such study")
        if answer.status not in (200, 204, 206):
            raise UnavailableError(f"the PACS answered {answer.status}; see its log")
        yield answer
    finally:
        connection.close()


def _parser(boundary: str) -> Parser:
    try:
        return Parser(boundary, most_parts=1_000_000)
    except UsageError as error:
        raise UnavailableError(f"the answer of the PACS: {error}") from error


def _events(parser: Parser, piece: bytes) -> Iterator[Begin | Piece | End]:
    """Yield what follows from more bytes; what is wrong with them may be right the next time."""
    try:
        yield from parser.feed(piece)
    except UsageError as error:
        raise UnavailableError(f"the answer of the PACS: {error}") from error


def _closed(parser: Parser) -> None:
    try:
        parser.close()
    except UsageError as error:
        raise UnavailableError("the answer of the PACS was cut off") from error
