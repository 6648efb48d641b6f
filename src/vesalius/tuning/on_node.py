# SPDX-License-Identifier: Apache-2.0
"""What a Ray worker does for a trial: it begins the trial's own process on its node and waits."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from pathlib import Path

from vesalius.files import read_json, write_json
from vesalius.tuning.child import JOB
from vesalius.tuning.process import TrialProcess, machine_memory, threads_of
from vesalius.types import Json

_TICK = 0.02  # seconds between looks at the process
_PATIENCE = 10.0  # seconds until a file that another machine wrote must be seen here


def attempt(job: Json, order: Json) -> Json:
    """Do one attempt at a trial; returns its outcome as `Outcome` has it, and the node's name.

    Args:
        job: what `child` reads, with `attempt`.
        order: `number`; `folder` of the job, for all machines to see, or None for one of this
            node's own that goes with the attempt; `threads`; `share` of the node's memory that the
            process may take, None for no bound; `environment`, variables beside the node's own.
    """
    shared = order["folder"] is not None
    if shared and not _seen(Path(order["folder"]), job["attempt"]):
        reason = (
            f"the node {socket.gethostname()} does not see the search's folder; put --out and the "
            "cohort on a path that all nodes share, or give --artifacts"
        )
        return _ended("refused", reason)
    folder = Path(order["folder"] or tempfile.mkdtemp(prefix="vesalius-trial-"))
    try:
        memory = int(order["cores"] / _cores() * machine_memory()) if order["bounded"] else None
        write_json(folder / JOB, {**job, "memory": memory})
        environment = {**os.environ, **threads_of(order["cores"]), **order["environment"]}
        process = TrialProcess.begin(order["number"], folder, environment)
        try:
            while not process.over:
                time.sleep(_TICK)
        finally:  # Ray cancels with an exception in this thread
            process.kill()
            process.process.wait()
        outcome = process.outcome()
    finally:
        if not shared:
            shutil.rmtree(folder, ignore_errors=True)
    found = _ended(outcome.ending, outcome.reason)
    return {**found, "result": outcome.result, "seconds": outcome.seconds}


def _cores() -> float:
    """Return the cores that this node has for tasks."""
    import ray

    this = ray.get_runtime_context().get_node_id()
    held = next(node for node in ray.nodes() if node["NodeID"] == this)["Resources"]
    return float(max(1.0, held.get("CPU", 1.0)))


def _seen(folder: Path, attempt: int) -> bool:
    """Return whether the head's job is in its folder here, soon."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        if (folder / JOB).exists() and read_json(folder / JOB)["attempt"] == attempt:
            return True
        time.sleep(_TICK)
    return False


def _ended(ending: str, reason: str) -> Json:
    return {
        "ending": ending,
        "result": None,
        "seconds": 0.0,
        "reason": reason,
        "node": socket.gethostname(),
    }
