# SPDX-License-Identifier: Apache-2.0
"""What stands before every request: size, time, and headers that browsers obey.

A body is counted while it comes, whatever its headers claim, and may not pause for long. Answers
say that nothing may be loaded from elsewhere, framed, guessed or kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; connect-src 'self' data: blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
    (b"cache-control", b"no-store"),
)
_SMALL_BODY = 1 << 20


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of one request: bytes of a body of instances, and seconds that it may pause."""

    largest_body: int = 8 << 30
    pause_seconds: float = 30.0


class TooLarge(Exception):
    """The body has more bytes than allowed: answered with 413."""


class TooSlow(Exception):
    """The body paused too long: answered with 408."""


class Guard:
    """An ASGI application around another."""

    def __init__(self, app: Any, bounds: Bounds):
        self._app = app
        self._bounds = bounds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name.lower() for name, _ in message.get("headers", [])}
                message["headers"] = [
                    *message.get("headers", []),
                    *(pair for pair in _HEADERS if pair[0] not in own),
                ]
            await send(message)

        path = scope["path"]
        takes = scope["method"] == "POST" and ("/studies" in path or path == "/api/upload")
        most = self._bounds.largest_body if takes else _SMALL_BODY
        refusal = _refused(headers, most)
        if refusal is not None:
            await _answer(sent, *refusal)
            return
        have = 0

        async def received() -> Message:
            nonlocal have
            try:
                async with asyncio.timeout(self._bounds.pause_seconds):
                    message = await receive()
            except TimeoutError:
                raise TooSlow from None
            have += len(message.get("body", b""))
            if have > most:
                raise TooLarge
            return message

        waiting = received if headers.get(b"content-length", b"0") != b"0" or (
            b"transfer-encoding" in headers
        ) else receive  # fmt: skip
        await self._app(scope, waiting, sent)


def _refused(headers: dict[bytes, bytes], most: int) -> tuple[int, str] | None:
    """Return status and words where the headers alone say that the body is not taken."""
    length = headers.get(b"content-length")
    if length is not None and (not length.isdigit() or int(length) > most):
        return 413, f"a body may have {most:,} bytes at most"
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        return 415, "send the body as it is, without Content-Encoding"
    return None


async def _answer(send: Send, status: int, words: str) -> None:
    body = words.encode()
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", b"text/plain; charset=utf-8"),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})
