# SPDX-License-Identifier: Apache-2.0
"""The executor of one machine: local processes, each trial in one of its own.

A new interpreter for each trial gives back all memory, of the GPU too, and takes a crash with it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from vesalius.tuning.process import TrialProcess, threads_asked, threads_of, write_job
from vesalius.tuning.protocol import Job, Outcome

_TICK = 0.02  # seconds between looks at the processes


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
        each = threads or min(threads_asked(cores), max(1, cores // slots))
        self.function, self.slots, self.memory = function, slots, memory
        self._environment = {**os.environ, **threads_of(each), **(environment or {})}
        self._running: dict[int, TrialProcess] = {}

    @property
    def free(self) -> int:
        """See `Executor.free`."""
        return self.slots - len(self._running)

    def submit(self, job: Job) -> None:
        """See `Executor.submit`."""
        write_job(job, self.function, self.memory)
        self._running[job.number] = TrialProcess.begin(job.number, job.folder, self._environment)

    def poll(self, seconds: float) -> list[Outcome]:
        """See `Executor.poll`."""
        end = time.monotonic() + seconds
        while True:
            ended = [one for one in self._running.values() if one.over]
            if ended or not self._running or time.monotonic() >= end:
                break
            time.sleep(min(_TICK, max(0.0, end - time.monotonic())))
        for one in ended:
            del self._running[one.number]
        return [one.outcome() for one in ended]

    def cancel(self, number: int) -> None:
        """See `Executor.cancel`."""
        one = self._running.get(number)
        if one is not None:
            one.cancel()

    def close(self) -> None:
        """See `Executor.close`."""
        for one in self._running.values():
            one.kill()
            one.process.wait()
        self._running.clear()
