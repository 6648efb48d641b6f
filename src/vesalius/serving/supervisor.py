# SPDX-License-Identifier: Apache-2.0
"""Worker processes: started anew when they die, and never longer there than their server.

A worker loads runs and their libraries; the server's own process does not. A worker that is killed,
or takes more memory than the machine has, costs its job one attempt and nobody else anything.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from vesalius.serving import queue
from vesalius.serving.state import State

_LOG = logging.getLogger(__name__)
_LOOK_SECONDS = 0.5
_LONGEST_PAUSE = 60.0
_STEADY_SECONDS = 60.0

# What a worker's process runs: (state's folder, names of push targets, stop, wait)
Main = Callable[[Path, Sequence[str], Callable[[], bool], Callable[[float], object]], None]


class Supervisor:
    """Keeps a number of worker processes going."""

    def __init__(self, state: State, main: Main, *, workers: int, targets: Sequence[str] = ()):
        """Start the workers.

        Args:
            state: the state.
            main: what a worker runs; a function of a module, since it is started by name.
            workers: how many.
            targets: names of what results are pushed to.
        """
        self._state = state
        self._main = main
        self._targets = tuple(targets)
        self._end = threading.Event()
        self._context = multiprocessing.get_context("spawn")
        self.restarts = 0
        self._slots = [_Slot() for _ in range(workers)]
        for slot in self._slots:
            self._start(slot)
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> int:
        """How many workers there are at the moment."""
        return sum(slot.process is not None and slot.process.is_alive() for slot in self._slots)

    @property
    def pids(self) -> list[int]:
        """Their process ids."""
        return [slot.process.pid or 0 for slot in self._slots if slot.process is not None]

    def close(self, seconds: float = 10.0) -> None:
        """Let the workers finish what they do, at most for `seconds`; the rest is given back."""
        self._end.set()
        self._thread.join()
        for slot in self._slots:
            if slot.line is not None:
                slot.line.close()  # the worker hears that its line is cut
        until = time.monotonic() + seconds
        for slot in self._slots:
            if slot.process is not None:
                slot.process.join(max(0.0, until - time.monotonic()))
                if slot.process.is_alive():
                    slot.process.kill()
                    slot.process.join()
                queue.release(self._state, str(slot.process.pid), "the server was stopped")

    def _start(self, slot: _Slot) -> None:
        theirs, slot.line = self._context.Pipe(duplex=False)
        slot.process = self._context.Process(
            target=_worker, args=(theirs, self._main, self._state.folder, self._targets)
        )
        slot.process.start()
        theirs.close()
        slot.since = time.monotonic()

    def _run(self) -> None:
        while not self._end.wait(_LOOK_SECONDS):
            for slot in self._slots:
                if slot.process is None or slot.process.is_alive():
                    continue
                now = time.monotonic()
                if slot.died == 0.0:
                    slot.died = now
                    steady = now - slot.since > _STEADY_SECONDS
                    slot.pause = 0.5 if steady else min(_LONGEST_PAUSE, 2 * slot.pause)
                    code = slot.process.exitcode
                    _LOG.error("a worker ended with %s", code)
                    queue.release(self._state, str(slot.process.pid), f"its worker ended ({code})")
                if now - slot.died >= slot.pause:
                    self.restarts += 1
                    slot.died = 0.0
                    if slot.line is not None:
                        slot.line.close()
                    self._start(slot)
        self._state.close()


class _Slot:
    """The place of one worker."""

    def __init__(self) -> None:
        self.process: BaseProcess | None = None
        self.line: Connection | None = None
        self.since = 0.0
        self.died = 0.0
        self.pause = 0.5


def _worker(line: Connection, main: Main, folder: Path, targets: Sequence[str]) -> None:
    """Run in a process of its own; end soon after the server, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server tells when to stop
    end = threading.Event()
    parent = os.getppid()

    def listen() -> None:
        try:
            line.recv_bytes()
        except (EOFError, OSError):
            end.set()
        # A server that was killed waits for nobody: its successor gives the job out anew.
        time.sleep(_LOOK_SECONDS)
        if os.getppid() != parent:
            os._exit(1)

    threading.Thread(target=listen, name="line", daemon=True).start()
    main(folder, targets, end.is_set, end.wait)
