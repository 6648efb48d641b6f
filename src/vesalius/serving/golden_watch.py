# SPDX-License-Identifier: Apache-2.0
"""When golden cases are asked: at a server's start, once a day, after a switch, and on request.

A check is a job of the queue, done by a worker: the server's own process loads no network.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path

from vesalius.serving import golden, promotion, queue, versions
from vesalius.serving.agreement import Answer
from vesalius.serving.audit import Audit
from vesalius.serving.queue import Job
from vesalius.serving.state import State
from vesalius.types import Json

_LOG = logging.getLogger(__name__)
KIND = "golden"
DAY_SECONDS = 86_400.0
_LOOK_SECONDS = 30.0


class Checks:
    """Queues the checks of some rules' active runs: at once, and then day by day."""

    def __init__(self, state: State, rules: Sequence[str]):
        self._state = state
        self._rules = tuple(rules)
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Queue a check of each run, and look again from time to time, in a thread."""
        for rule in self._rules:
            ask(self._state, rule)

        def run() -> None:
            while not self._end.wait(_LOOK_SECONDS):
                try:
                    self.look()
                except sqlite3.Error as error:  # a full disk: later again
                    _LOG.error("no check could be queued: %s", type(error).__name__)
            self._state.close()

        self._thread = threading.Thread(target=run, name="golden", daemon=True)
        self._thread.start()

    def look(self) -> int:
        """Queue the checks that are due; returns how many those are.

        Studies that came back for a run which is active no more are asked of the one that is.
        """
        connection, count = self._state.connection(), 0
        for rule in self._rules:
            promotion.move_waiting(self._state, rule)
            version = versions.active(connection, rule)
            if version is None:
                continue
            row = connection.execute(
                "SELECT checked FROM run_health WHERE run_id = ?", (version.run.id,)
            ).fetchone()
            if row is None or self._state.clock.now() - row[0] > DAY_SECONDS:
                count += ask(self._state, rule)
        return count

    def close(self) -> None:
        """End the thread."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()


def ask(state: State, rule: str) -> bool:
    """Queue a check of a rule's active run; False where one waits already."""
    with state.transaction() as connection:
        version = versions.active(connection, rule)
        waits = connection.execute(
            "SELECT 1 FROM jobs WHERE kind = ? AND state IN ('ready', 'leased') "
            "AND json_extract(subject, '$.rule') = ? AND json_extract(subject, '$.version') = ?",
            (KIND, rule, version.number if version else 0),
        ).fetchone()
        if version is None or waits is not None:
            return False
        now = state.clock.now()
        return queue.add(
            connection,
            kind=KIND,
            key=f"golden {rule} {version.number} {now!r}",
            study_uid="",
            subject={"rule": rule, "version": version.number, "run_id": version.run.id},
            now=now,
        )


def do(state: State, job: Job, answer: Answer, work: Path) -> Json:
    """Check the run that the job's rule has now, in a worker; returns what was found."""
    rule = str(job.subject["rule"])
    version = versions.active(state.connection(), rule)
    if version is None:
        return {"cases": 0, "problems": ["the rule has no run any more"]}
    found = golden.check(state, rule, version.run, version.digest, answer, work)
    Audit(state).write(
        "server",
        "golden",
        rule=rule,
        version=version.number,
        run=version.run.id,
        cases=found.cases,
        healthy=not found.problems,
    )
    return {"cases": found.cases, "problems": list(found.problems)}
