# SPDX-License-Identifier: Apache-2.0
"""Results that are no DICOM objects, over HTTP: below /api/jobs."""

from __future__ import annotations

from fastapi import APIRouter, Depends, HTTPException, Response
from fastapi.responses import FileResponse

from vesalius.serving import results
from vesalius.serving.access import Access
from vesalius.serving.audit import Audit
from vesalius.serving.keys import Holder
from vesalius.serving.state import State


def routes(state: State, access: Access, audit: Audit) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/api", tags=["REST"])
    read = Depends(access.needs("read"))

    @router.get("/jobs/{number}/files/{name}", summary="A result that is no DICOM object")
    def file(number: int, name: str, holder: Holder = read) -> Response:
        found = results.find(state, number, name) if 0 < number < 1 << 62 else None
        if found is None or not found[0].is_file():
            raise HTTPException(404, "the job has no such file; its answer lists them")
        path, kind = found
        row = state.connection().execute("SELECT study_uid FROM jobs WHERE id = ?", (number,))
        audit.write(f"key {holder.id}", "retrieve", study_uid=row.fetchone()[0], file=name)
        return FileResponse(path, media_type=kind, filename=name)

    return router
