# SPDX-License-Identifier: Apache-2.0
"""The page's own files: HTML, CSS, ES modules and the bundle of NiiVue; no patient data."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fastapi import APIRouter, HTTPException, Request, Response

FOLDER = Path(__file__).parent / "static"
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file of the page, plain and packed."""

    kind: str
    plain: bytes
    packed: bytes
    tag: str


@lru_cache
def assets() -> dict[str, Asset]:
    """Return the page's files by name."""
    found = {}
    for path in sorted(FOLDER.iterdir()):
        if path.suffix in _KINDS:
            plain = path.read_bytes()
            tag = hashlib.sha256(plain).hexdigest()[:32]
            packed = gzip.compress(plain, 9, mtime=0)
            found[path.name] = Asset(_KINDS[path.suffix], plain, packed, f'"{tag}"')
    return found


def routes() -> APIRouter:
    """Return the routes; they ask for no key, since what they give is the same for all."""
    router = APIRouter()

    @router.get("/", include_in_schema=False)
    def index(request: Request) -> Response:
        return _given("index.html", request)

    @router.get("/page/{name}", include_in_schema=False)
    def asset(name: str, request: Request) -> Response:
        return _given(name, request)

    return router


def _given(name: str, request: Request) -> Response:
    found = assets().get(name)
    if found is None:
        raise HTTPException(404, "the page has no such file")
    # Kept by browsers, asked for each time whether it is still the same.
    headers = {"ETag": found.tag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
    if request.headers.get("if-none-match") == found.tag:
        return Response(status_code=304, headers=headers)
    packs = "gzip" in request.headers.get("accept-encoding", "")
    if packs:
        headers["Content-Encoding"] = "gzip"
    return Response(found.packed if packs else found.plain, media_type=found.kind, headers=headers)
