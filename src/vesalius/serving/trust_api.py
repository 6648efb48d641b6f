# SPDX-License-Identifier: Apache-2.0
"""The REST services /api/rules and /api/drift: each rule's run, its health, and the way back."""

from __future__ import annotations

from fastapi import APIRouter, Depends, HTTPException
from pydantic import BaseModel, Field

from vesalius.errors import DataError, UsageError
from vesalius.serving import drift_watch, golden_watch, promotion, versions
from vesalius.serving.access import Access
from vesalius.serving.audit import Audit
from vesalius.serving.keys import Holder
from vesalius.serving.overview import overview
from vesalius.serving.state import State
from vesalius.types import Json


class Why(BaseModel, extra="forbid"):
    """Why a rule is switched; goes into the audit log."""

    reason: str = Field(default="", max_length=400)


def routes(state: State, access: Access, audit: Audit) -> APIRouter:
    """Return the service's routes."""
    router = APIRouter(prefix="/api", tags=["models"])
    read, admin = Depends(access.needs("read")), Depends(access.needs("admin"))

    @router.get("/rules", summary="Each rule with its active run and that run's health",
                dependencies=[read])  # fmt: skip
    def rules() -> list[Json]:
        return [one.to_json() for one in overview(state.connection())]

    @router.get("/rules/{rule}/versions", summary="The runs that a rule has and had, latest first",
                dependencies=[read])  # fmt: skip
    def history(rule: str) -> list[Json]:
        return [one.to_json() for one in versions.history(state.connection(), _known(rule))]

    @router.post("/rules/{rule}/rollback", summary="Give a rule the run back that it had before")
    def rollback(rule: str, why: Why, holder: Holder = admin) -> Json:
        try:
            version = promotion.roll_back(
                state, audit, _known(rule), f"key {holder.id}", why.reason
            )  # fmt: skip
        except (UsageError, DataError) as error:
            raise HTTPException(409, "there is no version before that can serve") from error
        golden_watch.ask(state, rule)
        return version.to_json()

    @router.post(
        "/rules/{rule}/check", summary="Ask the rule's run for its golden cases", status_code=202
    )
    def check(rule: str, holder: Holder = admin) -> Json:
        queued = golden_watch.ask(state, _known(rule))
        audit.write(f"key {holder.id}", "check-asked", rule=rule)
        return {"rule": rule, "queued": queued}

    @router.get("/drift", summary="The last look at each group of studies, alarms first",
                dependencies=[read])  # fmt: skip
    def drift(rule: str = "") -> Json:
        connection = state.connection()
        names = [_known(rule)] if rule else versions.rules(connection)
        return {
            "first": drift_watch.FIRST,
            "window": drift_watch.WINDOW,
            "looks": [one for name in names for one in drift_watch.latest(connection, name)],
        }

    def _known(rule: str) -> str:
        if rule not in versions.rules(state.connection()):
            raise HTTPException(404, "the state has no such rule")
        return rule

    return router
