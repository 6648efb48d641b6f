# SPDX-License-Identifier: Apache-2.0
"""POST /api/upload: the body is one file, and the answer comes when it is durable."""

from __future__ import annotations

from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Depends, Header, HTTPException, Query, Request
from fastapi.responses import JSONResponse

from vesalius.serving import priorities, refusal
from vesalius.serving.access import Access
from vesalius.serving.audit import Audit
from vesalius.serving.intake import Intake
from vesalius.serving.keys import Holder
from vesalius.serving.refusal import Refused
from vesalius.serving.upload import About, Taken, Upload

_GATHER = 1 << 20
_HTTP = {
    refusal.OUT_OF_RESOURCES: 503,
    refusal.MISMATCH: 409,
    refusal.CANNOT_UNDERSTAND: 422,
    refusal.PROCESSING_FAILURE: 500,
}
_Code = Annotated[str, Query(max_length=16)]
_Text = Annotated[str, Query(max_length=64)]


def routes(intake: Intake, access: Access, audit: Audit) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/api", tags=["REST"])
    send = Depends(access.needs("send"))

    @router.post("/upload", summary="Take in NIfTI, MINC, NRRD, PNG, JPEG, TIFF, DICOM or a zip")
    async def upload(
        request: Request,
        modality: _Code = "",
        body_part: _Code = "",
        description: _Text = "",
        study: _Text = "",
        x_patient_id: Annotated[str, Header(max_length=64)] = "",
        x_priority: Annotated[str, Header(max_length=16)] = "",
        holder: Holder = send,
    ) -> JSONResponse:
        try:
            about = About(
                modality=modality.upper(), body_part=body_part.upper(), description=description,
                patient_id=x_patient_id, study=study,
            )  # fmt: skip
            priority = priorities.parse(x_priority)
            taken = await _received(request, intake, about)
        except Refused as refused:
            raise HTTPException(_HTTP[refused.status], str(refused)) from refused
        for uid, count in taken.studies.items():
            await anyio.to_thread.run_sync(priorities.raise_to, intake.state, uid, priority)
            await anyio.to_thread.run_sync(_note, audit, holder, uid, count)
        answer = {
            "studies": taken.studies,
            "refused": [
                {"member": number, "reason": reason} for number, reason in taken.refused.items()
            ],
        }
        return JSONResponse(answer, 202 if taken.refused else 200)

    return router


async def _received(request: Request, intake: Intake, about: About) -> Taken:
    upload = await anyio.to_thread.run_sync(Upload, intake)
    held = bytearray()
    try:
        async for piece in request.stream():
            held += piece
            if len(held) >= _GATHER:
                await anyio.to_thread.run_sync(upload.write, bytes(held))
                held.clear()
        await anyio.to_thread.run_sync(upload.write, bytes(held))
        return await anyio.to_thread.run_sync(upload.take, about)
    finally:
        upload.discard()


def _note(audit: Audit, holder: Holder, study: str, count: int) -> None:
    audit.write(f"key {holder.id}", "upload", study_uid=study, instances=count)
