# SPDX-License-Identifier: Apache-2.0
"""Who may do what over HTTP: a key in each request, and a pause for those who guess.

A key comes as `Authorization: Bearer KEY`, as `X-API-Key: KEY`, or as the password of basic
authentication, which PACS can send; a browser that gave its key once has a session instead.
"""

from __future__ import annotations

import base64
import binascii
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from fastapi import HTTPException, Request

from vesalius.serving import keys
from vesalius.serving.audit import Audit
from vesalius.serving.keys import Holder
from vesalius.serving.page.sessions import Sessions
from vesalius.serving.state import State

_MOST_FAILURES = 10
_WINDOW_SECONDS = 60.0
_MOST_CLIENTS = 10_000
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="vesalius", Basic realm="vesalius"'}


class Access:
    """Checks keys and roles."""

    def __init__(self, state: State, audit: Audit, sessions: Sessions | None = None):
        self._state = state
        self._audit = audit
        self._sessions = sessions
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._lock = threading.Lock()

    def needs(self, role: str) -> Callable[[Request], Holder]:
        """Return a dependency that lets holders of a role pass, and nobody else."""

        def check(request: Request) -> Holder:
            client = request.client.host if request.client else ""
            if self._guessing(client):
                raise HTTPException(
                    429, "too many wrong keys; wait a minute", {"Retry-After": "60"}
                )
            key = _presented(request)
            found = keys.holder(self._state, key) if key else None
            if not key and self._sessions is not None:
                found = self._sessions.holder(request)
            if found is None:
                if key:
                    self._failed(client)
                    self._audit.write("unknown", "wrong-key", client=client)
                raise HTTPException(401, "give a valid key", _CHALLENGE)
            if not found.may(role):
                self._audit.write(f"key {found.id}", "denied", role=role)
                raise HTTPException(403, f"the key does not have the role '{role}'")
            request.state.holder = found
            return found

        return check

    def _guessing(self, client: str) -> bool:
        with self._lock:
            begun, count = self._failures.get(client, (0.0, 0))
            return count >= _MOST_FAILURES and time.monotonic() - begun < _WINDOW_SECONDS

    def _failed(self, client: str) -> None:
        now = time.monotonic()
        with self._lock:
            begun, count = self._failures.pop(client, (now, 0))
            if now - begun >= _WINDOW_SECONDS:
                begun, count = now, 0
            self._failures[client] = (begun, count + 1)
            while len(self._failures) > _MOST_CLIENTS:
                self._failures.popitem(last=False)


def _presented(request: Request) -> str:
    """Return the key of a request, or an empty text."""
    direct = request.headers.get("x-api-key", "")
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            pair = base64.b64decode(value, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return "?"
        return pair.partition(":")[2]
    return direct
