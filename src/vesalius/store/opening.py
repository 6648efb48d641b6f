# SPDX-License-Identifier: Apache-2.0
"""Archives by their address: a folder, or `postgresql://user@host/database#name`."""

from __future__ import annotations

import os
from collections.abc import Mapping

from vesalius.store.protocol import Archive
from vesalius.types import Json, PathLike

_SERVERS = ("postgresql://", "postgres://")


def create_archive(
    address: PathLike, *, identity: Json, dimension: int, columns: Mapping[str, str]
) -> Archive:
    """Make an empty archive; see `lance.create_archive` and `postgres.create_archive`."""
    if is_server(address):
        from vesalius.store import postgres

        url, name = _parts(address)
        return postgres.create_archive(
            url, identity=identity, dimension=dimension, columns=columns, name=name
        )
    from vesalius.store import lance

    return lance.create_archive(address, identity=identity, dimension=dimension, columns=columns)


def open_archive(address: PathLike, version: int | None = None) -> Archive:
    """Open an archive; see `lance.open_archive` and `postgres.open_archive`."""
    if is_server(address):
        from vesalius.store import postgres

        url, name = _parts(address)
        return postgres.open_archive(url, version, name=name)
    from vesalius.store import lance

    return lance.open_archive(address, version)


def is_server(address: PathLike) -> bool:
    """Return whether an address is that of a server, not of a folder."""
    return os.fspath(address).startswith(_SERVERS)


def _parts(address: PathLike) -> tuple[str, str]:
    """Return the address of the database and the name of the archive in it."""
    url, _, name = os.fspath(address).partition("#")
    return url, name or "archive"
