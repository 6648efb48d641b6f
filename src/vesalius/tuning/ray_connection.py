# SPDX-License-Identifier: Apache-2.0
"""Joining a Ray cluster, or starting one of this machine alone; nothing is reported to anyone.

The process that joins is a driver: it runs on a machine of the cluster (`ray start` made it one),
or as a Ray Job. The client for machines outside (`ray://`) loses its tasks when the line breaks.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vesalius.errors import UnavailableError, UsageError
from vesalius.optional import require

PURPOSE = "a search on Ray"
_PORT_SECONDS, _ANSWER_SECONDS = 10.0, 120.0  # until an address counts as unreachable
_OBJECTS = 80 << 20  # bytes of Ray's object store, of which JSON takes next to nothing
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's own future default; it warns otherwise
}
_LOUDNESS: Mapping[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}


def join(address: str | None, *, cores: int) -> Any:
    """Join the cluster at an address and return the module `ray`.

    Args:
        address: `HOST:PORT` of the cluster's head; None for `RAY_ADDRESS`, which a Ray Job has,
            or else a cluster of this machine alone, which ends with this process.
        cores: of a cluster that is started here.

    Raises:
        UsageError: no address, or this process has joined a cluster already.
        UnavailableError: nothing answers there. MissingDependency: Ray is absent.
    """
    os.environ.update(_QUIET)
    address = address or os.environ.get("RAY_ADDRESS")
    if address is not None:
        split_address(address)
    if "RAY_AUTH_MODE" not in os.environ and (address is None or _has_token()):
        os.environ["RAY_AUTH_MODE"] = "token"  # as `ray start` does where there is one
    if address is None:  # of this machine alone: everything stays on the loopback interface
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        if not _has_token():
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    ray = require("ray", PURPOSE)
    if ray.is_initialized():
        raise UsageError("this process has joined a Ray cluster already; call ray.shutdown() first")
    _start(ray, cores) if address is None else _connect(ray, address)
    return ray


def _start(ray: Any, cores: int) -> None:
    """Start a cluster of this machine."""
    try:
        ray.init(
            address="local",
            num_cpus=cores,
            include_dashboard=False,
            object_store_memory=_OBJECTS,
            **_LOUDNESS,
        )
    except Exception as error:  # Ray raises this very class where its processes start too slowly
        ray.shutdown()
        raise UnavailableError(
            f"Ray does not start on this machine ({_first(str(error))}); where the machine is "
            "busy, try again later, or leave out --on ray"
        ) from error


def _connect(ray: Any, address: str) -> None:
    """Join a cluster that runs."""
    _check_answers(address)
    try:
        ray.init(address=address, **_LOUDNESS)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        ray.shutdown()
        raise UnavailableError(
            f"the Ray cluster at {address} takes no driver from this machine "
            f"({_first(str(error))}); run `ray start --address={address}` here before"
        ) from error


def _has_token() -> bool:
    """Return whether Ray would find the token of a cluster that asks for one."""
    named = any(name in os.environ for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    return named or (Path.home() / ".ray" / "auth_token").exists()


def _check_answers(address: str) -> None:
    """Raise, within bounded time, where no Ray head answers at an address."""
    host, port = split_address(address)
    way_out = "check that `ray start --head` runs there, and that the port is open to this machine"
    try:
        socket.create_connection((host, port), timeout=_PORT_SECONDS).close()
    except OSError as error:
        raise UnavailableError(
            f"no Ray cluster at {address} ({error.strerror or error}); {way_out}"
        ) from error
    ask = [str(Path(sys.executable).with_name("ray")), "health-check", "--address", address]
    try:
        asked = subprocess.run(ask, capture_output=True, timeout=_ANSWER_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(
            f"what listens at {address} does not answer as a Ray head does; {way_out}"
        ) from error
    if asked.returncode != 0:
        said = asked.stderr.decode(errors="replace").strip().splitlines()
        why = said[-1] if said else f"exit code {asked.returncode}"
        raise UnavailableError(f"the Ray cluster at {address} refuses: {why}; {way_out}")


def split_address(address: str) -> tuple[str, int]:
    """Return host and port.

    Raises:
        UsageError: it is no `HOST:PORT`.
    """
    host, _, port = address.rpartition(":")
    if address.startswith("ray://"):
        raise UsageError(
            "the client address ray:// is not supported: give HOST:PORT of the head, on a machine "
            "of the cluster"
        )
    if not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise UsageError(f"an address of Ray is HOST:PORT, e.g. 10.0.0.5:6379; got '{address}'")
    return host, int(port)


def _first(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")
