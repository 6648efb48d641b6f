# SPDX-License-Identifier: Apache-2.0
"""The REST service below /api: studies and their state, jobs, results, keys, the audit log."""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Query
from pydantic import BaseModel, Field

from vesalius.errors import UsageError
from vesalius.serving import keys, queue
from vesalius.serving.access import Access
from vesalius.serving.audit import Audit
from vesalius.serving.keys import Holder
from vesalius.serving.state import State
from vesalius.serving.uids import is_uid
from vesalius.types import Json

_PAGE = Annotated[int, Query(ge=1, le=1000)]
_START = Annotated[int, Query(ge=0)]


class NewKey(BaseModel, extra="forbid"):
    """What a new key is asked for by."""

    name: str = Field(min_length=1, max_length=64)
    roles: list[str] = Field(min_length=1, max_length=len(keys.ROLES))


def routes(state: State, access: Access, audit: Audit) -> APIRouter:
    """Return the service's routes."""
    router = APIRouter(prefix="/api", tags=["REST"])
    read, admin = Depends(access.needs("read")), Depends(access.needs("admin"))

    @router.get("/studies", summary="Studies, the latest first", dependencies=[read])
    def studies(limit: _PAGE = 100, offset: _START = 0) -> list[Json]:
        rows = state.connection().execute(
            "SELECT study_uid, patient_id, patient_name, study_date, description, state, "
            "received FROM studies ORDER BY last_seen DESC, study_uid LIMIT ? OFFSET ?",
            (limit, offset),
        ).fetchall()  # fmt: skip
        names = ("study", "patient_id", "patient_name", "date", "description", "state", "received")
        return [
            {**dict(zip(names, row, strict=True)), "jobs": _states(state, row[0])} for row in rows
        ]

    @router.get("/studies/{study}", summary="A study's work and results", dependencies=[read])
    def study(study: str) -> Json:
        row = None
        if is_uid(study):
            row = state.connection().execute(
                "SELECT state, received FROM studies WHERE study_uid = ?", (study,)
            ).fetchone()  # fmt: skip
        if row is None:
            raise HTTPException(404, "no such study is held")
        jobs = _jobs(state, "study_uid = ?", (study,), 1000, 0)
        return {"study": study, "state": row[0], "received": row[1], "jobs": jobs}

    @router.get("/jobs", summary="The queue, the latest first", dependencies=[read])
    def jobs(name: str = "", limit: _PAGE = 100, offset: _START = 0) -> list[Json]:
        if name and name not in queue.STATES:
            raise HTTPException(400, f"name must be one of {', '.join(queue.STATES)}")
        return _jobs(state, "(? = '' OR state = ?)", (name, name), limit, offset)

    @router.post("/jobs/{number}/retry", summary="Queue a refused or failed job once more")
    def retry(number: int, holder: Holder = admin) -> Json:
        if not 0 < number < 1 << 62 or not queue.retry(state, number):
            raise HTTPException(409, "no such job, or one that is neither refused nor failed")
        audit.write(f"key {holder.id}", "retry", job=number)
        return {"job": number, "state": "ready"}

    @router.get("/keys", summary="Keys, without their secrets", dependencies=[admin])
    def listed() -> list[Json]:
        return keys.listed(state)

    @router.post("/keys", summary="Make a key; it is shown this once", status_code=201)
    def create(asked: NewKey, holder: Holder = admin) -> Json:
        try:
            key = keys.create(state, name=asked.name, roles=asked.roles)
        except UsageError as error:
            raise HTTPException(422, str(error)) from error
        audit.write(f"key {holder.id}", "key-made", key=key.split("_")[1], roles=asked.roles)
        return {"key": key}

    @router.delete("/keys/{number}", summary="Make a key invalid")
    def revoke(number: str, holder: Holder = admin) -> Json:
        if not keys.revoke(state, number[:64]):
            raise HTTPException(404, "no such valid key")
        audit.write(f"key {holder.id}", "key-revoked", key=number)
        return {"revoked": number}

    @router.get("/audit", summary="The latest lines of the audit log, and whether it is whole")
    def audited(limit: _PAGE = 100, holder: Holder = admin) -> Json:
        audit.write(f"key {holder.id}", "audit-read")
        verdict = audit.verify()
        lines = list(audit.lines())[-limit:]
        return {
            "lines": lines,
            "count": verdict.lines,
            "broken": verdict.broken,
            "why": verdict.why,
        }

    return router


def _states(state: State, study: str) -> Json:
    rows = state.connection().execute(
        "SELECT state, count(*) FROM jobs WHERE study_uid = ? AND kind = 'predict' GROUP BY 1",
        (study,),
    )
    return dict(rows.fetchall())


def _jobs(
    state: State, condition: str, values: tuple[object, ...], limit: int, offset: int
) -> list[Json]:
    rows = state.connection().execute(
        "SELECT id, kind, study_uid, subject, state, attempts, reason, answer FROM jobs "  # noqa: S608 - conditions of this file
        f"WHERE {condition} ORDER BY id DESC LIMIT ? OFFSET ?",
        (*values, limit, offset),
    )
    found = []
    for number, kind, study, subject, name, attempts, reason, answer in rows:
        known = json.loads(subject)
        found.append(
            {
                "id": number,
                "kind": kind,
                "study": study,
                "run": known.get("run_id", ""),
                "target": known.get("target", ""),
                "state": name,
                "attempts": attempts,
                "reason": reason,
                "answer": json.loads(answer),
            }
        )
    return found
