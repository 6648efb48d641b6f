# SPDX-License-Identifier: Apache-2.0
"""Frames, rendered frames and thumbnails over HTTP, below /dicom-web (PS3.18 section 10.4.1)."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import StreamingResponse

from vesalius.errors import ReadError, UsageError
from vesalius.io.dicom.header import Header, read_header
from vesalius.serving import frames as wado
from vesalius.serving.access import Access
from vesalius.serving.attributes import LIMITS
from vesalius.serving.audit import Audit
from vesalius.serving.keys import Holder
from vesalius.serving.rendered import Wish, picture
from vesalius.serving.state import State
from vesalius.serving.store import path_of
from vesalius.serving.uids import is_uid

_THUMBNAIL = 128  # pixels of the longer side
_NOTE_SECONDS = 600.0
_MOST_NOTES = 10_000
_INSTANCE = "/studies/{study}/series/{series}/instances/{instance}"


def routes(state: State, access: Access, audit: Audit) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/dicom-web", tags=["DICOMweb"])
    read = Depends(access.needs("read"))
    views = _Views(audit)

    def shown(
        request: Request, holder: Holder, at: tuple[str, str, str], frame: str, size: int = 0
    ) -> Response:
        try:
            wish = Wish.parse(
                dict(request.query_params), request.headers.get("accept", ""), size=size
            )
        except UsageError as error:
            status = 406 if "pictures are" in str(error) else 400
            raise HTTPException(status, str(error)) from error
        path, header = _found(state, at)
        views.note(holder, at[0])
        try:
            number = _middle(header) if not frame else wado.numbers(frame, header.frames or 1)[0]
            return Response(picture(path, header, number, wish), media_type=wish.media_type)
        except UsageError as error:
            raise HTTPException(400, str(error)) from error
        except ReadError as error:
            raise HTTPException(406, f"it cannot be shown: {error.reason}") from error

    @router.get(f"{_INSTANCE}/rendered", summary="An instance as a picture")
    def rendered(
        request: Request, study: str, series: str, instance: str, holder: Holder = read
    ) -> Response:
        return shown(request, holder, (study, series, instance), "1")

    @router.get(f"{_INSTANCE}/frames/{{frame}}/rendered", summary="A frame as a picture")
    def rendered_frame(
        request: Request, study: str, series: str, instance: str, frame: str, holder: Holder = read
    ) -> Response:
        return shown(request, holder, (study, series, instance), frame)

    @router.get(f"{_INSTANCE}/thumbnail", summary="An instance as a small picture")
    def thumbnail(
        request: Request, study: str, series: str, instance: str, holder: Holder = read
    ) -> Response:
        return shown(request, holder, (study, series, instance), "", _THUMBNAIL)

    @router.get("/studies/{study}/series/{series}/thumbnail", summary="A series, small")
    def series_thumbnail(
        request: Request, study: str, series: str, holder: Holder = read
    ) -> Response:
        return shown(request, holder, _telling(state, study, series), "", _THUMBNAIL)

    @router.get("/studies/{study}/thumbnail", summary="A study as a small picture")
    def study_thumbnail(request: Request, study: str, holder: Holder = read) -> Response:
        return shown(request, holder, _telling(state, study, ""), "", _THUMBNAIL)

    @router.get(f"{_INSTANCE}/frames/{{frame}}", summary="Frames of an instance (WADO-RS)")
    def frames(
        request: Request, study: str, series: str, instance: str, frame: str, holder: Holder = read
    ) -> Response:
        path, header = _found(state, (study, series, instance))
        views.note(holder, study)
        try:
            wanted = wado.numbers(frame, header.frames or 1)
            kind = wado.media_type(header, request.headers.get("accept", ""))
            pieces = wado.frames(path, header, wanted, kind)
            first = next(pieces)  # what cannot be decoded at all is said before the answer begins
        except UsageError as error:
            raise HTTPException(400, str(error)) from error
        except ReadError as error:
            raise HTTPException(406, f"it has no such pixels: {error.reason}") from error
        boundary = f"vesalius{os.urandom(12).hex()}"
        head = f"--{boundary}\r\nContent-Type: {wado.content_type(header, kind)}\r\n\r\n".encode()

        def parts() -> Iterator[bytes]:
            yield head + first + b"\r\n"
            for piece in pieces:
                yield head + piece + b"\r\n"
            yield f"--{boundary}--\r\n".encode()

        whole = f'multipart/related; type="{kind}"; boundary={boundary}'
        return StreamingResponse(parts(), media_type=whole)

    return router


class _Views:
    """Writes to the audit log who looks at a study: once in a while, not for every frame."""

    def __init__(self, audit: Audit):
        self._audit = audit
        self._last: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._lock = threading.Lock()

    def note(self, holder: Holder, study: str) -> None:
        """Note that a holder looks at a study."""
        now, key = time.monotonic(), (holder.id, study)
        with self._lock:
            if now - self._last.get(key, -_NOTE_SECONDS) < _NOTE_SECONDS:
                return
            self._last[key] = now
            self._last.move_to_end(key)
            while len(self._last) > _MOST_NOTES:
                self._last.popitem(last=False)
        self._audit.write(f"key {holder.id}", "view", study_uid=study)


def _found(state: State, at: tuple[str, str, str]) -> tuple[Path, Header]:
    """Return path and header of an instance by study, series and instance UID."""
    row: Any = None
    if all(map(is_uid, at)):
        row = state.connection().execute(
            "SELECT folder, sha256 FROM instances WHERE study_uid = ? AND series_uid = ? "
            "AND sop_uid = ? AND NOT superseded AND sop_class != ''",
            at,
        ).fetchone()  # fmt: skip
    if row is None:
        raise HTTPException(404, "nothing of that name is held")
    path = path_of(state, *row)
    return path, read_header(path, limits=LIMITS)


def _telling(state: State, study: str, series: str) -> tuple[str, str, str]:
    """Return the instance in the middle of a series, or of the first series of images."""
    rows = state.connection().execute(
        "SELECT i.series_uid, i.sop_uid FROM instances i JOIN series s USING (study_uid, "
        "series_uid) WHERE i.study_uid = ? AND (? = '' OR i.series_uid = ?) AND i.rows > 0 "
        "AND NOT i.superseded AND i.sop_class != '' "
        "ORDER BY i.origin = 'result', s.number, i.series_uid, i.number, i.sop_uid",
        (study, series, series),
    ).fetchall()  # fmt: skip
    if not rows:
        raise HTTPException(404, "nothing of that name is held that could be shown")
    first = [sop_uid for uid, sop_uid in rows if uid == rows[0][0]]
    return study, rows[0][0], first[len(first) // 2]


def _middle(header: Header) -> int:
    return (header.frames or 1) // 2
