# SPDX-License-Identifier: Apache-2.0
"""POST /api/pull: have a study fetched from the PACS."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Depends, HTTPException
from pydantic import BaseModel, Field

from vesalius.errors import UsageError
from vesalius.serving import priorities, pull
from vesalius.serving.access import Access
from vesalius.serving.audit import Audit
from vesalius.serving.keys import Holder
from vesalius.serving.push import Target
from vesalius.serving.refusal import Refused
from vesalius.serving.state import State
from vesalius.types import Json


class Wanted(BaseModel, extra="forbid"):
    """What is to be fetched; `source` is a PACS by its name, without: the first."""

    study: str = Field(min_length=1, max_length=64)
    source: str = Field(default="", max_length=256)
    priority: str = Field(default="", max_length=16)


def routes(state: State, targets: Sequence[Target], access: Access, audit: Audit) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/api", tags=["REST"])
    send = Depends(access.needs("send"))
    able = [target for target in targets if target.scheme != "dicom"]

    @router.post("/pull", summary="Fetch a study from the PACS; the job says when", status_code=202)
    def wanted(asked: Wanted, holder: Holder = send) -> Json:
        named = (one for one in able if asked.source in ("", one.name))
        target = next(named, None)
        if target is None:
            raise HTTPException(409, "no such PACS; give one to the server with --pacs http(s)://…")
        try:
            priority = priorities.parse(asked.priority)
            number = pull.ask(state, target, asked.study, priority=priority)
        except (UsageError, Refused) as error:
            raise HTTPException(422, str(error)) from error
        audit.write(f"key {holder.id}", "pull", study_uid=asked.study, source=target.name)
        return {"job": number, "study": asked.study, "source": target.name}

    return router
