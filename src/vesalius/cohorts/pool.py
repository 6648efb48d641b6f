# SPDX-License-Identifier: Apache-2.0
"""Worker processes of `scan`: tasks out, results back in any order; a dead worker is replaced.

Workers are started as `python -m vesalius.cohorts.worker`, so that a caller's script is never
imported again, and end when their end of the socket closes, so that none outlives its scan.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from multiprocessing import connection
from pathlib import Path
from typing import Any

ATTEMPTS = 3  # a task that three workers died on is given up
_ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
    ),
    "1",
)


class Died(Exception):
    """The result of a task of one item that `ATTEMPTS` workers died on."""


class Pool:
    """Runs tasks `(kind, items)` in `count` processes; use it by `with`.

    `settings` are sent to each process first; `worker` is what Python runs.
    """

    def __init__(
        self,
        count: int,
        settings: Any,
        *,
        worker: Sequence[str] = ("-m", "vesalius.cohorts.worker"),
    ) -> None:
        self._worker = tuple(worker)
        self._settings = settings
        self._count = max(1, count)
        self._workers: dict[connection.Connection, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        for end, worker in self._workers.items():
            end.close()
            worker.kill()
        for worker in self._workers.values():
            worker.wait()
        self._workers.clear()

    def run(
        self, tasks: Iterator[tuple[str, list[Any]]]
    ) -> Iterator[tuple[str, list[Any], list[Any] | Died]]:
        """Yield `(kind, items, results)`; `results` has one entry an item, or is `Died`.

        `tasks` is drawn only as fast as workers take them. When a worker dies, its items are tried
        again one by one, so that one bad file costs itself alone.
        """
        again: list[tuple[str, list[Any], int]] = []
        busy: dict[connection.Connection, tuple[str, list[Any], int]] = {}
        idle: list[connection.Connection] = list(self._workers)
        exhausted = False
        while True:
            while not exhausted or again:
                if not idle:
                    if len(self._workers) >= self._count:
                        break
                    idle.append(self._start())
                if again:
                    task = again.pop()
                else:
                    drawn = next(tasks, None)
                    if drawn is None:
                        exhausted = True
                        break
                    task = (*drawn, 0)
                end = idle.pop()
                busy[end] = task
                try:
                    end.send(task[:2])
                except (BrokenPipeError, ConnectionResetError):
                    continue  # it died while idle: noticed below as end of file
            if not busy:
                return
            for ready in connection.wait(list(busy)):
                assert isinstance(ready, connection.Connection)  # noqa: S101  narrows the type
                kind, items, attempt = busy.pop(ready)
                try:
                    results = ready.recv()
                except (EOFError, ConnectionResetError):
                    self._workers.pop(ready).wait()
                    ready.close()
                    if attempt + 1 < ATTEMPTS:
                        again += [(kind, [item], attempt + 1) for item in items]
                    else:
                        yield kind, items, Died()
                    continue
                idle.append(ready)
                if isinstance(results, BaseException):
                    raise results
                yield kind, items, results

    def _start(self) -> connection.Connection:
        mine, other = connection.Pipe()
        package = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
        # Warnings of the reading libraries quote what they read: they stay unsaid.
        command = [sys.executable, "-W", "ignore", *self._worker]
        worker = subprocess.Popen(
            [*command, str(other.fileno())],
            pass_fds=[other.fileno()],
            env={**os.environ, **_ONE_THREAD, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        other.close()
        mine.send(self._settings)
        self._workers[mine] = worker
        return mine
