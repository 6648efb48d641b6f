# SPDX-License-Identifier: Apache-2.0
"""The services below /api that the page stands on: sessions, worklist, views, reviews."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field

from vesalius.errors import BudgetError, DataError, UsageError
from vesalius.serving.access import Access
from vesalius.serving.audit import Audit
from vesalius.serving.keys import Holder
from vesalius.serving.page.desk import Desk
from vesalius.serving.page.images import NotThere
from vesalius.serving.page.models import models
from vesalius.serving.page.reviews import REASONS, Review
from vesalius.serving.page.sessions import Sessions
from vesalius.serving.page.worklist import STATES, study_view, worklist
from vesalius.serving.state import State
from vesalius.serving.uids import is_uid
from vesalius.types import Json
from vesalius.version import __version__

_NIFTI = "application/gzip"
_LARGEST_MASK = 64 << 20  # bytes as sent
_GATHER = 1 << 20


class NewReview(BaseModel, extra="forbid"):
    """What a person says of a result."""

    job: int
    object: str = Field("", max_length=64)
    decision: str = Field(max_length=16)
    reasons: list[str] = Field([], max_length=len(REASONS))
    comment: str = Field("", max_length=4000)
    label: str = Field("", max_length=200)
    mask: str = Field("", pattern=r"^([0-9a-f]{32}\.nii\.gz)?$")
    learn: bool = False


class Question(BaseModel, extra="forbid"):
    """What similar cases are looked for by."""

    series: str = Field("", max_length=64)
    words: str = Field("", max_length=1000)
    count: int = Field(8, ge=1, le=50)
    balance: float = Field(0.5, ge=0, le=1)


def routes(state: State, access: Access, audit: Audit, sessions: Sessions, desk: Desk) -> APIRouter:
    """Return the services' routes."""
    router = APIRouter(prefix="/api", tags=["Page"])
    read, review = Depends(access.needs("read")), Depends(access.needs("review"))

    @router.post("/session", summary="Open a browser's session with a key", status_code=201)
    def begin(response: Response, holder: Holder = read) -> Json:
        token = sessions.begin(holder, response)
        audit.write(f"key {holder.id}", "session")
        return {**_told(holder, desk), "token": token}

    @router.get("/session", summary="Whose session it is")
    def session(request: Request, holder: Holder = read) -> Json:
        return {**_told(holder, desk), "token": sessions.token(request)}

    @router.delete("/session", summary="End a browser's session", dependencies=[read])
    def end(request: Request, response: Response) -> Json:
        sessions.end(request, response)
        return {"ended": True}

    @router.get("/worklist", summary="Studies with their work and reviews", dependencies=[read])
    def listed(
        words: Annotated[str, Query(max_length=200)] = "",
        only: Annotated[str, Query(max_length=16)] = "",
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        offset: Annotated[int, Query(ge=0)] = 0,
    ) -> Json:
        if only and only not in STATES:
            raise HTTPException(400, f"only must be one of {', '.join(STATES)}")
        return worklist(state, words=words, only=only, limit=limit, offset=offset)

    @router.get("/models", summary="The runs that answer, and how they do", dependencies=[read])
    def known() -> list[Json]:
        return models(state)

    @router.get("/studies/{study}/view", summary="All that the viewer shows of a study")
    def view(study: str, holder: Holder = read) -> Json:
        with _answered():
            found = study_view(state, desk.reviews, _uid(study))
        audit.write(f"key {holder.id}", "view", study_uid=study)
        return found

    @router.get("/studies/{study}/series/{series}/view", summary="A series' images for the viewer",
                dependencies=[read])  # fmt: skip
    def series_view(study: str, series: str) -> Json:
        with _answered():
            return desk.images.of_series(_uid(study), _uid(series)).facts

    @router.get("/studies/{study}/series/{series}/view/{number}.nii.gz",
                summary="One image as NIfTI", dependencies=[read])  # fmt: skip
    def image(study: str, series: str, number: int) -> FileResponse:
        with _answered():
            found = desk.images.of_series(_uid(study), _uid(series))
            return FileResponse(found.file(number), media_type=_NIFTI)

    @router.get("/studies/{study}/labels/{sop}", summary="A result's label map",
                dependencies=[read])  # fmt: skip
    def labels(study: str, sop: str) -> Json:
        with _answered():
            on = desk.labels.of(_uid(study), _object(sop))
            return {**on.labels.facts, "series": on.series, "image": on.number}

    @router.get("/studies/{study}/labels/{sop}/{layer}.nii.gz",
                summary="A layer of a label map as NIfTI", dependencies=[read])  # fmt: skip
    def layer_of(study: str, sop: str, layer: int) -> FileResponse:
        with _answered():
            on = desk.labels.of(_uid(study), _object(sop))
            return FileResponse(on.labels.file(layer), media_type=_NIFTI)

    @router.get("/studies/{study}/reviews/{number}/mask.nii.gz",
                summary="A mask that a person drew, as NIfTI", dependencies=[read])  # fmt: skip
    def mask_of(study: str, number: int) -> FileResponse:
        with _answered():
            for one in desk.reviews.of_study(_uid(study)):
                if one.number == number:
                    return FileResponse(desk.reviews.mask_of(one), media_type=_NIFTI)
            raise NotThere("no such review is held")

    @router.post("/studies/{study}/labels/{sop}/masks", status_code=201,
                 summary="Send a mask that was drawn on a result's image")  # fmt: skip
    async def drawn(request: Request, study: str, sop: str, holder: Holder = review) -> Json:
        path = await _received(request, state.incoming)

        def kept() -> Json:
            name = desk.reviews.new_mask()
            on = desk.labels.of(_uid(study), _object(sop))
            found = desk.labels.keep_mask(path, on, desk.reviews.folder / name)
            audit.write(f"key {holder.id}", "mask", study_uid=study,
                        changed_voxels=found["changed_voxels"])  # fmt: skip
            return {"mask": name, **found}

        try:
            with _answered():
                return await anyio.to_thread.run_sync(kept)
        finally:
            path.unlink(missing_ok=True)

    @router.post("/studies/{study}/reviews", summary="Accept, correct or reject a result",
                 status_code=201)  # fmt: skip
    def reviewed(study: str, said: NewReview, holder: Holder = review) -> Json:
        with _answered():
            one = desk.reviews.add(
                Review(study_uid=_uid(study), reader=holder.id, name=holder.name,
                       **said.model_dump())
            )  # fmt: skip
        codes = {"decision": one.decision, "reasons": list(one.reasons)}
        audit.write(f"key {holder.id}", "review", study_uid=study, job=one.job, **codes)
        learned, why_not = 0, ""
        try:
            learned = desk.corrections.take(one)
        except (UsageError, DataError, BudgetError) as error:  # the review itself is kept
            why_not = _words(error)
        return {**one.to_json(), "learned_images": learned, "not_learned": why_not}

    @router.post("/studies/{study}/similar", summary="Cases of the archive that are like it")
    def similar(study: str, asked: Question, holder: Holder = read) -> Json:
        with _answered():
            found = desk.similar(_uid(study), asked.series, words=asked.words,
                                 count=asked.count, balance=asked.balance)  # fmt: skip
        audit.write(f"key {holder.id}", "similar", study_uid=study)
        return found

    return router


