# SPDX-License-Identifier: Apache-2.0
"""One process beside the server, for work on images that somebody waits for.

It is started when it is first needed and ends when it was idle for a while; the server's own
process stays light, and a file that kills its reader, or keeps it busy for ever, kills this process
alone. One thing is done at a time.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from vesalius.errors import BudgetError, RunError, VesaliusError

_LOG = logging.getLogger(__name__)
_LOOK_SECONDS = 0.5


class Aside:
    """Calls functions of modules in a process of its own."""

    def __init__(self, *, seconds: float = 180.0, idle_seconds: float = 120.0):
        """Prepare; nothing is started yet.

        Args:
            seconds: that one call may take.
            idle_seconds: after which the process ends.
        """
        self._seconds = seconds
        self._idle_seconds = idle_seconds
        self._context = multiprocessing.get_context("spawn")
        self._lock = threading.Lock()
        self._process: BaseProcess | None = None
        self._line: Connection | None = None

    def call(self, function: Callable[..., Any], *given: Any) -> Any:
        """Return what `function(*given)` returns there; both must be picklable.

        Raises:
            VesaliusError: what the function raised of these.
            BudgetError: it took too long, or the process died of it.
            RunError: it raised something else.
        """
        with self._lock:
            for attempt in (1, 2):
                kind, value = self._ask(function, given)
                if kind != "idle" or attempt == 2:
                    break
        if kind == "done":
            return value
        if kind == "error":
            raise value
        if kind == "defect":
            raise RunError(f"the work failed with {value}; the server's log says no more")
        raise BudgetError(
            "the work was stopped: it took longer or more memory than this server allows"
        )

    def close(self) -> None:
        """End the process, whatever it does."""
        with self._lock:
            self._stop()

    def _ask(self, function: Callable[..., Any], given: tuple[Any, ...]) -> tuple[str, Any]:
        """Return ("done" | "error" | "defect" | "killed" | "idle", value)."""
        line = self._started()
        until = time.monotonic() + self._seconds
        try:
            line.send((function, given))
            if line.poll(max(0.0, until - time.monotonic())):
                answer: tuple[str, Any] = line.recv()
                return answer
        except (EOFError, OSError):  # it ended before it answered
            process = self._process
            if process is not None:
                process.join(1)
                if process.exitcode == 0:  # it had just been idle for long enough
                    self._stop()
                    return "idle", None
        _LOG.error("a call of %s was stopped", getattr(function, "__name__", "a function"))
        self._stop()
        return "killed", None

    def _started(self) -> Connection:
        if self._process is not None and self._process.is_alive() and self._line is not None:
            return self._line
        self._stop()
        line, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_serve, args=(theirs, self._idle_seconds), daemon=True
        )
        process.start()
        theirs.close()
        self._process, self._line = process, line
        return line

    def _stop(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
            self._process = None


def _serve(line: Connection, idle_seconds: float) -> None:
    """Answer calls until none came for a while, or the server is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server tells when to stop
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
    try:
        while line.poll(idle_seconds):
            function, given = line.recv()
            line.send(_answer(function, given))
    except (EOFError, OSError):
        return


def _answer(function: Callable[..., Any], given: tuple[Any, ...]) -> tuple[str, Any]:
    try:
        return "done", function(*given)
    except VesaliusError as error:
        return "error", error
    except Exception as error:
        # The words of a strange error may tell who the patient is.
        return "defect", type(error).__name__
