# SPDX-License-Identifier: Apache-2.0
"""The HTTP application: the page, /health, /metrics, /dicom-web, /api, /docs without scripts."""

from __future__ import annotations

import html
import logging
from collections.abc import Sequence
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse

from vesalius.serving import (
    api,
    dicomweb,
    pull_api,
    rendered_api,
    results_api,
    trust_api,
    upload_api,
)
from vesalius.serving.access import Access
from vesalius.serving.audit import Audit
from vesalius.serving.guard import Bounds, Guard, TooLarge, TooSlow
from vesalius.serving.health import Vitals
from vesalius.serving.page import api as page_api
from vesalius.serving.page import site
from vesalius.serving.page.desk import Desk
from vesalius.serving.page.sessions import Sessions
from vesalius.serving.push import Target
from vesalius.types import Json
from vesalius.version import __version__

_LOG = logging.getLogger(__name__)


def application(
    vitals: Vitals,
    audit: Audit,
    bounds: Bounds | None = None,
    *,
    desk: Desk | None = None,
    secure: bool = False,
    sources: Sequence[Target] = (),
) -> Guard:
    """Return the application of a server.

    Args:
        vitals: with its state and intake.
        audit: its log.
        bounds: of one request.
        desk: what the page works with.
        secure: browsers come by TLS alone.
        sources: PACS that studies may be pulled from.
    """
    state, intake = vitals.state, vitals.intake
    sessions = Sessions(state, secure=secure)
    access = Access(state, audit, sessions)
    app = FastAPI(title="Vesalius", version=__version__, docs_url=None, redoc_url=None,
                  openapi_url=None)  # fmt: skip
    read = Depends(access.needs("read"))

    @app.get("/health", tags=["operation"], summary="Whether the server can do its work")
    def health() -> JSONResponse:
        found = vitals.to_json()
        return JSONResponse(found, 200 if found["status"] == "healthy" else 503)

    @app.get("/metrics", tags=["operation"], summary="Numbers for Prometheus", dependencies=[read])
    def metrics() -> PlainTextResponse:
        return PlainTextResponse(vitals.metrics(), media_type="text/plain; version=0.0.4")

    @app.get("/openapi.json", include_in_schema=False, dependencies=[read])
    def openapi() -> Json:
        return app.openapi()

    @app.get("/docs", include_in_schema=False, dependencies=[read])
    def docs() -> HTMLResponse:
        return HTMLResponse(_page(app.openapi()))

    app.include_router(dicomweb.routes(state, intake, access, audit))
    app.include_router(rendered_api.routes(state, access, audit))
    app.include_router(results_api.routes(state, access, audit))
    app.include_router(upload_api.routes(intake, access, audit))
    app.include_router(pull_api.routes(state, sources, access, audit))
    app.include_router(api.routes(state, access, audit))
    app.include_router(trust_api.routes(state, access, audit))
    app.include_router(page_api.routes(state, access, audit, sessions, desk or Desk(state, audit)))
    app.include_router(site.routes())

    @app.exception_handler(TooLarge)
    async def too_large(_: Request, __: TooLarge) -> JSONResponse:
        return JSONResponse({"detail": "the body is too large"}, 413, {"Connection": "close"})

    @app.exception_handler(TooSlow)
    async def too_slow(_: Request, __: TooSlow) -> JSONResponse:
        return JSONResponse({"detail": "the body paused too long"}, 408, {"Connection": "close"})

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        _LOG.error("%s failed: %s", request.method, type(error).__name__)
        return JSONResponse({"detail": "the server failed; try again, and see its log"}, 500)

    return Guard(app, bounds or Bounds())


def _page(schema: Json) -> str:
    """Return the service's description as a page that loads nothing."""
    rows = []
    for path, methods in schema["paths"].items():
        for method, said in methods.items():
            cells: list[Any] = [method.upper(), path, said.get("summary", "")]
            rows.append("".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells))
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Vesalius: services</title>'
        "<h1>Services</h1><p>Each request needs a key: <code>Authorization: Bearer …</code>. The "
        'whole description is <a href="/openapi.json">/openapi.json</a>.</p>'
        f"<table><tr><th>Method<th>Path<th>What it does</tr>{body}</table></html>"
    )
