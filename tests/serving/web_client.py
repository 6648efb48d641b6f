# SPDX-License-Identifier: Apache-2.0
"""A client of the HTTP application, for tests, without a socket."""

from __future__ import annotations

import asyncio

import httpx


class Client:
    """Calls the application in-process, each call as another request."""

    def __init__(self, app, key=""):
        self.app, self.key = app, key

    def __call__(self, method, path, *, key=None, headers=None, **named):
        held = self.key if key is None else key
        sent = {**({"Authorization": f"Bearer {held}"} if held else {}), **(headers or {})}

        async def call():
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://pacs") as client:
                return await client.request(method, path, headers=sent, **named)

        return asyncio.run(call())
