# SPDX-License-Identifier: Apache-2.0
"""The DICOMweb service below /dicom-web: STOW-RS in, QIDO-RS and WADO-RS out (PS3.18).

Instances come out as they were stored, in their own transfer syntax. Nothing that a request or an
instance names is fetched from anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio.to_thread
from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from vesalius.errors import UsageError
from vesalius.serving import metadata, priorities, query
from vesalius.serving.access import Access
from vesalius.serving.audit import Audit
from vesalius.serving.intake import Intake
from vesalius.serving.keys import Holder
from vesalius.serving.refusal import Refused
from vesalius.serving.state import State
from vesalius.serving.store import path_of
from vesalius.serving.stow import Outcome, Receiver
from vesalius.serving.uids import is_uid

_JSON = "application/dicom+json"
_GATHER = 1 << 20
_PIECE = 1 << 18


def routes(state: State, intake: Intake, access: Access, audit: Audit) -> APIRouter:
    """Return the service's routes."""
    router = APIRouter(prefix="/dicom-web", tags=["DICOMweb"])
    send, read = Depends(access.needs("send")), Depends(access.needs("read"))

    @router.post("/studies", summary="Store instances (STOW-RS)")
    async def store(request: Request, holder: Holder = send) -> Response:
        return await _stored(request, intake, audit, holder, "")

    @router.post("/studies/{study}", summary="Store instances of one study (STOW-RS)")
    async def store_study(request: Request, study: str, holder: Holder = send) -> Response:
        return await _stored(request, intake, audit, holder, _uid(study))

    @router.get("/studies", summary="Search for studies (QIDO-RS)", dependencies=[read])
    def search_studies(request: Request) -> Response:
        return _searched(query.studies, state, request)

    @router.get("/series", summary="Search for series (QIDO-RS)", dependencies=[read])
    def search_series(request: Request) -> Response:
        return _searched(query.series, state, request)

    @router.get("/instances", summary="Search for instances (QIDO-RS)", dependencies=[read])
    def search_instances(request: Request) -> Response:
        return _searched(query.instances, state, request)

    @router.get("/studies/{study}/series", summary="Series of a study", dependencies=[read])
    def study_series(request: Request, study: str) -> Response:
        return _searched(query.series, state, request, StudyInstanceUID=study)

    @router.get("/studies/{study}/instances", summary="Instances of a study", dependencies=[read])
    def study_instances(request: Request, study: str) -> Response:
        return _searched(query.instances, state, request, StudyInstanceUID=study)

    @router.get(
        "/studies/{study}/series/{series}/instances",
        summary="Instances of a series",
        dependencies=[read],
    )
    def series_instances(request: Request, study: str, series: str) -> Response:
        return _searched(
            query.instances, state, request, StudyInstanceUID=study, SeriesInstanceUID=series
        )

    @router.get("/studies/{study}/metadata", summary="Metadata of a study", dependencies=[read])
    def study_metadata(study: str) -> Response:
        return _metadata(metadata.series_metadata(state, _uid(study)))

    @router.get(
        "/studies/{study}/series/{series}/metadata",
        summary="Metadata of a series",
        dependencies=[read],
    )
    def series_metadata(study: str, series: str) -> Response:
        return _metadata(metadata.series_metadata(state, _uid(study), _uid(series)))

    @router.get(
        "/studies/{study}/series/{series}/instances/{instance}/metadata",
        summary="Metadata of an instance",
        dependencies=[read],
    )
    def instance_metadata(study: str, series: str, instance: str) -> Response:  # noqa: ARG001
        return _metadata(metadata.instance_metadata(state, _uid(instance)))

    @router.get("/studies/{study}", summary="Retrieve a study (WADO-RS)")
    def get_study(study: str, holder: Holder = read) -> Response:
        return _retrieved(state, audit, holder, _uid(study))

    @router.get("/studies/{study}/series/{series}", summary="Retrieve a series (WADO-RS)")
    def get_series(study: str, series: str, holder: Holder = read) -> Response:
        return _retrieved(state, audit, holder, _uid(study), _uid(series))

    @router.get(
        "/studies/{study}/series/{series}/instances/{instance}",
        summary="Retrieve an instance (WADO-RS)",
    )
    def get_instance(study: str, series: str, instance: str, holder: Holder = read) -> Response:
        return _retrieved(state, audit, holder, _uid(study), _uid(series), _uid(instance))

    return router


