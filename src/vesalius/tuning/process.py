# SPDX-License-Identifier: Apache-2.0
"""The process of one attempt at a trial, as its parent sees it, on whichever machine that is."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from vesalius.files import read_json, write_json
from vesalius.tuning.child import JOB, RESULT
from vesalius.tuning.protocol import Job, Outcome
from vesalius.types import Json

LOG = "log.txt"
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_OOM_EVENTS = Path("/sys/fs/cgroup/memory.events")
_MEMORY = Path("/sys/fs/cgroup/memory.max")
_SHARE = 0.9  # of the memory, for trials


@dataclass(slots=True)
class TrialProcess:
    """A process that does the job of a folder.

    Attributes:
        number: of the trial.
        folder: that holds its job.
        process: the child.
        begun: `time.monotonic()`.
        ooms: processes that the kernel had ended for memory by then.
        cancelled: whether `cancel` ended it.
    """

    number: int
    folder: Path
    process: subprocess.Popen[bytes]
    begun: float
    ooms: int
    cancelled: bool = False

    @classmethod
    def begin(cls, number: int, folder: Path, environment: Mapping[str, str]) -> Self:
        """Start the process for a folder with a job in it."""
        command = [sys.executable, "-m", "vesalius.tuning.child", str(folder), str(os.getpid())]
        with open(folder / LOG, "ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(environment),
                start_new_session=True,  # Ctrl-C is the head's to answer
            )
        return cls(number, folder, process, time.monotonic(), _ooms())

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.process.poll() is not None

    def cancel(self) -> None:
        """End it, so that its outcome is `cancelled`; nothing where it ended already."""
        if not self.over:
            self.cancelled = True
            self.kill()

    def kill(self) -> None:
        """End it and whatever it began."""
        with contextlib.suppress(ProcessLookupError, PermissionError):  # all of them are gone
            os.killpg(self.process.pid, signal.SIGKILL)

    def outcome(self) -> Outcome:
        """Return how it ended, which it has."""
        seconds = time.monotonic() - self.begun
        self.kill()  # whatever it left behind
        held = finished_before(self.folder)
        if held is not None:
            return Outcome(self.number, held.ending, held.result, seconds, held.reason)
        if self.cancelled:
            return Outcome(self.number, "cancelled", None, seconds, "the time was over")
        code = self.process.returncode
        if code == -signal.SIGKILL:
            if _ooms() > self.ooms:
                why = "the machine ran out of memory"
                return Outcome(self.number, "memory", None, seconds, why)
            return Outcome(self.number, "killed", None, seconds, "its process was killed")
        words = f"signal {-code}" if code < 0 else f"exit code {code}"
        reason = f"its process ended with {words}; see {self.folder / LOG}"
        return Outcome(self.number, "crashed", None, seconds, reason)


def write_job(job: Job, function: str, memory: int | None) -> Json:
    """Write a job's next attempt into its folder, and return what was written."""
    job.folder.mkdir(parents=True, exist_ok=True)
    path = job.folder / JOB
    attempt = 1 + (read_json(path)["attempt"] if path.exists() else 0)
    held = {"function": function, "payload": job.payload, "memory": memory, "attempt": attempt}
    write_json(path, held)
    return held


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


def threads_of(count: int) -> dict[str, str]:
    """Return the variables that hold a process to so many threads."""
    return dict.fromkeys(_THREADS, str(count))


def threads_asked(default: int) -> int:
    """Return the threads that this process was asked to keep to."""
    return int(os.environ.get(_THREADS[0], default))


def machine_memory() -> int:
    """Return the bytes that all trials of this machine may take: its own, or its container's."""
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):  # no control group, or one without a bound
        whole = min(whole, int(_MEMORY.read_text()))
    return int(_SHARE * whole)


def _ooms() -> int:
    """Return how many processes of this control group the kernel has ended for memory."""
    try:
        found = re.search(r"^oom_kill (\d+)", _OOM_EVENTS.read_text(), re.MULTILINE)
    except OSError:  # no control group: nothing is known
        return 0
    return int(found[1]) if found else 0