def _told(holder: Holder, desk: Desk) -> Json:
    return {
        "name": holder.name,
        "roles": sorted(holder.roles),
        "may_review": holder.may("review"),
        "reasons": REASONS,
        "archive": desk.has_archive,
        "version": __version__,
    }


@contextmanager
def _answered() -> Iterator[None]:
    """Turn errors into answers."""
    try:
        yield
    except NotThere as error:
        raise HTTPException(404, _words(error)) from error
    except (UsageError, DataError) as error:
        raise HTTPException(422, _words(error)) from error
    except BudgetError as error:
        raise HTTPException(503, _words(error)) from error


def _words(error: Exception) -> str:
    """Return an error's words without the paths of files."""
    return str(getattr(error, "reason", "") or error)


async def _received(request: Request, folder: Path) -> Path:
    """Write a request's body to a file of `folder`; raises 413 where it is too large."""
    handle, name = tempfile.mkstemp(suffix=".nii.gz", dir=folder)
    path, size, held = Path(name), 0, bytearray()
    try:
        with os.fdopen(handle, "wb") as stream:
            async for piece in request.stream():
                size += len(piece)
                if size > _LARGEST_MASK:
                    raise HTTPException(413, f"a mask may have {_LARGEST_MASK:,} bytes as sent")
                held += piece
                if len(held) >= _GATHER:
                    await anyio.to_thread.run_sync(stream.write, bytes(held))
                    held.clear()
            stream.write(held)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def _object(text: str) -> str:
    """Return the name of a label map: a UID, or the SHA-256 of one that is no DICOM object."""
    return text if re.fullmatch("[0-9a-f]{64}", text) else _uid(text)


def _uid(text: str) -> str:
    if not is_uid(text):
        raise HTTPException(400, "a UID is digits and dots, at most 64 characters")
    return text
