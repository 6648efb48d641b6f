# SPDX-License-Identifier: Apache-2.0
"""moto's S3 server on the loopback interface, in a process of its own, with one bucket in it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

from benchmarks.ray_nodes import free_port

BUCKET = "searches"
VARIABLES = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
_START = 120.0  # seconds until it must answer


@contextlib.contextmanager
def s3_server() -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the endpoint, and the variables with which it is used."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    endpoint = f"http://127.0.0.1:{port}"
    try:
        _wait(endpoint, server)
        make = urllib.request.Request(f"{endpoint}/{BUCKET}", method="PUT")  # noqa: S310 - its own
        with urllib.request.urlopen(make, timeout=60):  # noqa: S310 - its own
            pass
        yield endpoint, VARIABLES
    finally:
        server.kill()
        server.wait()


def _wait(endpoint: str, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _START
    while True:
        try:
            with urllib.request.urlopen(endpoint, timeout=60):  # noqa: S310 - its own
                return
        except urllib.error.HTTPError:
            return  # it answers
        except OSError as error:
            if server.poll() is not None or time.monotonic() > end:
                raise RuntimeError("moto's server did not start") from error
            time.sleep(0.1)
