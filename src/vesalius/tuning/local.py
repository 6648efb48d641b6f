# SPDX-License-Identifier: Apache-2.0
"""The executor of one machine: local processes, each trial in one of its own.

A new interpreter for each trial gives back all memory, of the GPU too, and takes a crash with it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vesalius.files import read_json, write_json
from vesalius.tuning.child import JOB, RESULT
from vesalius.tuning.protocol import Job, Outcome

LOG = "log.txt"
_TICK = 0.02  # seconds between looks at the processes
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_OOM_EVENTS = Path("/sys/fs/cgroup/memory.events")


@dataclass(slots=True)
class _Running:
    job: Job
    attempt: int
    process: subprocess.Popen[bytes]
    begun: float
    ooms: int
    cancelled: bool = False


class LocalProcesses:
    """See `protocol.Executor`."""

    def __init__(
        self,
        function: str,
        *,
        slots: int = 1,
        threads: int | None = None,
        memory: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Make an executor.

        Args:
            function: `module:name` of what is called in each process with a job's payload.
            slots: processes at once.
            threads: of each process; default the machine's cores shared out, and no more
                than `OMP_NUM_THREADS` says.
            memory: bytes of data that each process may take; None for no bound.
            environment: variables of the processes, beside this process's own.
        """
        cores = len(os.sched_getaffinity(0))
        own = int(os.environ.get(_THREADS[0], cores))  # fewer threads were asked of this process
        each = str(threads or min(own, max(1, cores // slots)))
        self.function, self.slots, self.memory = function, slots, memory
        self._environment = {**os.environ, **dict.fromkeys(_THREADS, each), **(environment or {})}
        self._running: dict[int, _Running] = {}

    @property
    def free(self) -> int:
        """See `Executor.free`."""
        return self.slots - len(self._running)

    def submit(self, job: Job) -> None:
        """See `Executor.submit`."""
        job.folder.mkdir(parents=True, exist_ok=True)
        held = job.folder / JOB
        attempt = 1 + (read_json(held)["attempt"] if held.exists() else 0)
        write_json(
            held,
            {
                "function": self.function,
                "payload": job.payload,
                "memory": self.memory,
                "attempt": attempt,
            },
        )
        command = [sys.executable, "-m", "vesalius.tuning.child", str(job.folder), str(os.getpid())]
        with open(job.folder / LOG, "ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,  # Ctrl-C is the head's to answer
            )
        self._running[job.number] = _Running(job, attempt, process, time.monotonic(), _ooms())

    def poll(self, seconds: float) -> list[Outcome]:
        """See `Executor.poll`."""
        end = time.monotonic() + seconds
        while True:
            ended = [one for one in self._running.values() if one.process.poll() is not None]
            if ended or not self._running or time.monotonic() >= end:
                break
            time.sleep(min(_TICK, max(0.0, end - time.monotonic())))
        for one in ended:
            del self._running[one.job.number]
        return [_outcome(one) for one in ended]

    def cancel(self, number: int) -> None:
        """See `Executor.cancel`."""
        one = self._running.get(number)
        if one is not None and one.process.poll() is None:
            one.cancelled = True
            _kill(one.process)

    def close(self) -> None:
        """See `Executor.close`."""
        for one in self._running.values():
            _kill(one.process)
            one.process.wait()
        self._running.clear()


def finished_before(folder: Path) -> Outcome | None:
    """Return how the last attempt in a job's folder ended, None where it did not come to an end.

    That is how a head learns of trials that ended while it was dead.
    """
    if not (folder / JOB).exists() or not (folder / RESULT).exists():
        return None
    job, held = read_json(folder / JOB), read_json(folder / RESULT)
    if held["attempt"] != job["attempt"]:
        return None
    return Outcome(-1, held["ending"], held["result"], held["seconds"], held["reason"])


def _outcome(one: _Running) -> Outcome:
    seconds = time.monotonic() - one.begun
    _kill(one.process)  # whatever it left behind
    held = finished_before(one.job.folder)
    if held is not None:
        return Outcome(one.job.number, held.ending, held.result, seconds, held.reason)
    code = one.process.returncode
    if one.cancelled:
        return Outcome(one.job.number, "cancelled", None, seconds, "the time was over")
    if code == -signal.SIGKILL:
        if _ooms() > one.ooms:
            return Outcome(one.job.number, "memory", None, seconds, "the machine ran out of memory")
        return Outcome(one.job.number, "killed", None, seconds, "its process was killed")
    words = f"signal {-code}" if code < 0 else f"exit code {code}"
    reason = f"its process ended with {words}; see {one.job.folder / LOG}"
    return Outcome(one.job.number, "crashed", None, seconds, reason)


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # all of its processes are gone
        return


def _ooms() -> int:
    """Return how many processes of this control group the kernel has ended for memory."""
    try:
        found = re.search(r"^oom_kill (\d+)", _OOM_EVENTS.read_text(), re.MULTILINE)
    except OSError:  # no control group: nothing is known
        return 0
    return int(found[1]) if found else 0