async def _stored(
    request: Request, intake: Intake, audit: Audit, holder: Holder, study: str
) -> Response:
    try:
        priority = priorities.parse(request.headers.get("x-priority", ""))
    except Refused as refused:
        raise HTTPException(400, str(refused)) from refused
    try:
        receiver = Receiver(intake, request.headers.get("content-type", ""), study=study)
    except UsageError as error:
        raise HTTPException(415, str(error)) from error
    held = bytearray()
    try:
        async for piece in request.stream():
            held += piece
            if len(held) >= _GATHER:
                await anyio.to_thread.run_sync(receiver.feed, bytes(held))
                held.clear()
        await anyio.to_thread.run_sync(receiver.feed, bytes(held))
        outcome = await anyio.to_thread.run_sync(receiver.close)
    except UsageError as error:
        receiver.abort()
        raise HTTPException(400, str(error)) from error
    except BaseException:
        receiver.abort()
        raise
    finally:
        await anyio.to_thread.run_sync(_note, audit, holder, receiver.outcome)
    for uid in {one.attributes.study_uid for one in outcome.stored}:
        await anyio.to_thread.run_sync(priorities.raise_to, intake.state, uid, priority)
    base = _base(request)
    return JSONResponse(outcome.to_json(base), outcome.http_status, media_type=_JSON)


def _note(audit: Audit, holder: Holder, outcome: Outcome) -> None:
    """Write to the audit log how many instances of each study were stored."""
    counts: dict[str, int] = {}
    for one in outcome.stored:
        study = one.attributes.study_uid
        counts[study] = counts.get(study, 0) + 1
    for study, count in counts.items():
        audit.write(f"key {holder.id}", "store", study_uid=study, instances=count)


def _searched(
    search: Callable[..., query.Answer], state: State, request: Request, **named: str
) -> Response:
    parameters = [*request.query_params.multi_items(), *((n, _uid(v)) for n, v in named.items())]
    try:
        answer = search(state, parameters, _base(request))
    except UsageError as error:
        raise HTTPException(400, str(error)) from error
    headers = {}
    if answer.ignored:
        names = ", ".join(name for name in answer.ignored if name.isalnum())
        headers["Warning"] = f'299 vesalius "not matched: {names}"'
    return JSONResponse(answer.found, media_type=_JSON, headers=headers)


def _metadata(found: bytes) -> Response:
    if found == b"[]":
        raise HTTPException(404, "nothing of that name is held")
    return Response(found, media_type=_JSON)


def _retrieved(
    state: State, audit: Audit, holder: Holder, study: str, series: str = "", instance: str = ""
) -> Response:
    rows = state.connection().execute(
        "SELECT folder, sha256, transfer_syntax FROM instances WHERE study_uid = ? "
        "AND (? = '' OR series_uid = ?) AND (? = '' OR sop_uid = ?) AND NOT superseded "
        "AND sop_class != '' "
        "ORDER BY series_uid, number, sop_uid",
        (study, series, series, instance, instance),
    ).fetchall()  # fmt: skip
    if not rows:
        raise HTTPException(404, "nothing of that name is held")
    audit.write(f"key {holder.id}", "retrieve", study_uid=study, instances=len(rows))
    paths = [(path_of(state, folder, sha256), syntax) for folder, sha256, syntax in rows]
    boundary = f"vesalius{os.urandom(12).hex()}"
    kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
    return StreamingResponse(_parts(paths, boundary), media_type=kind)


def _parts(paths: list[tuple[Path, str]], boundary: str) -> Iterator[bytes]:
    for path, syntax in paths:
        yield (
            f"--{boundary}\r\nContent-Type: application/dicom; transfer-syntax={syntax}\r\n\r\n"
        ).encode()
        with open(path, "rb") as stream:
            while piece := stream.read(_PIECE):
                yield piece
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()


def _uid(text: str) -> str:
    if not is_uid(text):
        raise HTTPException(400, "a UID is digits and dots, at most 64 characters")
    return text


def _base(request: Request) -> str:
    url: Any = request.url
    return f"{url.scheme}://{url.netloc}/dicom-web"
