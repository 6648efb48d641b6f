# SPDX-License-Identifier: Apache-2.0
"""Ray nodes of this machine's own, on the loopback interface, to be killed one by one.

Each is what `ray start` makes of a machine, with the cores that it is told. Its agents get their
ports from here: on a busy machine a node gives up that waits for agents to choose them.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.toy_trials import NODE

_START = 240.0  # seconds until a node must be there
_OBJECTS = 80 << 20  # bytes of the object store
_TOKEN = secrets.token_hex(32)  # a process that joined one cluster offers the next the same


@dataclass(slots=True)
class Nodes:
    """Nodes that were started, the head first; each has an address of its own.

    Attributes:
        address: of the cluster.
        folder: of its files.
        variables: of its processes, and of whoever joins it.
    """

    address: str
    folder: Path
    variables: Mapping[str, str]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def add(self, cores: int) -> None:
        """Start one more node and wait until the cluster knows it."""
        port = self.address.split(":")[1]
        where = ["--head", "--port", port, "--include-dashboard", "false"]
        if self.processes:
            where = ["--address", self.address]
        else:
            where += ["--temp-dir", str(self.folder)]
        agents = ("metrics-export-port", "dashboard-agent-listen-port",
                  "dashboard-agent-grpc-port", "runtime-env-agent-port")  # fmt: skip
        ports = [part for name in agents for part in (f"--{name}", str(free_port()))]
        command = [
            Path(sys.executable).with_name("ray"), "start", *where, "--node-ip-address",
            f"127.0.0.{2 + len(self.processes)}", "--num-cpus", str(cores), "--num-gpus", "0",
            "--object-store-memory", str(_OBJECTS), "--disable-usage-stats", "--block", *ports,
        ]  # fmt: skip
        log = self.folder / f"node-{len(self.processes)}.log"
        with open(log, "wb") as stream:
            node = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env={**os.environ, **self.variables, NODE: str(len(self.processes))},
                start_new_session=True,
            )
        self.processes.append(node)
        end = time.monotonic() + _START
        while b"Ray runtime started" not in log.read_bytes():
            if node.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"a Ray node did not start: {log.read_text()[-2000:]}")
            time.sleep(0.2)

    def kill(self, number: int) -> None:
        """End one node at once, with whatever runs on it, as a power cut would."""
        node = self.processes[number]
        with contextlib.suppress(ProcessLookupError):
            for child in [*_below(node.pid), node.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
        node.wait()


def _below(pid: int) -> list[int]:
    """Return the processes that a process began, and those that these began."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in task.read_text().split()]
    return found + [deeper for child in found for deeper in _below(child)]


def ray_variables() -> dict[str, str]:
    """Return what Ray is told, on the nodes and where the cluster is joined."""
    return {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": os.environ.get("RAY_AUTH_TOKEN") or _TOKEN,
    }


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextlib.contextmanager
def ray_nodes(*cores: int, variables: Mapping[str, str] | None = None) -> Iterator[Nodes]:
    """Start a cluster with so many cores on each node; all of it ends after the block."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        own = {**ray_variables(), **(variables or {})}
        nodes = Nodes(f"127.0.0.2:{free_port()}", Path(folder), own)
        try:
            for count in cores:
                nodes.add(count)
            yield nodes
        finally:
            for number in reversed(range(len(nodes.processes))):
                nodes.kill(number)
