# SPDX-License-Identifier: Apache-2.0
"""API keys: shown once, kept as a hash, with roles.

A key is `vk_ID_SECRET`. The secret has 256 random bits, so that one round of SHA-256 protects it
as well as a slow hash would: there is nothing to guess.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from vesalius.errors import UsageError, did_you_mean
from vesalius.serving.state import State

ROLES = ("send", "read", "review", "admin")
_KEY = re.compile(r"vk_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class Holder:
    """Who a valid key belongs to."""

    id: str
    name: str
    roles: frozenset[str]

    def may(self, role: str) -> bool:
        """Return whether the holder has a role; an admin has all."""
        return role in self.roles or "admin" in self.roles


def create(state: State, *, name: str, roles: Iterable[str]) -> str:
    """Make a key and return it; it cannot be shown again.

    Raises:
        UsageError: an unknown role, or none.
    """
    wanted = sorted(set(roles))
    for role in wanted:
        if role not in ROLES:
            raise UsageError(
                f"a role is one of {', '.join(ROLES)}, got '{role}'.{did_you_mean(role, ROLES)}"
            )
    if not wanted or not name.strip() or len(name) > 64 or not name.isprintable():
        raise UsageError("a key needs a name of 1 to 64 characters and at least one role")
    number, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with state.transaction() as connection:
        connection.execute(
            "INSERT INTO keys VALUES (?, ?, ?, ?, ?, 0)",
            (number, _digest(secret), " ".join(wanted), name, now),
        )
    return f"vk_{number}_{secret}"


def holder(state: State, key: str) -> Holder | None:
    """Return who a key belongs to, or None where it is not valid."""
    found = _KEY.fullmatch(key)
    if found is None:
        return None
    row = state.connection().execute(
        "SELECT digest, name, roles FROM keys WHERE id = ? AND NOT revoked", (found[1],)
    ).fetchone()  # fmt: skip
    # Without a row the comparison is made as well, so that its time tells nothing.
    held = row[0] if row else bytes(32)
    if not hmac.compare_digest(held, _digest(found[2])) or row is None:
        return None
    return Holder(found[1], row[1], frozenset(row[2].split()))


def by_id(state: State, number: str) -> Holder | None:
    """Return who the valid key of a number belongs to, for sessions that it opened."""
    row = state.connection().execute(
        "SELECT name, roles FROM keys WHERE id = ? AND NOT revoked", (number,)
    ).fetchone()  # fmt: skip
    return Holder(number, row[0], frozenset(row[1].split())) if row else None


def revoke(state: State, number: str) -> bool:
    """Make a key invalid; False where there is no such key."""
    with state.transaction() as connection:
        return bool(
            connection.execute(
                "UPDATE keys SET revoked = 1 WHERE id = ? AND NOT revoked", (number,)
            ).rowcount
        )


def listed(state: State) -> list[dict[str, object]]:
    """Return all keys without their secrets."""
    rows = state.connection().execute(
        "SELECT id, name, roles, created, revoked FROM keys ORDER BY created, id"
    )
    return [
        {"id": a, "name": b, "roles": c.split(), "created": d, "revoked": bool(e)}
        for a, b, c, d, e in rows
    ]


def any_valid(state: State) -> bool:
    """Return whether there is a key of an admin."""
    query = "SELECT 1 FROM keys WHERE NOT revoked AND roles LIKE '%admin%'"
    return state.connection().execute(query).fetchone() is not None


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("ascii")).digest()
