# SPDX-License-Identifier: Apache-2.0
"""Sessions of browsers: a key is given once, then a cookie stands for it.

The cookie is HttpOnly and SameSite=Strict, so that no script reads it and no other site makes a
browser send it. What changes something needs, besides, a token in a header, which only the page's
own script can know. Sessions live in memory: a restart ends them, and so does revoking the key.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from dataclasses import dataclass

from fastapi import HTTPException, Request, Response

from vesalius.serving import keys
from vesalius.serving.keys import Holder
from vesalius.serving.state import State

COOKIE = "vesalius-session"
TOKEN = "x-vesalius-token"  # noqa: S105 - the header's name
_SAFE = ("GET", "HEAD", "OPTIONS")
_LONGEST_SECONDS = 12 * 3600.0
_IDLE_SECONDS = 3600.0
_MOST = 10_000


@dataclass(slots=True)
class _Session:
    key_id: str
    begun: float
    seen: float


class Sessions:
    """Open sessions of one server."""

    def __init__(self, state: State, *, secure: bool = False):
        """Begin with none.

        Args:
            state: the state.
            secure: let browsers send the cookie by TLS alone.
        """
        self._state = state
        self._secure = secure
        self._open: dict[bytes, _Session] = {}
        self._lock = threading.Lock()

    def begin(self, holder: Holder, response: Response) -> str:
        """Open a session for a key's holder, set its cookie, and return its token."""
        secret = secrets.token_urlsafe(32)
        now = time.monotonic()
        with self._lock:
            self._drop_old(now)
            self._open[_digest(secret)] = _Session(holder.id, now, now)
        response.set_cookie(COOKIE, secret, httponly=True, samesite="strict", secure=self._secure,
                            path="/", max_age=int(_LONGEST_SECONDS))  # fmt: skip
        return _token(secret)

    def end(self, request: Request, response: Response) -> None:
        """Close the request's session."""
        with self._lock:
            self._open.pop(_digest(request.cookies.get(COOKIE, "")), None)
        response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict",
                               secure=self._secure)  # fmt: skip

    def token(self, request: Request) -> str:
        """Return the token of the request's session, `` where the request has none."""
        secret = request.cookies.get(COOKIE, "")
        return _token(secret) if secret else ""

    def holder(self, request: Request) -> Holder | None:
        """Return who a request's cookie stands for, None without a valid one.

        Raises:
            HTTPException: 403 where the request changes something and does not bear the token.
        """
        secret = request.cookies.get(COOKIE, "")
        if not secret or len(secret) > 200:
            return None
        now = time.monotonic()
        with self._lock:
            session = self._open.get(_digest(secret))
            if session is None or _over(session, now):
                return None
            session.seen = now
        found = keys.by_id(self._state, session.key_id)
        if found is not None and request.method not in _SAFE:
            given = request.headers.get(TOKEN, "")
            if not hmac.compare_digest(given.encode(), _token(secret).encode()):
                raise HTTPException(403, "a session changes things with its token alone")
        return found

    def _drop_old(self, now: float) -> None:
        old = [name for name, session in self._open.items() if _over(session, now)]
        ranked = sorted(self._open, key=lambda name: self._open[name].seen)
        for name in {*old, *ranked[: max(0, len(ranked) - _MOST + 1)]}:
            del self._open[name]


def _over(session: _Session, now: float) -> bool:
    return now - session.begun > _LONGEST_SECONDS or now - session.seen > _IDLE_SECONDS


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _token(secret: str) -> str:
    return hashlib.sha256(b"token\0" + secret.encode()).hexdigest()
